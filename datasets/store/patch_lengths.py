"""Counting patches by their length.

starts bool[n] -> counts i64[longest + 1], in one pass without a list of patches
"""

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.patching.config import LONGEST_PATCH
from bytropix.patching.limits import LONGEST_REST


def count_lengths(starts: NDArray[np.bool_], begin: int, end: int) -> NDArray[np.int64]:
    """Return how many patches of `begin` to `end` have 0, 1, 2 ... bytes, up to the longest there is.

    Args:
        starts: Where patches start, bool[n].
        begin: Where a document begins.
        end: Where one ends, past `begin`.
    """
    counts = np.zeros(LONGEST_PATCH + LONGEST_REST + 1, dtype=np.int64)
    _count(starts, begin, end, counts)
    return counts[: int(np.flatnonzero(counts)[-1]) + 1]


@numba.njit(cache=True, nogil=True)
def _count(starts: NDArray[np.bool_], begin: int, end: int, counts: NDArray[np.int64]) -> None:
    open_since = begin
    for j in range(begin + 1, end):
        if starts[j]:
            counts[j - open_since] += 1
            open_since = j
    counts[end - open_since] += 1
