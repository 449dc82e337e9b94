"""litdata: chunks of tokens without metadata, which is its fastest layout.

rows -> BinaryWriter, chunks of 48 MiB -> StreamingDataset, TokensLoader -> StreamingDataLoader -> batches
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from bytropix.jobs.bench.loaders.rows import BATCH, ROW_BYTES, SHARD_BYTES, Batches, Loader, Plan, table_of_rows

STORED = "litdata"


def _load() -> None:
    import litdata.streaming  # noqa: F401


def _write(rows: Path, folder: Path) -> None:
    from litdata.streaming import Cache, TokensLoader

    loader = TokensLoader(block_size=ROW_BYTES)
    cache = Cache(str(folder / STORED), chunk_bytes=SHARD_BYTES, item_loader=loader)
    for number, row in enumerate(table_of_rows(rows)):
        cache[number] = torch.from_numpy(row.copy())
    cache.done()
    cache.merge()


def _open(folder: Path, plan: Plan) -> Batches:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import TokensLoader

    item_loader = TokensLoader(block_size=ROW_BYTES)
    source = StreamingDataset(str(folder / STORED), item_loader=item_loader, shuffle=True, drop_last=False)
    loader = StreamingDataLoader(source, batch_size=BATCH, num_workers=plan.workers)

    def run(epochs: int) -> Generator[Any, None, None]:
        for _ in range(epochs):
            yield from loader

    return run


LOADERS = (
    Loader(
        name="litdata",
        about="chunks of 48 MiB by TokensLoader, blocks of 4096, its default shuffle, StreamingDataLoader",
        stored=STORED,
        load=_load,
        package="litdata",
        write=_write,
        open=_open,
    ),
)
