"""Our own stream, from an uncompressed store and from a compressed one.

rows -> files of 4 MiB -> ingest -> NAME.bx -> ByteStream -> batches, with patch starts
"""

from collections.abc import Generator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from numba.core.registry import cpu_target
from torch.utils.data import DataLoader

from bytropix.datasets.gather import CACHE_BYTES
from bytropix.datasets.store import Store
from bytropix.datasets.stream import ByteStream
from bytropix.jobs.bench.loaders.rows import BATCH, ROW_BYTES, Batches, Loader, Plan

FILE_BYTES = 4 << 20  # whole rows, so that windows of a row's length are the rows

Codec = Literal["none", "zstd"]
Checks = Literal["raise", "off"]


def load_numba() -> None:
    """Import what numba puts off until its first call: a second's work, of scipy mostly, and none of the stream's."""
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def write_store(rows: Path, out: Path, codec: Codec) -> None:
    """Ingest the file of rows, nothing held out; imported here, since what a reader holds is measured."""
    from bytropix.datasets.store import PartLayout
    from bytropix.pipelines.config import IngestConfig
    from bytropix.pipelines.ingest import ingest_bytes

    sources = out.with_suffix(".sources")
    sources.mkdir()
    text = rows.read_bytes()
    for number, begin in enumerate(range(0, len(text), FILE_BYTES)):
        (sources / f"{number:05}.txt").write_bytes(text[begin : begin + FILE_BYTES])
    ingest_bytes([sources], out, IngestConfig(layout=PartLayout(codec=codec), val_fraction=0))


def open_stream(store: Path, plan: Plan, checks: Checks) -> ByteStream:
    """Return a stream over all rows of a store, resumed where the plan says."""
    stream = ByteStream(
        Store.open(store),
        context=ROW_BYTES - 1,
        batch=BATCH,
        checks=checks,
        prefetch=plan.prefetch,
        cache_bytes=plan.cache_bytes or CACHE_BYTES,
    )
    if plan.position:
        epoch, position = divmod(plan.position, stream.windows)
        stream.load_state_dict(stream.state_dict() | {"epoch": epoch, "position": position})
    return stream


def ours(name: str, about: str, codec: Codec, checks: Checks) -> Loader:
    """Return the loader of a codec."""
    stored = f"{codec}.bx"

    def open_batches(folder: Path, plan: Plan) -> Batches:
        stream = open_stream(folder / stored, plan, checks)
        batches = -(-stream.windows // BATCH)
        source: Any = DataLoader(stream, batch_size=None, num_workers=plan.workers) if plan.workers else stream

        def run(epochs: int) -> Generator[Any, None, None]:
            return (batch.bytes for batch in islice(iter(source), epochs * batches))

        return run

    return Loader(
        name=name,
        about=about,
        stored=stored,
        load=load_numba,
        package="bytropix",
        write=lambda rows, folder: write_store(rows, folder / stored, codec),
        open=open_batches,
    )


LOADERS = (
    ours("bytropix", "uncompressed, checks off", "none", "off"),
    ours("bytropix+crc", "uncompressed, every block checked on its first touch, in a fresh process", "none", "raise"),
    ours("bytropix+zstd", "zstd, checked as it is decoded, decoded blocks kept in a cache of 256 MiB", "zstd", "raise"),
)
