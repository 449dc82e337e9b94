"""Golden subdivision that follows the energy of a frame.

frame -> the rectangle with the most energy x area is divided next -> of both cuts the rule allows, the one whose parts
hold the more equal energy -> two more rectangles -> ... -> enough

So detail is cut finer: the share of the rule goes to the calmer end when it is the larger part. With the same density
everywhere it is the flat rule, the largest rectangle next. Corners are whole ticks, 1/64 of a pixel: mirroring a frame
of at most 65,536 pixels is exact in them, in float32 too.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.gaad.config import GOLDEN

TICKS = 64  # in a pixel


class Rules(NamedTuple):
    """What divides frames of one size; lengths in ticks."""

    columns: NDArray[np.int64]
    """i64[c + 1], where the columns of the energy's grid begin and end."""
    rows: NDArray[np.int64]
    """i64[r + 1], where its rows do."""
    least: int
    """Least side of a part."""
    squares: bool
    """Whether the rule is `square_remainder`, not `golden_cut`."""
    leaves: bool
    """Whether a tiling is wanted, that with the most energy x area first; otherwise it is the frame and its parts in
    the order they are cut."""


@numba.njit(nogil=True, cache=True)
def weigh(energy: NDArray[np.int64], rules: Rules, box: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the energy in a box, and the x and y of its centre, in ticks; cells count by the share that lies in it.

    Args:
        energy: i64[rows, columns], at least 1 each.
        rules: Say where its cells lie.
        box: i64[4], x0, y0, x1, y1 in ticks, not empty.
    """
    columns, rows = rules.columns, rules.rows
    first, stop = _reached(columns, box[0], box[2])
    top, bottom = _reached(rows, box[1], box[3])
    total, total_x, total_y = 0.0, 0.0, 0.0
    for row in range(top, bottom):
        y0, y1 = max(rows[row], box[1]), min(rows[row + 1], box[3])
        line, line_x = 0.0, 0.0
        for column in range(first, stop):
            x0, x1 = columns[column], columns[column + 1]
            part = float(energy[row, column])
            if x0 < box[0] or x1 > box[2]:
                whole = x1 - x0
                x0, x1 = max(x0, box[0]), min(x1, box[2])
                part *= (x1 - x0) / whole
            line += part
            line_x += part * (x0 + x1)
        share = (y1 - y0) / (rows[row + 1] - rows[row])
        total += line * share
        total_x += line_x * share
        total_y += line * share * (y0 + y1)
    return total, total_x / (2 * total), total_y / (2 * total)


@numba.njit(nogil=True, cache=True)
def _reached(edges: NDArray[np.int64], low: int, high: int) -> tuple[int, int]:
    """Return the first cell along an axis that reaches beyond `low`, and the cell behind the last one before `high`."""
    first = 0
    while edges[first + 1] <= low:
        first += 1
    stop = first + 1
    while edges[stop] < high:
        stop += 1
    return first, stop


@numba.njit(nogil=True, cache=True)
def _copy(box: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Write a box."""
    for side in range(4):
        out[side] = box[side]


@numba.njit(nogil=True, cache=True)
def _cut(box: NDArray[np.int64], rules: Rules) -> tuple[bool, int, bool]:
    """Return whether the rule cuts a box across its width, what share it takes off, and whether it can.

    A square, or what would leave less than the least side, is cut golden by `square_remainder` too.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    upright = bool(width >= height)
    longer, shorter = max(width, height), min(width, height)
    squares = rules.squares and longer - shorter >= rules.least
    share = int(shorter if squares else np.rint(longer / GOLDEN))
    return upright, share, bool(min(shorter, share, longer - share) >= rules.least)


@numba.njit(nogil=True, cache=True)
def grow(energy: NDArray[np.int64], rules: Rules, frame: NDArray[np.int64], out: NDArray[np.int64]) -> int:
    """Divide a frame, or a rectangle of one, into as many rectangles as `out` has room for.

    Args:
        energy: i64[rows, columns], at least 1 each.
        rules: How it is divided.
        frame: i64[4], what is divided, in ticks.
        out: i64[n, 4], rectangles in ticks.

    Returns:
        How many there are: fewer than n where the frame yields no more.
    """
    room = 2 * out.shape[0] + 1
    boxes = np.empty((room, 4), dtype=np.int64)
    mass, worth = np.empty(room, dtype=np.float64), np.empty(room, dtype=np.float64)
    open_ = np.empty(room, dtype=np.bool_)  # what can be divided
    _copy(frame, boxes[0])
    mass[0] = weigh(energy, rules, frame)[0]
    count, kept = 1, 1
    _value(boxes, mass, worth, open_, 0, rules)
    while kept < out.shape[0]:
        best = _next(worth, open_, count)
        if best < 0:
            break
        _divide(energy, rules, boxes, mass, best, count)
        _value(boxes, mass, worth, open_, count, rules)
        _value(boxes, mass, worth, open_, count + 1, rules)
        open_[best] = False
        if rules.leaves:
            worth[best] = -1.0
        count += 2
        kept = (count + 1) // 2 if rules.leaves else count
    kept = min(kept, out.shape[0])
    for number in range(count):
        open_[number] = worth[number] >= 0  # what was divided in a tiling is worth less
    for i in range(kept):
        chosen = _next(worth, open_, count) if rules.leaves else i
        open_[chosen] = False
        _copy(boxes[chosen], out[i])
    return int(kept)


@numba.njit(nogil=True, cache=True)
def _value(
    boxes: NDArray[np.int64],
    mass: NDArray[np.float64],
    worth: NDArray[np.float64],
    open_: NDArray[np.bool_],
    number: int,
    rules: Rules,
) -> None:
    """Write how much box `number` wants to be divided, and whether it can be."""
    box = boxes[number]
    worth[number] = mass[number] * ((box[2] - box[0]) * (box[3] - box[1]))
    open_[number] = _cut(box, rules)[2]


@numba.njit(nogil=True, cache=True)
def _next(worth: NDArray[np.float64], open_: NDArray[np.bool_], count: int) -> int:
    """Return the number of the box to divide next, -1 if there is none."""
    best = -1
    for number in range(count):
        if open_[number] and (best < 0 or worth[number] > worth[best]):
            best = number
    return best


@numba.njit(nogil=True, cache=True)
def _divide(
    energy: NDArray[np.int64],
    rules: Rules,
    boxes: NDArray[np.int64],
    mass: NDArray[np.float64],
    number: int,
    count: int,
) -> None:
    """Write both parts of box `number` behind the others, that with the more energy x area first."""
    upright, share, _ = _cut(boxes[number], rules)
    low, high = (0, 2) if upright else (1, 3)
    length = boxes[number, high] - boxes[number, low]
    first, second = boxes[count], boxes[count + 1]
    unequal, chosen = np.inf, share
    for at in (share, length - share):  # the share at the low end, or at the high one
        _copy(boxes[number], first)
        first[high] = first[low] + at
        held = weigh(energy, rules, first)[0]
        if abs(2 * held - mass[number]) < unequal:
            unequal = abs(2 * held - mass[number])
            mass[count], chosen = held, at
    mass[count + 1] = max(mass[number] - mass[count], 0.0)
    first[high] = first[low] + chosen
    _copy(boxes[number], second)
    second[low] = first[high]
    if mass[count + 1] * (length - chosen) > mass[count] * chosen:
        for side in range(4):
            first[side], second[side] = second[side], first[side]
        mass[count], mass[count + 1] = mass[count + 1], mass[count]
