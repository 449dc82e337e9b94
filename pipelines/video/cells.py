"""Frames as coarse grids of means, and how far two grids differ.

    frames u8 [k, h, w, 3] -> cell_means, a 32 x 32 grid -> pool, an 8 x 8 grid -> compare -> moved, changed

Grids lie flat: f32 [cells * 3], row by row, red, green and blue of each cell in levels of 0 to 255.
"""

import numba
import numpy as np
from numpy.typing import NDArray

FINE, COARSE = 32, 8  # cells a side, or as many as the frame has pixels
MOST_ROWS = 128  # of a higher frame only about so many rows are looked at
FLAT = 16.0  # variance in squared levels below which a grid has no structure to correlate


@numba.njit(cache=True, nogil=True)
def cell_means(frames: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float32]:
    """Return the means of a grid of cells over each frame, f32 [k, rows * columns * 3].

    Args:
        frames: u8 [k, h, w, 3], contiguous; of a high frame some rows are passed over.
        rows: Rows of cells, at most h.
        columns: Columns of cells, at most w.
    """
    count, height, width = frames.shape[:3]
    step = max(1, height // max(MOST_ROWS, rows))
    lines = frames.reshape(count, height, width * 3)
    means = np.empty((count, rows * columns * 3), np.float32)
    sums = np.empty(width * 3, np.uint16)  # of at most 8 lines
    for k in range(count):
        for row in range(rows):
            top, bottom = row * height // rows, (row + 1) * height // rows
            sums[:] = 0
            for y in range(top, bottom, step):
                line = lines[k, y]
                for x in range(width * 3):
                    sums[x] += line[x]
            height_used = (bottom - top + step - 1) // step
            for column in range(columns):
                left, right = column * width // columns, (column + 1) * width // columns
                red, green, blue = 0, 0, 0
                for x in range(3 * left, 3 * right, 3):
                    red += sums[x]
                    green += sums[x + 1]
                    blue += sums[x + 2]
                place, size = (row * columns + column) * 3, np.float32(height_used * (right - left))
                means[k, place], means[k, place + 1], means[k, place + 2] = red / size, green / size, blue / size
    return means


@numba.njit(cache=True, nogil=True)
def pool(fine: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Return the coarse grids of fine ones, f32 [k, cells * 3]."""
    coarse_rows, coarse_columns = min(COARSE, rows), min(COARSE, columns)
    coarse = np.empty((len(fine), coarse_rows * coarse_columns * 3), np.float32)
    for k in range(len(fine)):
        for row in range(coarse_rows):
            top, bottom = row * rows // coarse_rows, (row + 1) * rows // coarse_rows
            for column in range(coarse_columns):
                left, right = column * columns // coarse_columns, (column + 1) * columns // coarse_columns
                red, green, blue = np.float32(0), np.float32(0), np.float32(0)
                for y in range(top, bottom):
                    for j in range((y * columns + left) * 3, (y * columns + right) * 3, 3):
                        red += fine[k, j]
                        green += fine[k, j + 1]
                        blue += fine[k, j + 2]
                place, size = (row * coarse_columns + column) * 3, np.float32((bottom - top) * (right - left))
                coarse[k, place], coarse[k, place + 1], coarse[k, place + 2] = red / size, green / size, blue / size
    return coarse


@numba.njit(cache=True, nogil=True)
def compare(one: NDArray[np.float32], two: NDArray[np.float32]) -> tuple[float, float]:
    """Return how far the second of two grids [cells * 3] has moved and changed from the first, in levels."""
    cells = one.size // 3
    moved = 0.0
    mean = np.zeros((2, 3))
    for j in range(one.size):
        moved += abs(one[j] - two[j])
        mean[0, j % 3] += one[j]
        mean[1, j % 3] += two[j]
    mean /= cells
    both, first, second = 0.0, 0.0, 0.0
    for j in range(one.size):
        a, b = one[j] - mean[0, j % 3], two[j] - mean[1, j % 3]
        both += a * b
        first += a * a
        second += b * b
    moved /= one.size
    likeness = both / (np.sqrt(first * second) + FLAT * one.size)
    return moved, moved * (1.0 - likeness)


@numba.njit(cache=True, nogil=True)
def differences(cells: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how far each grid but the first has moved and changed from the one before it."""
    count = max(0, len(cells) - 1)
    moved, changed = np.empty(count, np.float32), np.empty(count, np.float32)
    for k in range(count):
        moved[k], changed[k] = compare(cells[k], cells[k + 1])
    return moved, changed


@numba.njit(cache=True, nogil=True)
def least_change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return the least change between any of the grids before and any of those after."""
    least = np.inf
    for j in range(len(before)):
        for k in range(len(after)):
            least = min(least, compare(before[j], after[k])[1])
    return least
