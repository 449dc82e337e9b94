"""What every loader is given and gives: rows of 4 KiB, 32 at a time, and how one tells that none is missing.

text -> ROWS_FILE, whole rows -> a loader's own format -> batches u8 [<= 32, 4096] -> Tally, equal to that of the file
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROW_BYTES, BATCH = 4096, 32
ROWS_FILE = "rows"
SHARD_BYTES = 48 << 20

Batches = Callable[[int], Generator[Any, None, None]]
"""Called with a number of epochs, gives their batches, u8 tensors [rows, 4096]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a loader is to be run.

    Attributes:
        workers: Worker processes of the torch `DataLoader` around it; 0: none.
        prefetch: Whether ours reads ahead in threads.
        cache_bytes: Decoded text that ours keeps of a compressed store; 0: its default.
        position: Windows that ours has delivered already, in all epochs.
    """

    workers: int = 0
    prefetch: bool = True
    cache_bytes: int = 0
    position: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Loader:
    """One way from a folder to batches.

    Attributes:
        name: What the table calls it.
        about: How it is run, for people.
        stored: The folder or file of its format; loaders may share one.
        load: Imports what it needs, before any clock starts; raises ModuleNotFoundError if not installed.
        package: What to install then.
        write: Makes `stored` in a folder from the file of rows; both are given.
        open: Opens `stored`, in the folder that is given, and returns what iterates over it.
    """

    name: str
    about: str
    stored: str
    load: Callable[[], None]
    package: str
    write: Callable[[Path, Path], None]
    open: Callable[[Path, Plan], Batches]


def table_of_rows(file: Path) -> NDArray[np.uint8]:
    """Return the file of rows, mapped, as u8 [rows, 4096]; a plain array, which is indexed faster than a memmap."""
    return np.asarray(np.memmap(file, dtype=np.uint8, mode="r")).reshape(-1, ROW_BYTES)


def write_rows(file: Path, text: bytes) -> int:
    """Write as many whole batches of rows as the text has, at least one, and return how many rows that are."""
    rows = max(1, len(text) // (ROW_BYTES * BATCH)) * BATCH
    file.write_bytes(text[: rows * ROW_BYTES].ljust(rows * ROW_BYTES, b"\n"))
    return rows


class Tally:
    """Which rows were seen, how often, in any order: equal tallies mean equal multisets, but for 1 in 2**64.

    A row's hash is a product with fixed odd words, stirred so that sums of two rows do not cancel out.
    """

    def __init__(self) -> None:
        chance = np.random.default_rng(7)
        self._words = chance.integers(1, 1 << 63, ROW_BYTES // 8, dtype=np.uint64) | np.uint64(1)
        self._sum = 0
        self.rows = 0

    def add(self, rows: NDArray[np.uint8]) -> None:
        """Count rows, u8 [n, 4096]."""
        hashes = (np.ascontiguousarray(rows).view(np.uint64) * self._words).sum(axis=1, dtype=np.uint64)
        hashes ^= hashes >> np.uint64(29)
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(32)
        self._sum = (self._sum + int(hashes.sum(dtype=np.uint64))) % (1 << 64)
        self.rows += len(rows)

    @property
    def total(self) -> tuple[int, int]:
        """Rows and the sum of their hashes."""
        return self.rows, self._sum


def tally_of(file: Path) -> tuple[int, int]:
    """Return the tally of a whole file of rows."""
    tally, rows = Tally(), table_of_rows(file)
    for first in range(0, len(rows), 1024):
        tally.add(rows[first : first + 1024])
    return tally.total
