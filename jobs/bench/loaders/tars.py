"""WebDataset: tar shards, read from front to back, shuffled in a buffer.

rows -> TarWriter, shards of 48 MiB -> WebDataset -> DataLoader -> batches
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bytropix.jobs.bench.loaders.rows import BATCH, ROW_BYTES, SHARD_BYTES, Batches, Loader, Plan, table_of_rows

STORED = "webdataset"
BUFFER = 2000  # rows that its shuffle picks from


def _load() -> None:
    import webdataset  # noqa: F401


def _write(rows: Path, folder: Path) -> None:
    """Write whole seconds as times: fractions cost a header of 1 KiB more a row, to write and to read."""
    import webdataset

    (folder / STORED).mkdir()
    pattern = str(folder / STORED / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxsize=SHARD_BYTES, maxcount=1 << 40, verbose=0, mtime=0) as writer:
        for number, row in enumerate(table_of_rows(rows)):
            writer.write({"__key__": f"{number:08}", "bin": row.tobytes()})


def _row(sample: dict[str, Any]) -> Tensor:
    return torch.frombuffer(bytearray(sample["bin"]), dtype=torch.uint8).view(ROW_BYTES)


def _open(folder: Path, plan: Plan) -> Batches:
    import webdataset

    shards = sorted(str(path) for path in (folder / STORED).glob("*.tar"))
    source = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0, empty_check=False)
    loader: DataLoader[Tensor] = DataLoader(source.shuffle(BUFFER).map(_row), BATCH, num_workers=plan.workers)

    def run(epochs: int) -> Generator[Any, None, None]:
        for _ in range(epochs):
            yield from loader

    return run


LOADERS = (
    Loader(
        name="webdataset",
        about=f"tar shards of 48 MiB, shards and a buffer of {BUFFER} rows shuffled, DataLoader",
        stored=STORED,
        load=_load,
        package="webdataset",
        write=_write,
        open=_open,
    ),
)
