"""Shuffled rows of 4 KiB from our stores, beside what else reads them: the same bytes, each loader in its own process.

text -> file of rows -> every loader's own format -> runs in turns: warm without workers -> `rows`, one a loader
                                                  -> with workers, no prefetch, cold -> `variants`
                                                  -> ratios turn by turn, against the targets
"""

import os
import statistics
from collections.abc import Sequence
from typing import Any

from bytropix.jobs.bench.corpus import some_text
from bytropix.jobs.bench.loaders.field import Field, Run
from bytropix.jobs.bench.loaders.rows import BATCH, ROW_BYTES, ROWS_FILE, Plan, write_rows
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target

TIMES = 4  # the text's size in `megabytes`: more than the processor's caches hold
OURS = ("bytropix", "bytropix+crc", "bytropix+zstd")
FAR = 10**9  # windows delivered before a resume

Found = dict[Run, list[dict[str, Any]]]
"""What each run found, a turn each."""


def bench_stream(settings: BenchSettings) -> list[BenchRow]:
    """Set all loaders side by side: warm and without workers first, then two workers, prefetch off, cold.

    Under `rows` each loader stands once, as it is run first; all other ways are `variants`.
    """
    text = some_text(settings.data, int(TIMES * settings.megabytes * 1e6))
    n_bytes = ROW_BYTES * write_rows(settings.folder / ROWS_FILE, text)
    fewer = max(1, settings.repeats // 2)
    with Field(settings.folder) as field:
        first = [Run(loader=name, first_epoch=name == "bytropix+crc") for name in field.names]
        others = _others(field.names, n_bytes)
        found = field.in_turns([*first, *_without_prefetch()], settings.repeats) | field.in_turns(others, fewer)
        watched = {run: field.watch(run) for run in found if not run.cold}
        resumed = field.first_batches(_resumed(n_bytes), settings.repeats)
        absent = field.absent
    rows = [_row(run, turns, watched.get(run, {})) for run, turns in found.items() if run.loader not in absent]
    if settings.png is not None:
        from bytropix.jobs.bench.stream_chart import draw

        about = f"batch {BATCH}, warm page cache, no worker processes; {n_bytes / 1e6:.0f} MB on {os.cpu_count()} cores"
        draw([row for row in rows if row.place == "rows"], settings.png, about)
    rows += _ratios(found, n_bytes) + _limits(rows) + _resumes(resumed)
    return rows + [
        BenchRow(name=f"stream: {name}", value=None, unit="rows/s", note=reason, place="not_installed")
        for name, reason in absent.items()
    ]


def _without_prefetch() -> list[Run]:
    plan = Plan(prefetch=False)
    return [Run(loader=name, plan=plan, first_epoch=name == "bytropix+crc") for name in OURS]


def _others(names: Sequence[str], n_bytes: int) -> list[Run]:
    """Return what is measured beside the first table; cold runs come last, when nobody has the files open."""
    anew = [Run(loader="bytropix+zstd", plan=Plan(cache_bytes=n_bytes // 3))]
    workers = [Run(loader=name, plan=Plan(workers=2)) for name in names if name == "bytropix" or name not in OURS]
    cold = [Run(loader=name, cold=True, first_epoch=True) for name in names if hasattr(os, "posix_fadvise")]
    return anew + workers + cold


def _resumed(n_bytes: int) -> list[Run]:
    """Return a start, a resume in the middle of an epoch, and one far away."""
    places = (0, n_bytes // ROW_BYTES // 2, FAR)
    return [Run(loader="bytropix+crc", plan=Plan(position=place)) for place in places]


def _row(run: Run, turns: list[dict[str, Any]], watched: dict[str, Any]) -> BenchRow:
    """Return a loader's row; every figure is the median of its turns."""

    def median(figure: str, per: str = "rows") -> float:
        return float(statistics.median(turn[figure] / turn[per] for turn in turns))

    first_batch_ms = statistics.median(turn["first_batch_ms"] for turn in turns)
    rate = 1 / median("seconds")
    figures: dict[str, str | float | bool | None] = {
        "loader": run.loader,
        "samples_per_s": rate,
        "cpu_us_per_sample": 1e6 * median("cpu_seconds"),
        "wall_us_per_sample": 1e6 * median("seconds"),
        "first_batch_ms": first_batch_ms,
        "memory_mib": watched.get("memory_mib"),
        "complete": watched.get("complete"),
        "cache": "cold" if run.cold else "warm",
        "workers": run.plan.workers,
        "prefetch": run.plan.prefetch if run.loader in OURS else None,
        "decoded_cache_mib": run.plan.cache_bytes / 2**20 if run.plan.cache_bytes else None,
        "timed": "the first epoch, from its first batch on" if run.first_epoch else "epochs behind the first",
        "samples": statistics.median(turn["rows"] for turn in turns),
        "batches": statistics.median(turn["batches"] for turn in turns),
        "turns": len(turns),
        "read_from_storage_mb": _median_or_none([turn["storage_mb"] for turn in turns]),
    }
    said = [f"{figures['cpu_us_per_sample']:.3g} us of processor a row", f"first batch {first_batch_ms:.3g} ms"]
    if watched.get("memory_mib") is not None:
        said.append(f"{watched['memory_mib']:.0f} MiB")
    if watched:
        said.append("complete" if watched["complete"] else "NOT COMPLETE")
    return BenchRow(
        name=f"stream: {_caption(run)}",
        value=rate,
        unit="rows/s",
        note=", ".join(said),
        figures=figures,
        place="rows" if _is_first(run) else "variants",
    )


def _is_first(run: Run) -> bool:
    """Return whether a loader is run as in the first table: warm, without workers, nothing of it switched off."""
    return run.plan == Plan() and not run.cold


def _median_or_none(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _caption(run: Run) -> str:
    words = [run.loader, "cold" if run.cold else "warm", f"{run.plan.workers} workers"]
    words += ["no prefetch"] * (not run.plan.prefetch) + ["decoded anew"] * bool(run.plan.cache_bytes)
    return ", ".join(words)


def _ratios(found: Found, n_bytes: int) -> list[BenchRow]:
    """Return the ratios of rates that have a target, from turns of the same round."""
    named = {run.loader: run for run in found if _is_first(run)}
    bounds = [
        ("bytropix", "memmap-batched", 0.8),
        ("bytropix+crc", "memmap", 1.4),
        ("bytropix+zstd", "memmap-batched", 0.5),
        ("bytropix+crc", "webdataset", 10),
        ("bytropix+crc", "MDS", 10),
    ]
    pairs = [(named[ours], named[other], bound) for ours, other, bound in bounds if other in named]
    pairs += [(named[run.loader], run, 1) for run in found if not run.plan.prefetch]
    return [_against(found, ours, other, bound, n_bytes) for ours, other, bound in pairs]


def _against(found: Found, ours: Run, other: Run, bound: float, n_bytes: int) -> BenchRow:
    rates, beside = ([turn["rows"] / turn["seconds"] for turn in found[run]] for run in (ours, other))
    what = other.loader if other.plan.prefetch else "itself without prefetch"
    return BenchRow(
        name=f"stream: {ours.loader} against {what}",
        value=statistics.median(rates),
        unit="rows/s",
        baseline=statistics.median(beside),
        ratio=statistics.median(rate / by for rate, by in zip(rates, beside, strict=True)),
        against=what,
        targets=(Target("ratio", ">=", bound),),
        note=f"rows of {ROW_BYTES} bytes, batch {BATCH}, shuffled, warm; {n_bytes / 1e6:.0f} MB",
        place="ratios",
    )


def _limits(rows: list[BenchRow]) -> list[BenchRow]:
    """Return what ours is to keep by itself: the first batch and memory."""
    limits = [("first_batch_ms", "first batch", "ms", 50), ("memory_mib", "memory beyond torch", "MiB", 390)]
    chosen = {row.figures["loader"]: row for row in rows if row.place == "rows"}
    return [
        BenchRow(
            name=f"stream: {loader}, {what}",
            value=_number(chosen[loader].figures[figure]),
            unit=unit,
            targets=(Target("value", "<=", bound),),
            note="from a closed store, imports done" if unit == "ms" else "300 MiB, and 90 of batches made ahead",
            place="ratios",
        )
        for figure, what, unit, bound in limits
        for loader in OURS
    ]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _resumes(found: dict[Run, list[float]]) -> list[BenchRow]:
    """Return what a resume takes until its first batch, against a start."""
    (_, cold), *resumed = found.items()
    return [
        BenchRow(
            name=f"stream: resume at window {run.plan.position}",
            value=statistics.median(times),
            unit="ms",
            baseline=statistics.median(cold),
            ratio=statistics.median(time / start for time, start in zip(times, cold, strict=True)),
            against="a start",
            targets=(Target("ratio", "<=", 2),),
            note="from a closed store to the first batch",
            place="ratios",
        )
        for run, times in resumed
    ]
