"""Which positions make up which batch: plain arithmetic, the same on every rank.

    start, number of the batch from there -> its first position, its windows -> rows r, r + R, ... of rank r

A position is epoch * windows + place in the epoch.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError

LastBatch = Literal["fill", "drop", "short", "pad"]
LAST: tuple[LastBatch, ...] = ("fill", "drop", "short", "pad")


def is_whole(value: object) -> bool:
    """Tell whether a setting is a whole number, one of numpy's included."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_whole(**values: object) -> None:
    """Refuse settings, by name, that are no whole numbers.

    Raises:
        ConfigError: One is not.
    """
    for name, value in values.items():
        if not is_whole(value):
            raise ConfigError(f"{name} must be a whole number, got {value!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """The batches of a stream, and one rank's share in each.

    Attributes:
        windows: Windows in an epoch; 0 of a stream without epochs.
        batch: Windows of a global batch.
        last: What becomes of an epoch's last batch where it is short: "fill" goes on with the next epoch's first
            windows, "drop" leaves it out, "short" delivers it short, "pad" fills it up with empty rows.
        epochs: Epochs to deliver, counted from the first position of all; `None` for no end.
        rank: Which rank this is.
        ranks: How many there are.
        row: What a window is, for messages.

    Raises:
        ConfigError: A value is out of its range, or the ranks do not divide the batch.
    """

    windows: int
    batch: int
    last: LastBatch = "fill"
    epochs: int | None = None
    rank: int = 0
    ranks: int = 1
    row: str = "window"

    def __post_init__(self) -> None:
        check_whole(batch=self.batch, rank=self.rank, ranks=self.ranks)
        check_whole(epochs=1 if self.epochs is None else self.epochs)
        if self.batch < 1:
            raise ConfigError(f"batch must be at least 1 {self.row}, got {self.batch}")
        if self.last not in LAST:
            raise ConfigError(f"last must be one of {', '.join(LAST)}, got {self.last!r}")
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"epochs must be at least 1, or None for no end, got {self.epochs}")
        if not self.windows and (self.last != "fill" or self.epochs is not None):
            raise ConfigError("a mixture has no epochs of its own: leave out `epochs`, and `last` or make it 'fill'")
        if self.ranks < 1 or not 0 <= self.rank < self.ranks:
            raise ConfigError(f"rank must lie in 0..ranks - 1, got rank {self.rank} of {self.ranks} ranks")
        if self.batch % self.ranks:
            fits = [count for count in range(1, self.batch + 1) if self.batch % count == 0]
            raise ConfigError(
                f"{self.ranks} ranks do not divide a batch of {self.batch} {self.row}s: take {_some(fits)} ranks, or a "
                f"batch of {-(-self.batch // self.ranks) * self.ranks}"
            )
        if self.last == "drop" and 0 < self.windows < self.batch:
            raise ConfigError(
                f"an epoch has {self.windows} {self.row}s, less than a batch of {self.batch}, and last='drop' would "
                "leave all of them out; take a smaller batch or another `last`"
            )

    @property
    def rows(self) -> int:
        """Rows of this rank in a whole batch."""
        return self.batch // self.ranks

    def at(self, start: int, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first position of batches and their windows, both i64 [k].

        Args:
            start: Position to count from; the windows from there to the epoch's end may be less than an epoch.
            numbers: i64 [k], numbers of the batches from `start` on, from 0.

        Returns:
            Batches behind the end have no windows.
        """
        if self.last == "fill" or not self.windows:
            first = start + numbers * self.batch
            if self.epochs is None:
                return first, np.full_like(first, self.batch)
            return first, np.clip(self.epochs * self.windows - first, 0, self.batch)
        epoch, place = divmod(start, self.windows)
        here, each = self._count(self.windows - place), self._count(self.windows)
        later = numbers - here
        opens = np.where(numbers < here, epoch, epoch + 1 + later // each) * self.windows
        first = np.where(numbers < here, start + numbers * self.batch, opens + later % each * self.batch)
        sizes = np.minimum(self.batch, opens + self.windows - first)
        if self.epochs is not None:
            sizes = np.where(first < self.epochs * self.windows, sizes, 0)
        return first, sizes

    def rows_of(
        self, firsts: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return this rank's rows in batches: their positions, i64 [n], and how many each batch has, i64 [k]."""
        counts = (sizes - self.rank + self.ranks - 1) // self.ranks
        grid = firsts[:, None] + self.rank + self.ranks * np.arange(self.rows)
        if sizes.min() == self.batch:
            return grid.ravel(), counts
        return grid[np.arange(self.rows) < counts[:, None]], counts

    def _count(self, windows: int) -> int:
        """Return how many batches some windows at the end of an epoch make."""
        return windows // self.batch if self.last == "drop" else -(-windows // self.batch)


def _some(numbers: list[int]) -> str:
    """Return numbers for a message, the middle left out where they are many."""
    told = [str(number) for number in numbers]
    return ", ".join(told if len(told) <= 8 else [*told[:6], "...", told[-1]])
