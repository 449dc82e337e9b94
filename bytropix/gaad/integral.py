"""Sums over boxes in constant time: integral images of whole numbers, exact whatever the order of additions.

map [h, w] -> integral [h + 1, w + 1] -> sum of a box = four look-ups   (Crow, "Summed-area tables", SIGGRAPH 1984)
"""

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def integrate(values: NDArray[np.int32], out: NDArray[np.int64]) -> None:
    """Write the integral image of a map.

    Args:
        values: [h, w].
        out: [h + 1, w + 1]; out[y, x] becomes the sum of all values above row y and left of column x.
    """
    height, width = values.shape
    out[0, :] = 0
    for y in range(height):
        row = np.int64(0)
        out[y + 1, 0] = 0
        for x in range(width):
            row += values[y, x]
            out[y + 1, x + 1] = out[y, x + 1] + row


@numba.njit(nogil=True, cache=True, inline="always")
def box_sum(integral: NDArray[np.int64], x0: int, y0: int, x1: int, y1: int) -> int:
    """Return the sum of the values in columns x0 to x1 and rows y0 to y1, the ends left out."""
    return int(integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0])
