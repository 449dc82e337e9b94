"""The regions of one frame size: boxes with what is known of each, padded to an exact count.

rectangles, patches (f64) -> without doubles -> valid ones first, padding after -> Regions (f32, read-only)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_PARENT = -1
SAME_DIGITS = 3  # boxes that agree to a thousandth of a pixel are the same box


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Regions:
    """A map of `n` regions. Valid regions come first; padding has the box 0, 0, 0, 0 and zeros elsewhere.

    Attributes:
        boxes: f32 (n, 4), x0, y0, x1, y1 in pixels of the frame.
        depth: i16 (n,), how many cuts made a rectangle: 0 for the whole frame. A patch of a spiral has 0, inside a
            rectangle one more than the rectangle.
        parent: i16 (n,), the nearest region of this map that a region was cut from or put into; -1 where there is none.
        valid: bool (n,), False for padding.
        radius: f32 (n,), pixels from the centre of the spiral to the patch, before stretching; 0 for a rectangle.
        angle: f32 (n,), radians from the x axis towards the y axis (downwards), whole turns counted on; 0 for a
            rectangle.
        scale: f32 (n,), side of a patch as a share of the shorter side of the frame, or rectangle, that its spiral
            lies in, before clipping; of a rectangle, the square root of its share of the frame.
    """

    boxes: NDArray[np.float32]
    depth: NDArray[np.int16]
    parent: NDArray[np.int16]
    valid: NDArray[np.bool_]
    radius: NDArray[np.float32]
    angle: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def count(self) -> int:
        """How many regions are valid."""
        return int(self.valid.sum())

    def normalized(self, width: int, height: int) -> NDArray[np.float32]:
        """Return the boxes, f32 (n, 4), as shares of a frame of this size: 0 to 1."""
        size: NDArray[np.float32] = np.array([width, height, width, height], dtype=np.float32)
        shares: NDArray[np.float32] = np.divide(self.boxes, size)
        return shares


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """Regions before they are settled: as many as there are, in f64, some of them perhaps not usable.

    Attributes:
        boxes: f64 (k, 4).
        depth: i64 (k,).
        parent: i64 (k,), which rectangle each was cut from or put into, -1 for none; rectangles come first.
        usable: bool (k,), False for a patch that was dropped.
        radius: f64 (k,).
        angle: f64 (k,).
        scale: f64 (k,).
    """

    boxes: NDArray[np.float64]
    depth: NDArray[np.int64]
    parent: NDArray[np.int64]
    usable: NDArray[np.bool_]
    radius: NDArray[np.float64]
    angle: NDArray[np.float64]
    scale: NDArray[np.float64]


def joined(first: Candidates, second: Candidates) -> Candidates:
    """Return the candidates of both; the parents of `second` are numbers within the result already."""
    return Candidates(
        boxes=np.concatenate([first.boxes, second.boxes]),
        depth=np.concatenate([first.depth, second.depth]),
        parent=np.concatenate([first.parent, second.parent]),
        usable=np.concatenate([first.usable, second.usable]),
        radius=np.concatenate([first.radius, second.radius]),
        angle=np.concatenate([first.angle, second.angle]),
        scale=np.concatenate([first.scale, second.scale]),
    )


def settled(candidates: Candidates, n: int) -> Regions:
    """Return exactly `n` regions of at most `n` candidates: no box twice, valid ones first, the rest padding."""
    kept = _kept(candidates)  # rectangles come before patches and no two are alike, so that parents keep their numbers
    return Regions(
        boxes=_padded(candidates.boxes[kept], n, np.float32),
        depth=_padded(candidates.depth[kept], n, np.int16),
        parent=_padded(candidates.parent[kept], n, np.int16, filling=NO_PARENT),
        valid=_padded(np.ones(kept.size), n, np.bool_),
        radius=_padded(candidates.radius[kept], n, np.float32),
        angle=_padded(candidates.angle[kept], n, np.float32),
        scale=_padded(candidates.scale[kept], n, np.float32),
    )


def _kept(candidates: Candidates) -> NDArray[np.int64]:
    """Return the numbers of the usable candidates, without those whose box an earlier one has."""
    seen: set[tuple[float, ...]] = set()
    kept = []
    stored = candidates.boxes.astype(np.float32)  # which on wide frames tells less than a thousandth of a pixel
    for number, (box, usable) in enumerate(
        zip(stored.round(SAME_DIGITS).tolist(), candidates.usable.tolist(), strict=True)
    ):
        if usable and tuple(box) not in seen:
            seen.add(tuple(box))
            kept.append(number)
    return np.array(kept, dtype=np.int64)


def _padded(values: NDArray[Any], n: int, dtype: type[np.generic], *, filling: int = 0) -> NDArray[Any]:
    """Return `n` rows, the first of them `values`, which can not be written to."""
    rows = np.full((n, *values.shape[1:]), filling, dtype=dtype)
    rows[: len(values)] = values
    rows.flags.writeable = False
    return rows
