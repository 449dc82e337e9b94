"""The endless shuffled order of one split: which bytes are at which position.

position -> LaneOrder -> window number -> Cut -> runs
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.lanes import LaneOrder
from bytropix.datasets.windows import Cut, Runs

_NEAR_BYTES = 1 << 17
ORDER_VERSION = 2  # of what a position means; a state of another one cannot be continued


class Order(Protocol):
    """What a stream reads: rows by position, without end."""

    def runs(self, positions: NDArray[np.int64], /) -> Runs:
        """Return the rows at positions, i64 [k]."""
        ...

    def coming(self, positions: NDArray[np.int64], /) -> Runs:
        """Return what whoever reads these positions will read later on, if he reads in order."""
        ...

    def at_hand(self, position: int, *, residue: int, ranks: int) -> Runs:
        """Return what the positions p % ranks = residue from `position` on read soon."""
        ...


class WindowOrder:
    """The order of a split's windows; see `Order`. A position is epoch * windows + place in the epoch.

    Args:
        cut: The windows.
        seed: Any integer; names the order.
    """

    def __init__(self, cut: Cut, *, seed: int) -> None:
        self.windows = cut.windows
        self._cut = cut
        self._lanes = LaneOrder(cut.windows, cut.width, seed)

    def runs(self, positions: NDArray[np.int64]) -> Runs:
        """Return the rows at positions, i64 [k]."""
        return self._cut.runs(self._lanes(positions))

    def coming(self, positions: NDArray[np.int64]) -> Runs:
        """Return the rows of the blocks that these positions announce."""
        return self._blocks(self._lanes.coming(positions))

    def at_hand(self, position: int, *, residue: int, ranks: int) -> Runs:
        """Return the rows of the blocks of the round of a position."""
        return self._blocks(self._lanes.at_hand(position, residue=residue, ranks=ranks))

    def _blocks(self, firsts: NDArray[np.int64]) -> Runs:
        """Return rows of blocks, near enough to each other to touch all bytes that are kept together."""
        last = self._lanes.block_windows - 1
        some = np.append(np.arange(0, last, max(1, _NEAR_BYTES // self._lanes.width)), last)
        return self._cut.runs((firsts[:, None] + some).ravel())
