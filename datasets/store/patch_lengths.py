"""Counting patches by their length.

starts bool[n] -> counts i64[longest + 1], in one pass without a list of patches
"""

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.patching.config import LONGEST_PATCH
from bytropix.patching.limits import LONGEST_REST

LONGEST = LONGEST_PATCH + LONGEST_REST


def count_lengths(starts: NDArray[np.bool_], begin: int, end: int) -> NDArray[np.int64]:
    """Return how many patches of `begin` to `end` have 0, 1, 2 ... `LONGEST` bytes.

    Args:
        starts: Where patches start, bool[n].
        begin: Where a document begins.
        end: Where one ends, past `begin`.
    """
    counts = np.zeros(LONGEST + 1, dtype=np.int64)
    _count(starts, begin, end, counts)
    return counts


@numba.njit(cache=True, nogil=True)
def _count(starts: NDArray[np.bool_], begin: int, end: int, counts: NDArray[np.int64]) -> None:
    # Where patches start cannot be predicted, so the loop has no branch: that is twice as fast.
    length = np.int64(1)
    for j in range(begin + 1, end):
        start = np.int64(starts[j])
        counts[length] += start
        length += 1 - start * length
    counts[length] += 1
