"""What one run of a loader costs: each function here is the whole work of a fresh process.

first_batch:  closed -> open -> first batch
measure:      closed -> open -> first batch -> the rest of its epoch -> timed epochs
              closed -> open -> first batch -> the rest of its epoch, timed
watch:        closed -> open -> an epoch, every row tallied -> complete or not, memory
"""

import importlib.util
import math
import os
import time
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from bytropix.jobs.bench.loaders.rows import ROWS_FILE, Loader, Plan, Tally, tally_of

MOST_SECONDS = 2.5  # a slow loader is cut off there
MOST_EPOCHS = 100
LOOK_EVERY = 64  # batches between two looks at memory


class Clock:
    """Seconds since it was made: on the wall, and of the processor for this process and the workers it has ended."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), _processor_seconds()

    @property
    def wall(self) -> float:
        """Seconds on the wall."""
        return time.perf_counter() - self._wall

    @property
    def processor(self) -> float:
        """Seconds of the processor, user and system."""
        return _processor_seconds() - self._processor


def first_batch(loader: Loader, folder: Path, plan: Plan) -> dict[str, Any]:
    """Return `first_batch_ms`, from a closed data set to a batch in hand."""
    clock = Clock()
    with closing(loader.open(folder, plan)(1)) as epoch:
        next(epoch)
        return {"first_batch_ms": 1e3 * clock.wall}


def measure(loader: Loader, folder: Path, plan: Plan, *, first_epoch: bool, seconds: float) -> dict[str, Any]:
    """Time epochs: the first one from its first batch on if `first_epoch`, else as many behind it as take `seconds`.

    Returns:
        `first_batch_ms`; `rows`, `batches`, `seconds` and `cpu_seconds` of what was timed; `storage_mb`, read from
        storage meanwhile (None where the system does not tell).
    """
    read, clock = _storage_bytes(), Clock()
    batches = loader.open(folder, plan)
    epoch = batches(1)
    next(epoch)
    first_batch_ms = 1e3 * clock.wall
    found = _timed(epoch)
    if not first_epoch:
        epochs = math.ceil(seconds / max(found["seconds"], 1e-3))
        found = _timed(batches(min(epochs, MOST_EPOCHS)))
    storage_mb = None if read is None else ((_storage_bytes() or 0) - read) / 1e6
    return found | {"first_batch_ms": first_batch_ms, "storage_mb": storage_mb}


def watch(loader: Loader, folder: Path, plan: Plan, base: int) -> dict[str, Any]:
    """Compare what an epoch delivers with the file of rows, and look at memory meanwhile.

    Args:
        loader: What is measured.
        folder: Where its format and the file of rows are.
        plan: How to run it.
        base: Bytes that a process holds which has imported torch alone.

    Returns:
        `complete`, and `memory_mib`, the most that it and its workers held beyond `base`; None without psutil.
    """
    tally, most = Tally(), 0
    with closing(loader.open(folder, plan)(1)) as epoch:
        for number, batch in enumerate(epoch):
            tally.add(batch.numpy())
            if number % LOOK_EVERY == 0:
                most = max(most, held_bytes() or 0)
    complete = tally.total == tally_of(folder / ROWS_FILE)
    return {"complete": complete, "memory_mib": (most - base) / 2**20 if most else None}


def held_bytes() -> int | None:
    """Return the bytes of its own, no mapped files, that this process and its workers hold; None without psutil."""
    if importlib.util.find_spec("psutil") is None:
        return None
    import psutil

    this = psutil.Process()
    info = this.memory_info()
    held: int = info.rss - getattr(info, "shared", 0)
    for child in this.children(recursive=True):
        with suppress(psutil.Error):
            held += child.memory_full_info().uss  # what it has not in common with this process, which it is a copy of
    return held


def _timed(batches: Generator[Any, None, None]) -> dict[str, Any]:
    """Take batches to the end, or for 2.5 seconds; the end of workers is timed too."""
    clock, rows, count = Clock(), 0, 0
    with closing(batches):
        for batch in batches:
            rows += len(batch)
            count += 1
            if clock.wall > MOST_SECONDS:
                break
    return {"rows": rows, "batches": count, "seconds": clock.wall, "cpu_seconds": clock.processor}


def _processor_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _storage_bytes() -> int | None:
    """Return what this process has had the system read from storage so far, its mapped files included."""
    with suppress(OSError):
        for line in Path("/proc/self/io").read_text("ascii").splitlines():
            if line.startswith("read_bytes:"):
                return int(line.split()[1])
    return None
