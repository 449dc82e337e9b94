"""Motion regions: where a frame differs from the one before.

    frames u8 -> |difference| summed over colours and cells -> less the level of the whole frame -> integral image
              -> score of each square of a golden pool -> the best one, fitted to what moved by moving its sides
              -> the next best that overlaps none of those before, and so on

A box scores the change it holds, beyond what the whole frame holds, over a root of its area: the best one spans the
place a thing has left and the place it has come to, and little else. Up to that last step all is counted in whole
numbers, so that the same frames give the same boxes everywhere.
"""

from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.gaad.config import GOLDEN, RegionConfig
from bytropix.gaad.integral import box_sum, integrate

CELLS = 160  # of the shorter side, at most: larger frames are looked at in cells of several pixels
SQUARES = 5  # sizes in the pool, each 1/phi of the one before, the frame's shorter side the first; 0.146 the last
LEAST_CELLS = 3  # side of the smallest square
STEP = GOLDEN**-2  # from one square to the next of its size, in sides: 0.382
TRIES = 3  # for each box that is wanted: a fitted box may come to lie on one that is there already
# A difference of two levels in each colour is noise; of the rest, what is less than twice the frame's mean is
# something that goes on everywhere, such as a turn of the camera.
NOISE, LEVEL = 6, 2
# The exponent of the area. 1/2 would prefer one rim of a plain thing that moves slowly to the thing; 0 would prefer the
# frame. With 1/5 two rims outweigh one from a thirtieth of the thing's width a frame on.
AREA = 0.2


def motion_regions(
    frames: NDArray[np.uint8], previous: NDArray[np.uint8] | None, config: RegionConfig
) -> NDArray[np.float32]:
    """Return boxes around what moves, the strongest first.

    Where fewer things move than boxes are asked for, or nothing, the rest is padding, 0, 0, 0, 0.

    Args:
        frames: u8[t, h, w, 3].
        previous: u8[h, w, 3], the frame before the first. `None`: there is none, and the first frame gets the boxes of
            the second, or padding if it is alone.
        config: How many boxes, and how far two of a frame may overlap.

    Returns:
        f32[t, config.motion_regions, 4], x0, y0, x1, y1 in pixels.
    """
    count, height, width = frames.shape[:3]
    found = np.zeros((count, config.motion_regions, 4), dtype=np.float32)
    cell, pool = _pool(width, height)
    first = int(previous is None)
    if previous is None:
        previous = frames[0]
    _follow(
        np.ascontiguousarray(frames), np.ascontiguousarray(previous), first, cell, pool, config.motion_overlap, found
    )
    if first and count > 1:
        found[0] = found[1]
    return found


@lru_cache(maxsize=64)
def _pool(width: int, height: int) -> tuple[int, NDArray[np.int64]]:
    """Return the side of a cell in pixels, and squares, i64[n, 4], in cells, the largest first."""
    cell = max(1, -(-min(width, height) // CELLS))
    across, down = -(-width // cell), -(-height // cell)
    shorter = min(across, down)
    sides = sorted({max(min(LEAST_CELLS, shorter), round(shorter / GOLDEN**k)) for k in range(SQUARES)}, reverse=True)
    squares = []
    for side in sides:
        columns, rows = (_places(length, side) for length in (across, down))
        x, y = (place.ravel() for place in np.meshgrid(columns, rows))
        squares.append(np.stack([x, y, x + side, y + side], axis=1))
    pool = np.concatenate(squares)
    pool.setflags(write=False)
    return cell, pool


def _places(length: int, side: int) -> NDArray[np.int64]:
    """Return where squares begin along a side of the frame, evenly from one end to the other."""
    steps = int(np.ceil((length - side) / max(1.0, STEP * side)))
    return np.unique(np.rint(np.linspace(0, length - side, steps + 1)).astype(np.int64))


@numba.njit(nogil=True, cache=True)
def _follow(
    frames: NDArray[np.uint8],
    previous: NDArray[np.uint8],
    first: int,
    cell: int,
    pool: NDArray[np.int64],
    overlap: float,
    found: NDArray[np.float32],
) -> None:
    """Fill `found` from frame `first` on."""
    height, width = frames.shape[1], frames.shape[2]
    down, across = -(-height // cell), -(-width // cell)
    change = np.empty((down, across), dtype=np.int32)
    integral = np.empty((down + 1, across + 1), dtype=np.int64)
    scores = np.empty(pool.shape[0], dtype=np.float64)
    boxes = np.empty((found.shape[1], 4), dtype=np.int64)
    weights = np.empty(down * across + 1, dtype=np.float64)
    for area in range(1, weights.size):
        weights[area] = area**-AREA
    for t in range(first, frames.shape[0]):
        before = previous if t == 0 else frames[t - 1]
        if not _difference(frames[t], before, cell, change):
            continue
        integrate(change, integral)
        for i in range(pool.shape[0]):
            scores[i] = _score(integral, pool[i], weights)
        kept = _select(integral, pool, scores, weights, overlap, boxes)
        for i in range(kept):
            found[t, i, 0], found[t, i, 1] = boxes[i, 0] * cell, boxes[i, 1] * cell
            found[t, i, 2], found[t, i, 3] = min(boxes[i, 2] * cell, width), min(boxes[i, 3] * cell, height)


@numba.njit(nogil=True, cache=True)
def _difference(frame: NDArray[np.uint8], before: NDArray[np.uint8], cell: int, change: NDArray[np.int32]) -> bool:
    """Write the change of each cell above the frame's level; returns whether there is any."""
    height, width = frame.shape[0], frame.shape[1]
    change[:] = 0
    total = np.int64(0)
    for y in range(height):
        row, there, here = change[y // cell], before[y], frame[y]
        for column in range(row.size):
            value = np.int32(0)
            for x in range(column * cell, min((column + 1) * cell, width)):
                pixel = np.int32(0)
                for colour in range(3):
                    pixel += abs(np.int32(here[x, colour]) - np.int32(there[x, colour]))
                value += max(np.int32(0), pixel - np.int32(NOISE))
            row[column] += value
            total += value
    if total == 0:
        return False
    level = np.int32(LEVEL * total // change.size)
    for y in range(change.shape[0]):
        for x in range(change.shape[1]):
            change[y, x] = max(np.int32(0), change[y, x] - level)
    return True


@numba.njit(nogil=True, cache=True, inline="always")
def _score(integral: NDArray[np.int64], box: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Return what a box is worth."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return box_sum(integral, box[0], box[1], box[2], box[3]) * weights[area]


@numba.njit(nogil=True, cache=True)
def _select(
    integral: NDArray[np.int64],
    pool: NDArray[np.int64],
    scores: NDArray[np.float64],
    weights: NDArray[np.float64],
    overlap: float,
    boxes: NDArray[np.int64],
) -> int:
    """Fill `boxes` with the best that overlap little, each fitted; returns how many there are."""
    kept = 0
    for _ in range(TRIES * boxes.shape[0]):
        best = -1
        for i in range(scores.size):
            if scores[i] > 0 and (best < 0 or scores[i] > scores[best]):
                best = i
        if best < 0 or kept == boxes.shape[0]:
            break
        boxes[kept] = pool[best]
        _fit(integral, boxes[kept], weights)
        scores[best] = 0
        if _apart(boxes, kept, boxes[kept], overlap):
            kept += 1
            for i in range(scores.size):
                if scores[i] > 0 and not _apart(boxes, kept, pool[i], overlap):
                    scores[i] = 0
    return kept


@numba.njit(nogil=True, cache=True)
def _fit(integral: NDArray[np.int64], box: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
    """Move the sides of a box as long as that makes it worth more, by golden steps of its size, then smaller ones."""
    down, across = integral.shape[0] - 1, integral.shape[1] - 1
    worth = _score(integral, box, weights)
    step = max(1, int(STEP * max(box[2] - box[0], box[3] - box[1])))
    while step:
        better = True
        while better:
            better = False
            for side in range(4):
                for way in (-step, step):
                    old = box[side]
                    new = min(max(old + way, 0), across if side % 2 == 0 else down)
                    box[side] = new
                    wide_enough = box[2] - box[0] >= LEAST_CELLS and box[3] - box[1] >= LEAST_CELLS
                    value = _score(integral, box, weights) if wide_enough else -1.0
                    if value > worth:
                        worth, better = value, True
                    else:
                        box[side] = old
        step //= 2


@numba.njit(nogil=True, cache=True)
def _apart(boxes: NDArray[np.int64], count: int, box: NDArray[np.int64], overlap: float) -> bool:
    """Whether a box overlaps none of the first `count` boxes by more than `overlap`, as intersection over union."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    for i in range(count):
        other = boxes[i]
        wide = min(box[2], other[2]) - max(box[0], other[0])
        high = min(box[3], other[3]) - max(box[1], other[1])
        if wide > 0 and high > 0:
            common = wide * high
            if common > overlap * (area + (other[2] - other[0]) * (other[3] - other[1]) - common):
                return False
    return True
