"""Speed of shuffled batches from a store.

store -> ByteStream -> 32 windows of 4 KiB at a time, against a gather of as many rows from a memory map
"""

import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from bytropix.datasets.store import PartLayout, Store
from bytropix.datasets.stream import ByteStream
from bytropix.jobs.bench.corpus import some_text
from bytropix.jobs.bench.ingest import write_files
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

WINDOW, BATCH = 4096, 32
TIMES = 4  # the text's size in `megabytes`: more than the processor's caches hold
LEAST: dict[Literal["none", "zstd"], float] = {"none": 0.8, "zstd": 0.5}
FIRST_BATCH_MS = 50


def bench_stream(settings: BenchSettings) -> list[BenchRow]:
    """Measure a warm epoch of each codec, one that is decoded anew, and the time to the first batch of an opened store.

    An epoch of zstd is decoded once, before the first turn, if the stream's cache holds it. What a larger corpus pays
    is a row without a target: decoding alone, on two cores, is slower than half of the memory map.
    """
    text = some_text(settings.data, int(TIMES * settings.megabytes * 1e6))
    write_files(settings.folder / "texts", text)
    (settings.folder / "raw").write_bytes(text)
    rows = []
    for codec, least in LEAST.items():
        path = settings.folder / f"{codec}.bx"
        ingest_bytes([settings.folder / "texts"], path, IngestConfig(layout=PartLayout(codec=codec), val_fraction=0))
        stream = ByteStream(Store.open(path), context=WINDOW - 1, batch=BATCH)
        fits = codec == "none" or len(text) <= stream.cache_bytes
        note = "" if fits else ", more than the cache of decoded blocks holds"
        rows.append(_epoch(stream, f"codec {codec}", (Target("ratio", ">=", least),), note, settings))
        rows.append(_first_batch(path, codec, settings.repeats))
    anew = ByteStream(
        Store.open(settings.folder / "zstd.bx"), context=WINDOW - 1, batch=BATCH, cache_bytes=len(text) // 3
    )
    note = ", a third of it fits the cache: nearly every block is decoded in every epoch"
    rows.append(_epoch(anew, "zstd decoded anew", (), note, settings))
    return rows


def _epoch(stream: ByteStream, what: str, targets: tuple[Target, ...], note: str, settings: BenchSettings) -> BenchRow:
    """Measure whole epochs, one behind the other."""
    count = max(1, stream.windows // BATCH)
    amount = count * BATCH * WINDOW / 1e6
    batches = iter(stream)

    def deliver() -> None:
        for _ in islice(batches, count):
            pass

    return against(
        f"stream: shuffled 4 KiB windows, {what}",
        "MB/s",
        Contender(work=deliver, amount=amount),
        Contender(work=_map_gather(settings.folder / "raw", count), amount=amount),
        settings.repeats,
        called="a batched gather from np.memmap",
        targets=targets,
        note=f"batch {BATCH}, warm, with patch starts; {amount:.0f} MB an epoch{note}",
    )


def _map_gather(path: Path, batches: int) -> Callable[[], None]:
    """Return a pass over the rows of a mapped file in a shuffled order, a batch at a time."""
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    table = mapped[: mapped.size // WINDOW * WINDOW].reshape(-1, WINDOW)
    order = np.random.default_rng(0).permutation(len(table))

    def work() -> None:
        for number in range(batches):
            torch.from_numpy(table[order.take(np.arange(number * BATCH, (number + 1) * BATCH), mode="wrap")])

    return work


def _first_batch(path: Path, codec: str, repeats: int) -> BenchRow:
    """Measure from a closed store to its first batch."""

    def once() -> float:
        began = time.perf_counter()
        batches = iter(ByteStream(Store.open(path), context=WINDOW - 1, batch=BATCH))
        next(batches)
        return 1e3 * (time.perf_counter() - began)

    once()
    return BenchRow(
        name=f"stream: to the first batch, codec {codec}",
        value=statistics.median(once() for _ in range(repeats)),
        unit="ms",
        targets=(Target("value", "<=", FIRST_BATCH_MS),),
        note="opening the store included",
    )
