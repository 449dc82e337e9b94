"""Maps that turn with the picture: every frame is turned to one orientation, mapped there, and the map turned back.

energy -> the least of its four mirrorings, and which mirrorings change nothing -> Turn

Of a picture and its mirror image the same mirroring is mapped, whatever ties and roundings there are on the way, so
that their maps are mirror images exactly. Where a mirroring changes nothing at all, as on a plain frame, the map must
be its own mirror image: `mirrored` and the callers' symmetric cuts see to that.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

NONE, ACROSS, DOWN, TURNED, BOTH = range(5)  # what changes nothing: no mirroring, x, y, only both at once, each

Box = tuple[int, int, int, int]


class Turn(NamedTuple):
    """How a frame is mirrored before it is mapped, and what it looks the same after."""

    across: bool
    down: bool
    symmetry: int


@numba.njit(nogil=True, cache=True)
def orient(
    energy: NDArray[np.int64], columns: NDArray[np.int64], rows: NDArray[np.int64], turn: NDArray[np.int64]
) -> None:
    """Turn the energies of a frame, in place, to the orientation all its mirrorings share.

    That has the heavier half on the left and on top; where the halves are equal, the first cells that differ decide.

    Args:
        energy: i64[rows, columns].
        columns: i64[c + 1], where columns begin and end.
        rows: i64[r + 1], where rows do.
        turn: Output: whether it was mirrored across (x) and down (y), and its symmetry.
    """
    lean_x, lean_y = 0, 0
    for row in range(energy.shape[0]):
        for column in range(energy.shape[1]):
            lean_x += int(energy[row, column] * (columns[column] + columns[column + 1] - columns[-1]))
            lean_y += int(energy[row, column] * (rows[row] + rows[row + 1] - rows[-1]))
    least, symmetry = 0, NONE
    for way in range(1, 4):
        if _compare(energy, lean_x, lean_y, way, least) < 0:
            least = way
        if _compare(energy, lean_x, lean_y, way, 0) == 0:
            symmetry = way if symmetry == NONE else BOTH
    turn[0], turn[1], turn[2] = least % 2, least // 2, symmetry
    if least > 0:
        before = energy.copy()
        for row in range(energy.shape[0]):
            for column in range(energy.shape[1]):
                energy[row, column] = _cell(before, row, column, least)


@numba.njit(nogil=True, cache=True)
def _cell(energy: NDArray[np.int64], row: int, column: int, way: int) -> int:
    """Return a cell of a frame mirrored in a `way`: 1 across, 2 down, 3 both, 0 not at all."""
    if way % 2 == 1:
        column = energy.shape[1] - 1 - column
    if way >= 2:
        row = energy.shape[0] - 1 - row
    return int(energy[row, column])


@numba.njit(nogil=True, cache=True)
def _compare(energy: NDArray[np.int64], lean_x: int, lean_y: int, way: int, than: int) -> int:
    """Return -1, 0 or 1 as a frame mirrored one way comes before it mirrored another way, is equal, or comes after."""
    x, than_x = (-lean_x if way % 2 == 1 else lean_x), (-lean_x if than % 2 == 1 else lean_x)
    y, than_y = (-lean_y if way >= 2 else lean_y), (-lean_y if than >= 2 else lean_y)
    if x != than_x:
        return -1 if x < than_x else 1
    if y != than_y:
        return -1 if y < than_y else 1
    for row in range(energy.shape[0]):
        for column in range(energy.shape[1]):
            one, other = _cell(energy, row, column, way), _cell(energy, row, column, than)
            if one != other:
                return -1 if one < other else 1
    return 0


def mirrored(box: Box, within: Box, symmetry: int) -> Box:
    """Return a box mirrored inside another, in x unless the symmetry is DOWN, in y unless it is ACROSS."""
    x0, y0, x1, y1 = box
    if symmetry != DOWN:
        x0, x1 = within[0] + within[2] - x1, within[0] + within[2] - x0
    if symmetry != ACROSS:
        y0, y1 = within[1] + within[3] - y1, within[1] + within[3] - y0
    return x0, y0, x1, y1
