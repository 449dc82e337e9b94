"""One map for a frame size: rectangles, spirals, both side by side, spirals inside rectangles, or a plain grid.

frame size, RegionConfig -> DECOMPOSITIONS[name] -> candidates -> settled: exactly n regions -> kept for the next call

A map does not look at pictures, so that it is computed once for a frame size; `bytropix.gaad.adaptive` does look.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError
from bytropix.gaad.config import DecompositionName, RegionConfig, SelectName
from bytropix.gaad.regions import NO_PARENT, Candidates, Regions, joined, settled
from bytropix.gaad.spiral import spiral_patches
from bytropix.gaad.subdivision import subdivide

KEPT_MAPS = 256
GREATEST_SIDE = 1 << 16


def decompose(width: int, height: int, config: RegionConfig) -> Regions:
    """Return the map of a frame size: exactly `config.regions` regions, of which `valid` says which are.

    The same arguments return the same object, whose arrays can not be written to.

    Args:
        width: Of the frame, in pixels, 1 to 65536.
        height: Of the frame, in pixels, 1 to 65536.
        config: What the map is like.

    Raises:
        ConfigError: If a side is no such number.
    """
    for name, side in (("width", width), ("height", height)):
        if type(side) is not int or not 1 <= side <= GREATEST_SIDE:
            raise ConfigError(f"frame {name} must be a whole number from 1 to {GREATEST_SIDE}, got {side!r}")
    return _decomposed(width, height, config)


@lru_cache(maxsize=KEPT_MAPS)
def _decomposed(width: int, height: int, config: RegionConfig) -> Regions:
    return settled(DECOMPOSITIONS[config.decomposition](width, height, config), config.regions)


def _rectangles(width: int, height: int, config: RegionConfig, select: SelectName) -> Candidates:
    """Return the map's rectangles, fewer where the frame yields no more."""
    return subdivide(
        width,
        height,
        config.rectangles,
        rule=config.rule,
        select=select,
        full_frame=config.full_frame,
        min_side=config.min_side,
    )


def _spirals(
    rectangles: NDArray[np.float64],
    counts: NDArray[np.int64],
    depth: NDArray[np.int64],
    parent: NDArray[np.int64],
    config: RegionConfig,
) -> Candidates:
    """Return one spiral in each rectangle."""
    patches = spiral_patches(rectangles, counts, config.spiral)
    return Candidates(
        boxes=patches.boxes,
        depth=depth,
        parent=parent,
        usable=patches.inside,
        radius=patches.radius,
        angle=patches.angle,
        scale=patches.scale,
    )


def _subdivide(width: int, height: int, config: RegionConfig) -> Candidates:
    """Return rectangles alone."""
    return _rectangles(width, height, config, config.select)


def _spiral(width: int, height: int, config: RegionConfig) -> Candidates:
    """Return one spiral in the frame."""
    n = config.regions - config.rectangles
    frame = np.array([[0.0, 0.0, width, height]])
    return _spirals(frame, np.array([n]), np.zeros(n, dtype=np.int64), np.full(n, NO_PARENT), config)


def _hybrid(width: int, height: int, config: RegionConfig) -> Candidates:
    """Return rectangles for the smaller half, then a spiral in the frame for the rest."""
    return joined(_subdivide(width, height, config), _spiral(width, height, config))


def _refine(width: int, height: int, config: RegionConfig) -> Candidates:
    """Return a tiling, and spirals in its rectangles for the rest of the regions, the larger rectangles first."""
    tiles = _rectangles(width, height, config, "leaves")
    number = len(tiles.boxes)
    owner = np.sort(np.arange(config.regions - number) % number)
    counts = np.bincount(owner, minlength=number)
    return joined(tiles, _spirals(tiles.boxes, counts, tiles.depth[owner] + 1, owner, config))


def _grid(width: int, height: int, config: RegionConfig) -> Candidates:
    """Return equal rectangles in rows, the upper row first: the tiling whose cells are most nearly squares.

    There are as many as asked for, or the most below that of which none is narrower than the least side.
    """
    columns, rows = _grid_shape(width, height, config.regions, config.min_side)
    x, y = np.linspace(0, width, columns + 1), np.linspace(0, height, rows + 1)
    left, top = (places.ravel() for places in np.meshgrid(x[:-1], y[:-1]))
    right, bottom = (places.ravel() for places in np.meshgrid(x[1:], y[1:]))
    n = columns * rows
    return Candidates(
        boxes=np.stack([left, top, right, bottom], axis=1),
        depth=np.full(n, int(n > 1)),
        parent=np.full(n, NO_PARENT),
        usable=np.ones(n, dtype=np.bool_),
        radius=np.zeros(n),
        angle=np.zeros(n),
        scale=np.full(n, n**-0.5),
    )


def _grid_shape(width: int, height: int, n: int, min_side: float) -> tuple[int, int]:
    """Return the columns and rows of at most `n` cells; of two shapes as near to squares, the one with more columns."""

    def longer(shape: tuple[int, int]) -> float:
        """Return how many times a cell's longer side is its shorter one."""
        sides = width * shape[1], height * shape[0]
        return max(sides) / min(sides)

    for count in range(n, 1, -1):
        shapes = [(columns, count // columns) for columns in range(count, 0, -1) if count % columns == 0]
        fitting = [shape for shape in shapes if width / shape[0] >= min_side <= height / shape[1]]
        if fitting:
            return min(fitting, key=longer)
    return 1, 1


DECOMPOSITIONS: dict[DecompositionName, Callable[[int, int, RegionConfig], Candidates]] = {
    "hybrid": _hybrid,
    "subdivide": _subdivide,
    "spiral": _spiral,
    "refine": _refine,
    "grid": _grid,
}
