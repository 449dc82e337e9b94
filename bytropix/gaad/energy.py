"""Where a frame has detail: an energy for each cell of a coarse grid, in whole numbers.

frames u8 -> luma -> |difference| to the next pixel and to the row below, less what noise makes -> sums over cells
          -> plus a little everywhere, so that a plain frame counts as evenly detailed

A difference belongs to both of its pixels and the grid is its own mirror image, so that a mirrored frame has exactly
the mirrored energies.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

CELLS = 32  # along a side of the frame, at most
NOISE = 12  # luma is R + 2 G + B: three levels of 255
EVEN = 8  # what every pixel has is an eighth of the mean energy


class Grid(NamedTuple):
    """The cells of one frame size: where they begin and end, and which cell each pixel lies in."""

    columns: NDArray[np.int64]
    """i64[c + 1], pixels."""
    rows: NDArray[np.int64]
    """i64[r + 1], pixels."""
    column_of: NDArray[np.int64]
    """i64[width]."""
    row_of: NDArray[np.int64]
    """i64[height]."""


@lru_cache(maxsize=64)
def grid(width: int, height: int) -> Grid:
    """Return the grid of a frame size."""
    columns, rows = _edges(width), _edges(height)
    return Grid(columns, rows, _owners(columns), _owners(rows))


def _edges(length: int) -> NDArray[np.int64]:
    """Return where cells begin and end along a side, the same from either end."""
    count = min(length, CELLS)
    count -= (length - count) % 2 and count % 2 == 0  # an even count would need a cell to end amid the middle pixel
    first = np.arange(count // 2 + 1) * length // count
    return np.concatenate([first, length - first[::-1][1 - count % 2 :]])


def _owners(edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cell of each pixel."""
    return np.repeat(np.arange(edges.size - 1), np.diff(edges))


def energy_maps(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the energy of each cell of each frame.

    Args:
        frames: u8[t, h, w, 3].

    Returns:
        i64[t, rows, columns] of `grid(w, h)`; every energy is at least 1.
    """
    count, height, width = frames.shape[:3]
    cells = grid(width, height)
    energies = np.empty((count, cells.rows.size - 1, cells.columns.size - 1), dtype=np.int64)
    _measure(np.ascontiguousarray(frames), cells.columns, cells.rows, cells.row_of, energies)
    return energies


@numba.njit(nogil=True, cache=True)
def _measure(
    frames: NDArray[np.uint8],
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
    row_of: NDArray[np.int64],
    energies: NDArray[np.int64],
) -> None:
    """Fill `energies`."""
    height, width = frames.shape[1], frames.shape[2]
    here, above = np.empty(width, dtype=np.int32), np.empty(width, dtype=np.int32)
    steps, sums = np.empty(width, dtype=np.int32), np.empty(width, dtype=np.int32)
    for t in range(frames.shape[0]):
        sums[:] = 0
        for y in range(height):
            here, above = above, here
            _luma(frames[t, y].reshape(-1), here)
            if y > 0:
                _differences(here, above, steps)
                _add(steps, sums)
                if row_of[y] != row_of[y - 1]:
                    _gather(sums, columns, energies[t, row_of[y - 1]])
                    sums[:] = 0
                _add(steps, sums)
            _differences(here[1:], here[:-1], steps[: width - 1])
            _add(steps[: width - 1], sums[1:])
            _add(steps[: width - 1], sums[:-1])
        _gather(sums, columns, energies[t, row_of[height - 1]])
        total = np.int64(0)
        for row in range(rows.size - 1):
            for column in range(columns.size - 1):
                total += energies[t, row, column]
        even = 1 + total // (EVEN * width * height)
        for row in range(rows.size - 1):
            for column in range(columns.size - 1):
                size = (rows[row + 1] - rows[row]) * (columns[column + 1] - columns[column])
                energies[t, row, column] += even * size


@numba.njit(nogil=True, cache=True)
def _luma(pixels: NDArray[np.uint8], out: NDArray[np.int32]) -> None:
    """Write R + 2 G + B of a row's pixels; unsigned indices let the compiler do several at once."""
    for x in range(out.size):
        first = np.uint64(3) * np.uint64(x)
        red, green = np.int32(pixels[first]), np.int32(pixels[first + np.uint64(1)])
        out[x] = red + np.int32(2) * green + np.int32(pixels[first + np.uint64(2)])


@numba.njit(nogil=True, cache=True)
def _differences(one: NDArray[np.int32], other: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Write the |differences| of lumas beyond noise."""
    for x in range(out.size):
        out[x] = max(np.int32(0), np.int32(abs(one[x] - other[x]) - np.int32(NOISE)))


@numba.njit(nogil=True, cache=True)
def _add(steps: NDArray[np.int32], sums: NDArray[np.int32]) -> None:
    """Add to the sums of columns."""
    for x in range(steps.size):
        sums[x] += steps[x]


@numba.njit(nogil=True, cache=True)
def _gather(sums: NDArray[np.int32], columns: NDArray[np.int64], cells: NDArray[np.int64]) -> None:
    """Write the sums of a row of cells from those of its columns of pixels."""
    for column in range(cells.size):
        total = np.int64(0)
        for x in range(columns[column], columns[column + 1]):
            total += sums[x]
        cells[column] = total
