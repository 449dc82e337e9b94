"""Raw sources to a finished store.

    sources -> scan (hash, cut) -> plan -> fit the patcher on a sample -> parts, in N processes -> manifest, last

A run that dies leaves a folder without manifest, which readers refuse and `resume` completes to the same bytes.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.config import to_plain
from bytropix.datasets.store import (
    FORMAT_VERSION,
    FileRecord,
    Manifest,
    SourceRecord,
    Store,
    open_storage,
    publish,
    write_patcher,
)
from bytropix.datasets.store.commit import BESIDE, room_for, write_file
from bytropix.errors import ConfigError, SourceError, StoreError
from bytropix.patching import fit_patcher
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import ScannedFile, read_documents, scan
from bytropix.pipelines.part_task import RECEIPTS, PartDone, PartTask, do_part
from bytropix.pipelines.plan import PartPlan, part_key, plan_parts, sample_files
from bytropix.pipelines.sources import SourceFile, find_files
from bytropix.pipelines.workers import ordered, processes

Progress = Callable[[str, int, int], None]
"""Called with the stage (scan, fit, parts), the bytes done and the bytes in all."""

OURS = {"manifest.json", "babylon", "parts", "quarantine.jsonl", RECEIPTS}


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestSummary:
    """What an ingestion did."""

    store: Store
    """The finished store."""
    skipped: int
    """Parts that an earlier run had finished."""


def ingest_bytes(
    sources: Sequence[Path],
    out: Path,
    config: IngestConfig,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> IngestSummary:
    """Make a store of files and folders.

    Args:
        sources: Files and folders, in any order.
        out: The store's folder.
        config: What decides its bytes.
        workers: Processes; the result is the same for any number.
        resume: Complete what an earlier run left, or begin.
        overwrite: Remove a store that is there, once the sources are known to be good.
        progress: See `Progress`.

    Raises:
        ConfigError: `workers` is below 1, or both `resume` and `overwrite` are asked for.
        SourceError: A source is missing, unreadable, empty, or changes under way.
        StoreError: `out` is in the way, the disk is full, or a worker died.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if not sources:
        raise SourceError("no source; give at least one file or folder")
    if resume and overwrite:
        raise ConfigError("--resume completes a store and --overwrite replaces it; give one of them")
    _refuse(out, sources, there_is_leave=resume or overwrite)
    files = find_files(sources)
    # Processes take a second to start, so they do it during the scan; a single part needs none.
    several = workers > 1 and sum(file.size for file in files) > config.part_bytes
    with processes(workers) if several else nullcontext() as pool:
        scanned = _scan_all(files, config, workers, progress)
        kept = [file for file in scanned if not file.refused]
        refused = [file for file in scanned if file.refused]
        plans = plan_parts(kept, config)
        if resume and (out / "manifest.json").is_file():
            return _nothing_to_do(out, config, kept)
        _make_way(out, overwrite=overwrite)
        rows = [{"bytes_read": file.size, "path": file.file.name, "reason": file.refused} for file in refused]
        lines = [json.dumps(row, sort_keys=True) + "\n" for row in rows]
        listed = "".join(lines).encode()
        write_file(out / "quarantine.jsonl", listed)
        settings, babylon = _fit(out, kept, config, progress)
        tasks = _tasks(out, plans, config, settings, babylon)
        results = map(do_part, tasks) if pool is None else ordered(pool, do_part, tasks, ahead=workers + 1)
        done = _collect(results, sum(plan.n_bytes for plan in plans), progress)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind="bytes",
        config=to_plain(config),
        patcher=settings,
        babylon=babylon,
        sources=tuple(SourceRecord(name=file.file.name, size=file.size, sha256=file.sha256) for file in kept),
        parts=tuple(part.record for part in done),
        quarantine=FileRecord(path="quarantine.jsonl", size=len(listed), sha256=FileRecord.hash_of(listed)),
        quarantined=len(refused),
    )
    publish(open_storage(out), manifest)
    return IngestSummary(store=Store.open(out), skipped=sum(part.skipped for part in done))


def _refuse(out: Path, sources: Sequence[Path], *, there_is_leave: bool) -> None:
    """Refuse a place for the store that would harm something."""
    place = out.resolve()
    for source in (source.resolve() for source in sources):
        if place == source or source in place.parents or place in source.parents:
            raise StoreError(f"{out}: the store and the source {source} lie in one another; choose another --out")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if not names or any(name not in OURS and not name.startswith(BESIDE) for name in names):
        raise StoreError(f"{out}: exists and is not a store; choose another --out")
    if not there_is_leave:
        raise StoreError(
            f"{out}: exists; complete it with --resume, replace it with --overwrite, or choose another --out"
        )


def _scan_all(files: list[SourceFile], config: IngestConfig, workers: int, progress: Progress) -> list[ScannedFile]:
    """Scan in threads (hashing lets others run) and sort by name and content, as names may be alike."""
    total = sum(file.size for file in files)
    read = 0
    progress("scan", 0, total)
    found = []
    with ThreadPoolExecutor(workers) as threads:
        for file in ordered(threads, lambda file: scan(file, config.document_bytes), files, ahead=2 * workers):
            found.append(file)
            read += file.size
            progress("scan", read, total)
    return sorted(found, key=lambda file: (file.file.name, file.sha256))


def _make_way(out: Path, *, overwrite: bool) -> None:
    """Make the store's folder, without a manifest until it is whole."""
    with room_for(out):
        if overwrite and out.exists():
            (out / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(out)
        (out / RECEIPTS).mkdir(parents=True, exist_ok=True)


def _fit(
    out: Path, kept: list[ScannedFile], config: IngestConfig, progress: Progress
) -> tuple[dict[str, Any], tuple[FileRecord, ...]]:
    """Fit the patcher on a sample of the train documents, keep it in the store, return its settings and files."""
    files = sample_files(kept, config)
    total = sum(file.n_bytes for file in files)

    def sample() -> Iterator[NDArray[np.uint8]]:
        read = 0
        for file in files:
            data = read_documents((file,))
            yield from np.split(data, np.cumsum(file.lengths[:-1], dtype=np.int64))
            read += len(data)
            progress("fit", read, total)

    progress("fit", 0, total)
    return write_patcher(open_storage(out), fit_patcher(sample(), config.patch))


def _tasks(
    out: Path, plans: list[PartPlan], config: IngestConfig, settings: dict[str, Any], babylon: tuple[FileRecord, ...]
) -> Iterator[PartTask]:
    """Give the tasks one by one, since each lists its documents."""
    patcher = json.dumps(settings, sort_keys=True)
    decides = json.dumps([patcher, [file.sha256 for file in babylon]])
    for plan in plans:
        files = plan.files(config)
        yield PartTask(
            url=str(out),
            split=plan.split,
            name=plan.name,
            files=files,
            layout=config.layout,
            key=part_key(files, config, decides),
            patcher=patcher,
        )


def _collect(results: Iterator[PartDone], total: int, progress: Progress) -> list[PartDone]:
    """Return the parts, reporting each."""
    done = []
    written = 0
    progress("parts", 0, total)
    for part in results:
        done.append(part)
        written += part.record.n_bytes
        progress("parts", written, total)
    return done


def _nothing_to_do(out: Path, config: IngestConfig, kept: list[ScannedFile]) -> IngestSummary:
    """Return the finished store if it is the one asked for."""
    store = Store.open(out)
    asked = [(file.file.name, file.size, file.sha256) for file in kept]
    there = [(source.name, source.size, source.sha256) for source in store.manifest.sources]
    for what, same in (("config", store.manifest.config == to_plain(config)), ("sources", asked == there)):
        if not same:
            raise StoreError(
                f"{out}: a finished store of other {what}; replace it with --overwrite or choose another --out"
            )
    return IngestSummary(store=store, skipped=len(store.manifest.parts))
