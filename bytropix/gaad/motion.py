"""Motion regions: where a frame differs from the one before.

    frames u8 -> |difference| summed over colours and cells -> less the level of the whole frame -> integral image
              -> score of each square of a golden pool -> the best one, fitted to what moved by moving its sides
              -> the same again without the change that this box holds, and so on

A square scores the change it holds, beyond what the whole frame holds, over a power of its area: the best one spans the
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
SQUARES = 6  # sizes in the pool, each 1/phi of the one before, the frame's shorter side the first; 0.09 the last
LEAST_CELLS = 3  # side of the smallest square
STEP = GOLDEN**-2  # from one square to the next of its size, in sides: 0.382
# A difference of two levels in each colour is noise; of the rest, what is less than twice the frame's mean is
# something that goes on everywhere, such as a turn of the camera.
NOISE, LEVEL = 6, 2
# The power of the area that a box's change is divided by. To choose a square: 2/5, so that it grows over several things
# only where they fill it. To fit its sides: less, since they would else shrink to one rim of a plain thing that moves
# slowly; with 1/5 two rims outweigh one from a thirtieth of the thing's width a frame on.
CHOICE, FIT = 0.4, 0.2
LEAST_SHARE = 50  # what holds less than this part of the change in the first box is no region


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
    boxes = np.empty((found.shape[1], 4), dtype=np.int64)
    weights = _weights(down * across, CHOICE), _weights(down * across, FIT)
    for t in range(first, frames.shape[0]):
        before = previous if t == 0 else frames[t - 1]
        kept = (
            _select(change, integral, pool, weights, overlap, boxes)
            if _difference(frames[t], before, cell, change)
            else 0
        )
        for i in range(kept):
            found[t, i, 0], found[t, i, 1] = boxes[i, 0] * cell, boxes[i, 1] * cell
            found[t, i, 2], found[t, i, 3] = min(boxes[i, 2] * cell, width), min(boxes[i, 3] * cell, height)


@numba.njit(nogil=True, cache=True)
def _weights(most: int, power: float) -> NDArray[np.float64]:
    """Return what the change in a box of each area up to `most` is multiplied by."""
    weights = np.zeros(most + 1, dtype=np.float64)
    for area in range(1, weights.size):
        weights[area] = area**-power
    return weights


@numba.njit(nogil=True, cache=True)
def _difference(frame: NDArray[np.uint8], before: NDArray[np.uint8], cell: int, change: NDArray[np.int32]) -> bool:
    """Write the change of each cell above the frame's level; returns whether there is any."""
    if cell == 1:
        _pixel_changes(frame.reshape(-1), before.reshape(-1), change.reshape(-1))
    else:
        change[:] = 0
        pixels = np.empty(frame.shape[1], dtype=np.int32)
        for y in range(frame.shape[0]):
            _pixel_changes(frame[y].reshape(-1), before[y].reshape(-1), pixels)
            row = change[y // cell]
            for column in range(row.size):
                for x in range(column * cell, min((column + 1) * cell, pixels.size)):
                    row[column] += pixels[x]
    cells = change.reshape(-1)
    total = np.int64(0)
    for i in range(cells.size):
        total += cells[i]
    level = np.int32(LEVEL * total // cells.size)
    for i in range(cells.size):
        above = np.int32(cells[i] - level)
        cells[i] = above if above > 0 else np.int32(0)
    return bool(total)


@numba.njit(nogil=True, cache=True)
def _pixel_changes(here: NDArray[np.uint8], there: NDArray[np.uint8], pixels: NDArray[np.int32]) -> None:
    """Write the |difference| of each pixel beyond noise, all in 32 bits and without branches: so several at once."""
    for i in range(pixels.size):
        first = np.uint64(3) * np.uint64(i)
        red = np.int32(abs(np.int32(np.int32(here[first]) - np.int32(there[first]))))
        first += np.uint64(1)
        green = np.int32(abs(np.int32(np.int32(here[first]) - np.int32(there[first]))))
        first += np.uint64(1)
        blue = np.int32(abs(np.int32(np.int32(here[first]) - np.int32(there[first]))))
        value = np.int32(red + green + blue - np.int32(NOISE))
        pixels[i] = value if value > 0 else np.int32(0)


@numba.njit(nogil=True, cache=True, inline="always")
def _score(integral: NDArray[np.int64], box: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Return what a box is worth."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return float(box_sum(integral, box[0], box[1], box[2], box[3]) * weights[area])


@numba.njit(nogil=True, cache=True)
def _select(
    change: NDArray[np.int32],
    integral: NDArray[np.int64],
    pool: NDArray[np.int64],
    weights: tuple[NDArray[np.float64], NDArray[np.float64]],
    overlap: float,
    boxes: NDArray[np.int64],
) -> int:
    """Fill `boxes`, one after the other, each without what those before it hold; returns how many there are."""
    least = 0
    for kept in range(boxes.shape[0]):
        integrate(change, integral)
        best, worth = -1, 0.0
        for i in range(pool.shape[0]):
            score = _score(integral, pool[i], weights[0])
            if score > worth and _apart(boxes, kept, pool[i], overlap):
                best, worth = i, score
        if best < 0:
            return int(kept)
        box = boxes[kept]
        box[:] = pool[best]
        _fit(integral, boxes, kept, weights[1], overlap)
        held = box_sum(integral, box[0], box[1], box[2], box[3])
        if held < least:
            return kept
        least = max(least, held // LEAST_SHARE)
        change[box[1] : box[3], box[0] : box[2]] = 0
    return int(boxes.shape[0])


@numba.njit(nogil=True, cache=True)
def _fit(
    integral: NDArray[np.int64],
    boxes: NDArray[np.int64],
    place: int,
    weights: NDArray[np.float64],
    overlap: float,
) -> None:
    """Move the sides of box `place` while that makes it worth more, by up to a golden step of its size.

    It stays apart from the boxes before it.
    """
    box = boxes[place]
    seed = box.copy()
    reach = max(1, int(STEP * (box[2] - box[0])))
    worth = _score(integral, box, weights)
    step = reach
    while step:
        better = True
        while better:
            better = False
            for side in range(4):
                most = integral.shape[1 - side % 2] - 1
                for way in (-step, step):
                    old = box[side]
                    box[side] = min(max(old + way, 0, seed[side] - reach), most, seed[side] + reach)
                    wide_enough = box[2] - box[0] >= LEAST_CELLS and box[3] - box[1] >= LEAST_CELLS
                    value = _score(integral, box, weights) if wide_enough else -1.0
                    if value > worth and _apart(boxes, place, box, overlap):
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
