"""The file of rows itself, mapped: what the operating system gives without any format.

rows -> np.memmap -> a row at a time, collated by a DataLoader | a batch in one gather
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from bytropix.jobs.bench.loaders.rows import BATCH, ROWS_FILE, Batches, Loader, Plan, table_of_rows


class MappedRows(Dataset[Tensor]):
    """Rows by number, or by a list of numbers."""

    def __init__(self, file: Path) -> None:
        self._rows = table_of_rows(file)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._rows)

    def __getitem__(self, number: Any) -> Tensor:
        """Return a copy of a row, u8 [4096], or of rows, u8 [n, 4096]."""
        return torch.from_numpy(np.array(self._rows[number]))


class GatheredRows(MappedRows):
    """Rows by a list of numbers, which numpy copies in one go."""

    def __getitem__(self, number: Any) -> Tensor:
        """Return rows, u8 [n, 4096]."""
        return torch.from_numpy(self._rows[number])


def _one_by_one(folder: Path, plan: Plan) -> Batches:
    loader = DataLoader(MappedRows(folder / ROWS_FILE), batch_size=BATCH, shuffle=True, num_workers=plan.workers)

    def run(epochs: int) -> Generator[Any, None, None]:
        for _ in range(epochs):
            yield from loader

    return run


def _batched(folder: Path, plan: Plan) -> Batches:
    """Without workers no DataLoader stands between: nothing is faster in numpy."""
    if plan.workers:
        rows = GatheredRows(folder / ROWS_FILE)
        sampler = BatchSampler(RandomSampler(rows), BATCH, drop_last=False)
        loader = DataLoader(rows, sampler=sampler, batch_size=None, num_workers=plan.workers)

        def through_workers(epochs: int) -> Generator[Any, None, None]:
            for _ in range(epochs):
                yield from loader

        return through_workers

    table, chance = table_of_rows(folder / ROWS_FILE), np.random.default_rng(0)

    def run(epochs: int) -> Generator[Any, None, None]:
        for _ in range(epochs):
            order = chance.permutation(len(table))
            for first in range(0, len(order), BATCH):
                yield torch.from_numpy(table[order[first : first + BATCH]])

    return run


def _nothing() -> None:
    """Import nothing more."""


def _as_it_is(rows: Path, folder: Path) -> None:
    """Leave the file of rows alone."""


LOADERS = (
    Loader(
        name="memmap",
        about="np.memmap, a map-style data set in a DataLoader, a row at a time",
        stored=ROWS_FILE,
        load=_nothing,
        package="numpy",
        write=_as_it_is,
        open=_one_by_one,
    ),
    Loader(
        name="memmap-batched",
        about="np.memmap, one numpy gather a batch, without a DataLoader where there are no workers",
        stored=ROWS_FILE,
        load=_nothing,
        package="numpy",
        write=_as_it_is,
        open=_batched,
    ),
)
