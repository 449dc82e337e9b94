"""Region maps that follow the picture, frame by frame.

frames -> energy maps -> turned to one orientation -> rectangles (growth), spirals around the centre of the energy
       -> turned back -> without doubles, padding last -> f32[t, n, 4]

The centre of a spiral is that of the energy in its frame or rectangle. The map of a mirrored frame is the mirrored map,
exactly. A picture that is its own mirror image has a map that is one too: it is cut in two halves, or in 0.382, 0.236
and 0.382, one side is divided and the other mirrored, and in place of a spiral, which must turn one way, squares lie
around the middle.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.gaad.config import GOLDEN, RegionConfig
from bytropix.gaad.energy import energy_maps, grid
from bytropix.gaad.growth import TICKS, Rules, grow, weigh
from bytropix.gaad.spiral import CENTRE_SCALE, LEAST_SCALE, spiral_patches
from bytropix.gaad.symmetry import ACROSS, BOTH, DOWN, NONE, Box, mirrored, orient


def adaptive_regions(frames: NDArray[np.uint8], config: RegionConfig) -> NDArray[np.float32]:
    """Return the map of each frame.

    The kinds of map and the rules are those of `decompose`. With selection `leaves` the rectangles are a tiling; with
    the others they are the frame and its parts in the order they are cut, so that the picture chooses, not the depth.
    Each map depends on its own frame alone.

    Args:
        frames: u8[t, h, w, 3].
        config: What the maps are like, of any kind but `grid`; `adaptive` itself is not looked at.

    Returns:
        f32[t, config.regions, 4], x0, y0, x1, y1 in pixels, in 1/64 of a pixel: regions first, all different, then
        padding, 0, 0, 0, 0, where a frame is too small for more.
    """
    height, width = frames.shape[1:3]
    frame = np.array([0, 0, width, height]) * TICKS
    rules = _rules(width, height, config)
    wanted = config.rectangles
    skipped = int(wanted > 0 and not rules.leaves and not config.full_frame)
    energies = energy_maps(frames)
    count, n = len(frames), config.regions
    turns = np.zeros((count, 3), dtype=np.int64)
    boxes = np.zeros((count, n, 4), dtype=np.int64)
    made = np.zeros(count, dtype=np.int64)
    room = np.zeros((count, wanted + skipped, 4), dtype=np.int64)
    _divide_frames(energies, rules, frame, turns, room, made)
    symmetric = np.flatnonzero(turns[:, 2] != NONE)
    first: dict[bytes, int] = {}  # plain frames of a film are all alike, and one of them is divided
    like = np.array([first.setdefault(energies[t].tobytes(), t) for t in symmetric.tolist()], dtype=np.int64)
    for t in first.values():
        found = _symmetric(energies[t], rules, tuple(frame.tolist()), wanted + skipped, int(turns[t, 2]))
        room[t, : len(found)] = np.array(found, dtype=np.int64).reshape(-1, 4)
        made[t] = len(found)
    if skipped:  # but a frame that cannot be cut is its own rectangle
        cut = made > 1
        room[cut, :-1] = room[cut, 1:]
        made -= cut
    boxes[:, :wanted] = room[:, :wanted]
    _add_patches(energies, rules, frame, config, turns[:, 2] == NONE, list(first.values()), boxes, made)
    boxes[symmetric] = boxes[like]
    maps = np.zeros((count, n, 4), dtype=np.float32)
    _settle(boxes, turns, frame, maps)
    return maps


def _rules(width: int, height: int, config: RegionConfig) -> Rules:
    """Return what divides frames of this size."""
    cells = grid(width, height)
    return Rules(
        columns=cells.columns * TICKS,
        rows=cells.rows * TICKS,
        least=round(config.min_side * TICKS),
        squares=config.rule == "square_remainder",
        leaves=config.select == "leaves" or config.decomposition == "refine",
    )


@numba.njit(nogil=True, cache=True)
def _divide_frames(
    energies: NDArray[np.int64],
    rules: Rules,
    frame: NDArray[np.int64],
    turns: NDArray[np.int64],
    boxes: NDArray[np.int64],
    made: NDArray[np.int64],
) -> None:
    """Turn each frame's energies and fill its rectangles, but for those of symmetric frames."""
    for t in range(energies.shape[0]):
        orient(energies[t], rules.columns, rules.rows, turns[t])
        if turns[t, 2] == NONE and boxes.shape[1] > 0:
            made[t] = grow(energies[t], rules, frame, boxes[t])


def _symmetric(energy: NDArray[np.int64], rules: Rules, box: Box, n: int, symmetry: int) -> list[Box]:
    """Return at most `n` rectangles of a box of a frame, the same after the mirrorings of `symmetry`."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    across = symmetry == ACROSS or (symmetry != DOWN and width >= height)
    length = width if across else height
    if n == 0:
        return []
    if symmetry == NONE or length < 2 * rules.least or min(width, height) < rules.least:
        # In the last two cases nothing can be cut, or only along the axis of symmetry, which keeps it.
        room = np.zeros((n, 4), dtype=np.int64)
        return [tuple(found) for found in room[: grow(energy, rules, np.array(box), room)].tolist()]
    own = [] if rules.leaves and n > 1 else [box]
    inner = n - len(own)
    side = round(length / GOLDEN**2)
    strips = inner % 2 if length - 2 * side >= rules.least else 0
    if not strips:
        side = length // 2
    low: Box = (x0, y0, x0 + side, y1) if across else (x0, y0, x1, y0 + side)
    middle: Box = (x0 + side, y0, x1 - side, y1) if across else (x0, y0 + side, x1, y1 - side)
    remaining = (DOWN if across else ACROSS) if symmetry == BOTH else NONE
    other = (ACROSS if across else DOWN) if symmetry == BOTH else symmetry
    pairs = [(part, mirrored(part, box, other)) for part in _symmetric(energy, rules, low, inner // 2, remaining)]
    return [*own, *[middle] * strips, *(part for pair in pairs for part in pair)]


def _add_patches(
    energies: NDArray[np.int64],
    rules: Rules,
    frame: NDArray[np.int64],
    config: RegionConfig,
    plain: NDArray[np.bool_],
    symmetric: list[int],
    boxes: NDArray[np.int64],
    made: NDArray[np.int64],
) -> None:
    """Write patches behind the rectangles: spirals in `plain` frames, squares around the middle in `symmetric` ones."""
    n = config.regions
    refine = config.decomposition == "refine"
    rest = n - made if refine else np.full_like(made, n - config.rectangles)
    if not rest.any():
        return
    for t in symmetric:
        tiles = boxes[t, : made[t]] if refine else frame[None]
        shared, over = divmod(int(rest[t]), len(tiles))
        # What is left over lies in the whole frame, where it is symmetric too.
        squares = np.concatenate([*(_nested(tile, shared) for tile in tiles), _nested(frame, over)])
        boxes[t, made[t] : made[t] + len(squares)] = squares

    numbers = np.flatnonzero(plain)
    slots = np.arange(n)
    if refine:
        taken = slots < made[numbers, None]
        homes, owner = boxes[numbers][taken], np.repeat(numbers, made[numbers])
        each, left = np.divmod(rest[numbers], made[numbers])
        counts = (each[:, None] + (slots < left[:, None]))[taken]
    else:
        homes, owner, counts = np.tile(frame, (numbers.size, 1)), numbers, rest[numbers]
    centres = np.empty((len(homes), 2))
    _centres(energies, rules, homes, owner, centres)
    patches = spiral_patches(homes / TICKS, counts, config.spiral, centres / TICKS)
    places = (slots >= made[:, None]) & (slots < (made + rest)[:, None]) & plain[:, None]
    boxes[places] = np.where(patches.inside[:, None], np.rint(patches.boxes * TICKS), 0).astype(np.int64)


@numba.njit(nogil=True, cache=True)
def _centres(
    energies: NDArray[np.int64],
    rules: Rules,
    homes: NDArray[np.int64],
    owner: NDArray[np.int64],
    centres: NDArray[np.float64],
) -> None:
    """Write the centre of the energy of each home, in ticks; `owner` is the frame it lies in."""
    for i in range(homes.shape[0]):
        _, centres[i, 0], centres[i, 1] = weigh(energies[owner[i]], rules, homes[i])


def _nested(home: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return squares around the middle of a rectangle, i64[count, 4], the largest first, in a golden spiral's sizes."""
    sides = home[2:] - home[:2]
    scales = np.geomspace(1 / GOLDEN, LEAST_SCALE, count) if count > 1 else np.full(count, CENTRE_SCALE)
    inset = np.floor((sides - (sides.min() * scales)[:, None]) / 2).astype(np.int64)
    return np.concatenate([home[:2] + inset, home[2:] - inset], axis=1)


@numba.njit(nogil=True, cache=True)
def _settle(
    boxes: NDArray[np.int64], turns: NDArray[np.int64], frame: NDArray[np.int64], maps: NDArray[np.float32]
) -> None:
    """Write the boxes of each frame turned back, in pixels, without empty ones and those that are there already."""
    for t in range(boxes.shape[0]):
        kept = 0
        for i in range(boxes.shape[1]):
            x0, y0, x1, y1 = boxes[t, i]
            if turns[t, 0]:
                x0, x1 = frame[2] - x1, frame[2] - x0
            if turns[t, 1]:
                y0, y1 = frame[3] - y1, frame[3] - y0
            found = x0 >= x1 or y0 >= y1
            left, top, right, bottom = x0 / TICKS, y0 / TICKS, x1 / TICKS, y1 / TICKS
            for j in range(kept):
                old = maps[t, j]
                found = found or (old[0] == left and old[1] == top and old[2] == right and old[3] == bottom)
            if not found:
                maps[t, kept, 0], maps[t, kept, 1], maps[t, kept, 2], maps[t, kept, 3] = left, top, right, bottom
                kept += 1
