"""MosaicML streaming: MDS shards, read at random.

rows -> MDSWriter, shards of 48 MiB, no hashes -> StreamingDataset -> StreamingDataLoader -> batches
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bytropix.jobs.bench.loaders.rows import BATCH, ROW_BYTES, SHARD_BYTES, Batches, Loader, Plan, table_of_rows

STORED = "mds"


def _load() -> None:
    import streaming  # noqa: F401


def _write(rows: Path, folder: Path) -> None:
    import streaming

    with streaming.MDSWriter(out=str(folder / STORED), columns={"bytes": "bytes"}, size_limit=SHARD_BYTES) as writer:
        for row in table_of_rows(rows):
            writer.write({"bytes": row.tobytes()})


def _collate(samples: list[dict[str, Any]]) -> Tensor:
    joined = bytearray().join(sample["bytes"] for sample in samples)
    return torch.frombuffer(joined, dtype=torch.uint8).view(-1, ROW_BYTES)


def _open(folder: Path, plan: Plan) -> Batches:
    import streaming
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()  # what a process that was measured before may have left
    source = streaming.StreamingDataset(local=str(folder / STORED), shuffle=True, batch_size=BATCH)
    loader = streaming.StreamingDataLoader(source, batch_size=BATCH, num_workers=plan.workers, collate_fn=_collate)

    def run(epochs: int) -> Generator[Any, None, None]:
        for _ in range(epochs):
            yield from loader

    return run


LOADERS = (
    Loader(
        name="MDS",
        about="mosaicml-streaming: MDS shards of 48 MiB, no hashes, its default shuffle, StreamingDataLoader",
        stored=STORED,
        load=_load,
        package="mosaicml-streaming",
        write=_write,
        open=_open,
    ),
)
