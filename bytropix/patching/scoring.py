"""Entropy of every byte from the bytes before it.

    documents (u8, one after the other) + table -> entropy u8[n]

The context restarts at each document: byte 0 is scored by order 0, byte 1 by order 1, byte 2 by order 2.
The score is kept apart from the boundaries, so that a stored score can be cut again under another setting.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.patching.table import BACK_OFF, EntropyTable, context_slot


def score(data: NDArray[np.uint8], ends: NDArray[np.int64], table: EntropyTable) -> NDArray[np.uint8]:
    """Return the entropy before each byte of the documents, u8[n] in 1/32 bit.

    Args:
        data: Bytes of all documents, one after the other.
        ends: End of each document in `data`, ascending, the last one `data.size`.
        table: What to look up.

    Returns:
        `entropy[j]` depends on the bytes of j's document before j only.
    """
    entropy = np.empty(data.size, dtype=np.uint8)
    _score(data, ends, table.order0, table.order1, table.order2, table.order3, entropy)
    return entropy


@numba.njit(cache=True, nogil=True)
def _score(
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    order0: NDArray[np.uint8],
    order1: NDArray[np.uint8],
    order2: NDArray[np.uint8],
    order3: NDArray[np.uint8],
    entropy: NDArray[np.uint8],
) -> None:
    begin = 0
    for number in range(ends.size):
        end = ends[number]
        if begin < end:
            entropy[begin] = order0[0]
        if begin + 1 < end:
            entropy[begin + 1] = order1[data[begin]]
        if begin + 2 < end:
            entropy[begin + 2] = order2[(np.int64(data[begin]) << 8) | data[begin + 1]]
        # Both tables are read for every byte: a branch that is often guessed wrong would cost more than a look-up.
        for j in range(begin + 3, end):
            shorter = order2[(np.uint64(data[j - 2]) << np.uint64(8)) | np.uint64(data[j - 1])]
            value = order3[context_slot(data[j - 3], data[j - 2], data[j - 1])]
            entropy[j] = shorter if value == BACK_OFF else value
        begin = end
