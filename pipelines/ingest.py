"""Raw sources to a finished store.

    sources -> scan (hash, cut) -> plan -> fit the patcher on a sample -> parts, in N processes -> manifest, last

A run that dies leaves a folder without manifest, which readers refuse and `resume` completes to the same bytes.
"""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bytropix.config import to_plain
from bytropix.datasets.store import (
    FORMAT_VERSION,
    Manifest,
    PartRecord,
    SourceRecord,
    Store,
    publish,
    write_patcher,
)
from bytropix.datasets.store.commit import BESIDE, room_for, write_file
from bytropix.errors import StoreError
from bytropix.patching import fit_patcher
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import ScannedFile, read_document, scan
from bytropix.pipelines.part_task import RECEIPTS, PartTask, do_part, finished
from bytropix.pipelines.plan import PartPlan, Piece, plan_parts
from bytropix.pipelines.sources import find_files

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[str, int, int], None]
"""Called with the stage, the bytes done and the bytes in all."""

OURS = {"manifest.json", "babylon", "parts", "quarantine.jsonl", RECEIPTS}


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestSummary:
    """What an ingestion did."""

    store: Store
    """The finished store."""
    skipped: int
    """Parts that an earlier run had finished."""
    quarantined: int
    """Files that were refused."""


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
        overwrite: Remove a store that is there first.
        progress: See `Progress`.

    Raises:
        SourceError: A source is missing, unreadable, empty, or changes under way.
        StoreError: `out` is in the way, the disk is full, or a worker died.
    """
    _clear(out, resume=resume, overwrite=overwrite)
    files = find_files(sources)
    with _mapper(workers) as run:
        scanned = list(run(scan, [(file, config.document_bytes) for file in files]))
        kept = [file for file in scanned if not file.refused]
        plans = plan_parts(kept, config)
        if resume and (out / "manifest.json").is_file():
            return _nothing_to_do(out, config, kept)
        with room_for(out):
            (out / RECEIPTS).mkdir(parents=True, exist_ok=True)
        _write_quarantine(out, [file for file in scanned if file.refused])
        settings = _fit(out, plans, config)
        tasks = [PartTask(out, plan, config.codec, plan.key(config, settings), settings) for plan in plans]
        done = {task: record for task in tasks if (record := finished(task))}
        total = sum(plan.n_bytes for plan in plans)
        read = sum(record.n_bytes for record in done.values())
        progress("parts", read, total)
        rest = [task for task in tasks if task not in done]
        records: list[PartRecord] = list(done.values())
        for record in run(do_part, rest):
            records.append(record)
            read += record.n_bytes
            progress("parts", read, total)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind="bytes",
        config=to_plain(config),
        patcher=json.loads(settings),
        sources=tuple(SourceRecord(name=file.name, size=file.size, sha256=file.sha256) for file in kept),
        parts=tuple(sorted(records, key=lambda record: (record.split, record.name))),
        quarantined=len(scanned) - len(kept),
    )
    shutil.rmtree(out / RECEIPTS)
    for left in out.rglob(f"{BESIDE}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    publish(out, manifest)
    return IngestSummary(store=Store.open(out), skipped=len(done), quarantined=manifest.quarantined)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[[Callable[[T], R], Iterable[T]], Iterator[R]]]:
    """Give a `map` that keeps order, in this process or over a pool of spawned ones."""
    if workers <= 1:
        yield lambda work, tasks: map(work, tasks)
        return
    pool: Executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))

    def spread(work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        rows = list(tasks)
        return pool.map(work, rows, chunksize=max(1, len(rows) // (workers * 16)) if work is scan else 1)

    try:
        yield spread
    except BrokenProcessPool as error:
        raise StoreError(
            "a worker process died (out of memory?); run again with --resume and fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _clear(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make way for the store, or refuse to."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not names or any(name not in OURS and not name.startswith(BESIDE) for name in names):
        raise StoreError(f"{out}: exists and is not a store; choose another --out")
    if overwrite:
        shutil.rmtree(out)
    elif not resume:
        raise StoreError(
            f"{out}: exists; complete it with --resume, replace it with --overwrite, or choose another --out"
        )


def _nothing_to_do(out: Path, config: IngestConfig, kept: list[ScannedFile]) -> IngestSummary:
    """Return the finished store if it is the one asked for."""
    store = Store.open(out)
    asked = [(file.name, file.size, file.sha256) for file in kept]
    there = [(source.name, source.size, source.sha256) for source in store.manifest.sources]
    for what, same in (("config", store.manifest.config == to_plain(config)), ("sources", asked == there)):
        if not same:
            raise StoreError(
                f"{out}: a finished store of other {what}; replace it with --overwrite or choose another --out"
            )
    return IngestSummary(store=store, skipped=len(store.manifest.parts), quarantined=store.manifest.quarantined)


def _fit(out: Path, plans: list[PartPlan], config: IngestConfig) -> str:
    """Fit the patcher on train documents in order of their hash, keep it in the store, return its settings."""
    pieces = sorted(
        (piece for plan in plans if plan.split == "train" for piece in plan.pieces),
        key=lambda p: p.document.digest,
    )
    patcher = fit_patcher(_documents(pieces), config.patch)
    return json.dumps(write_patcher(out, patcher), sort_keys=True)


def _documents(pieces: Iterable[Piece]) -> Iterator[NDArray[np.uint8]]:
    for piece in pieces:
        yield read_document(piece.path, piece.document)


def _write_quarantine(out: Path, refused: list[ScannedFile]) -> None:
    """Write one row for each file that was refused."""
    rows: list[dict[str, Any]] = [
        {"bytes_read": file.size, "path": file.name, "reason": file.refused} for file in refused
    ]
    write_file(out / "quarantine.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
