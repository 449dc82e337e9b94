"""Stores too large for any disk: how fast they open, how soon they give a batch, and what their order takes.

    one real part -> a list that holds it again and again -> a manifest that names this list again and again

Every row of such a store can be read, and every part costs what a part of its own would: its list is read and hashed,
its files are looked for and opened. Only the disk's part is left out, as what is read once is in memory.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bytropix.datasets.order import WindowOrder
from bytropix.datasets.store import LISTED_VERSION, PartArrays, PartLayout, PartRecord, SourceSpan, Store, write_part
from bytropix.datasets.store.manifest import MANIFEST, manifest_text
from bytropix.datasets.store.rows import Listing, Rows, listed
from bytropix.datasets.stream import ByteStream
from bytropix.datasets.windows import RowCut
from bytropix.jobs.bench.corpus import some_text
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

STORE_BYTES = 100 * 10**12
PART_BYTES = 64 << 20  # as ingestion makes them
LARGE_PART_BYTES = 1 << 30
ROWS = 10**9
WINDOW, BATCH = 4096, 32
SPLIT = "train"
OPEN_SECONDS, ORDER_MB, RESUME_RATIO = 2.0, 50.0, 2.0


def bench_scale(settings: BenchSettings) -> list[BenchRow]:
    """Measure the opening of 100 TB in parts of two sizes, its first batch, a resume past 10^9 rows, and the order."""
    text = some_text(settings.data, 1 << 20)
    usual, large = settings.folder / "usual.bx", settings.folder / "large.bx"
    forge_store(usual, text, PART_BYTES, STORE_BYTES)
    forge_manifest(large, text, LARGE_PART_BYTES, STORE_BYTES)
    return [
        opening(usual, "64 MiB", settings.repeats),
        opening(large, "1 GiB", settings.repeats),
        resuming(usual, settings.repeats),
        order_memory(),
    ]


def forge_store(place: Path, text: bytes, part_bytes: int, n_bytes: int) -> None:
    """Write a store of one part that is named until it has `n_bytes` bytes.

    Args:
        place: Its folder.
        text: What the part is filled with.
        part_bytes: Of the part.
        n_bytes: Of all.
    """
    store = _small(place, text)
    arrays = PartArrays(
        text=np.resize(np.frombuffer(text, np.uint8), part_bytes),
        entropy=np.zeros(part_bytes, np.uint8),
        starts=np.arange(part_bytes) % 4 == 0,
        doc_ends=np.array([part_bytes]),
        doc_meta=b'{"offset": 0, "source": "text"}\n',
    )
    patches = part_bytes // 4
    span = SourceSpan(source="text", n_bytes=part_bytes, documents=1, patches=patches, at_cap=0, single=0)
    layout = PartLayout(codec="none")
    lengths = (0, 0, 0, 0, patches)
    name = layout.part_name(1)
    record = write_part(store.storage, SPLIT, name, arrays, layout=layout, spans=(span,), patch_lengths=lengths)
    _name_again_and_again(store, record, n_bytes)


def forge_manifest(place: Path, text: bytes, part_bytes: int, n_bytes: int) -> None:
    """Write a store as `forge_store` does, whose parts are not there: enough to open it."""
    store = _small(place, text)
    _name_again_and_again(store, replace(next(store.parts(SPLIT).records()), n_bytes=part_bytes), n_bytes)


def _small(place: Path, text: bytes) -> Store:
    """Write a small store, for its table."""
    source = place.with_suffix(".txt")
    source.write_bytes(text)
    return ingest_bytes([source], place, IngestConfig(val_fraction=0)).store


def _name_again_and_again(store: Store, record: PartRecord, n_bytes: int) -> None:
    """Put a manifest in place that names a part until it has `n_bytes` bytes."""
    usual = Listing(inline=0)
    one = listed(store.storage, PartRecord, (record,) * 1000, usual)
    assert isinstance(one, Rows)
    count = -(-n_bytes // (record.n_bytes * one.lists[0].head.rows))
    rows = Rows(store.storage, PartRecord, one.lists[:1] * count)
    manifest = replace(store.manifest, format_version=LISTED_VERSION, parts=rows)
    store.storage.write(MANIFEST, manifest_text(manifest))


def opening(place: Path, what: str, repeats: int) -> BenchRow:
    """Measure from a closed store to a stream that knows what lies at any position."""

    def once() -> float:
        began = time.perf_counter()
        stream = ByteStream(Store.open(place), context=WINDOW - 1, batch=BATCH)
        stream.load_state_dict(stream.state_dict() | {"position": stream.windows // 2})
        return time.perf_counter() - began

    once()
    parts = len(Store.open(place).parts(SPLIT))
    return BenchRow(
        name=f"scale: to open {STORE_BYTES // 10**12} TB, parts of {what}",
        value=statistics.median(once() for _ in range(repeats)),
        unit="s",
        targets=(Target("value", "<=", OPEN_SECONDS),),
        note=f"{parts:,} parts, a manifest of {(place / MANIFEST).stat().st_size / 1e6:.1f} MB",
    )


def resuming(place: Path, repeats: int) -> BenchRow:
    """Compare the way to a batch past 10^9 rows with that to the first."""
    store = Store.open(place)

    def to_batch(position: int) -> Callable[[], float]:
        def once() -> float:
            began = time.perf_counter()
            stream = ByteStream(store, context=WINDOW - 1, batch=BATCH, seed=next(seeds))
            stream.load_state_dict(stream.state_dict() | {"position": min(position, stream.windows - 1)})
            next(iter(stream))
            return 1e3 * (time.perf_counter() - began)

        return once

    seeds = iter(range(2 * repeats + 2))  # others each time, so that no part is open already
    cold, resumed = to_batch(0), to_batch(ROWS + 17)
    cold()
    resumed()
    turns = [(resumed(), cold()) for _ in range(repeats)]
    return BenchRow(
        name="scale: to a batch past 10^9 rows",
        value=statistics.median(one for one, _ in turns),
        unit="ms",
        baseline=statistics.median(other for _, other in turns),
        ratio=statistics.median(one / other for one, other in turns),
        against="a cold start",
        targets=(Target("ratio", "<=", RESUME_RATIO),),
        note=f"of an open store of {STORE_BYTES // 10**12} TB; parts are opened, blocks checked",
    )


def order_memory() -> BenchRow:
    """Measure what the order of 10^9 rows holds, and the most it takes to answer."""
    parts = -(-ROWS * WINDOW // PART_BYTES)
    tracemalloc.start()
    try:
        order = WindowOrder(RowCut(np.full(parts, PART_BYTES), WINDOW), seed=0)
        for position in (0, ROWS // 2, 3 * ROWS - BATCH):
            order.runs(np.arange(position, position + BATCH))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return BenchRow(
        name="scale: memory of the order of 10^9 rows",
        value=peak / 1e6,
        unit="MB",
        targets=(Target("value", "<=", ORDER_MB),),
        note=f"{parts:,} parts of 64 MiB, sizes included; {order.windows:,} rows",
    )
