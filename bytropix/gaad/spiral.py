"""Patches along a golden spiral: small squares, in the middle of a frame or of each of many rectangles.

rectangles, counts -> the centre and the steps along the arms -> radius, angle -> point -> square, clipped -> Patches

The centre has the first patch; the others are dealt to the arms in turn. All of it is arrays: one frame or a thousand
rectangles are one call.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytropix.gaad.config import GOLDEN, SpiralConfig

QUARTER = np.pi / 2
GOLDEN_ANGLE = 2 * np.pi * (1 - 1 / GOLDEN)
SWEEP = 2 * np.pi * GOLDEN  # what an arm turns in all, with angle `reference`

ON_BORDER = 1e-6  # pixels: sine and cosine may differ in their last digit between processors, the maps may not

CENTRE_SCALE = 0.25
SHRINK_SCALE, SHRINK_RATE, LEAST_SCALE = 0.2, 5.0, 0.05
GROW_RATE, GREATEST_SCALE = 0.5, 0.5
CONSTANT_SCALE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Patches:
    """Squares along spirals, those of the first rectangle first.

    Attributes:
        boxes: f64 (n, 4), x0, y0, x1, y1 in pixels, clipped to their rectangle.
        inside: bool (n,), False for what boundary `drop` leaves out; its box means nothing.
        radius: f64 (n,), pixels from the centre, before stretching and before points are moved to the border.
        angle: f64 (n,), radians.
        scale: f64 (n,), side before clipping, as a share of the rectangle's shorter side.
    """

    boxes: NDArray[np.float64]
    inside: NDArray[np.bool_]
    radius: NDArray[np.float64]
    angle: NDArray[np.float64]
    scale: NDArray[np.float64]


def spiral_patches(
    rectangles: NDArray[np.float64],
    counts: NDArray[np.int64],
    options: SpiralConfig,
    centres: NDArray[np.float64] | None = None,
) -> Patches:
    """Return the patches of one spiral in each rectangle.

    Args:
        rectangles: f64 (k, 4), x0, y0, x1, y1 in pixels, with sides above 0.
        counts: i64 (k,), patches of each, at least 0.
        options: Where they lie and how large they are.
        centres: f64 (k, 2), x, y of each spiral's centre, inside its rectangle; None: the rectangle's middle.
    """
    low, high = rectangles[:, :2], rectangles[:, 2:]
    owner = np.repeat(np.arange(counts.size), counts)
    along = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts) - 1  # -1: the centre's patch
    sides = (high - low)[owner]
    shorter, longer = sides.min(1), sides.max(1)

    radius, angle = _polar(along, (counts - 1)[owner], shorter, longer, options)
    stretch = sides / shorter[:, None] if options.metric == "elliptic" else np.ones_like(sides)
    middle = ((low + high) / 2 if centres is None else centres)[owner]
    points = middle + radius[:, None] * stretch * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inside = ((points > low[owner] - ON_BORDER) & (points < high[owner] + ON_BORDER)).all(1)
    points = _bounded(points, low[owner], high[owner], options)

    scale = _scales(along, radius / shorter, options)
    half = (shorter * scale / 2)[:, None]
    boxes = np.concatenate([np.maximum(points - half, low[owner]), np.minimum(points + half, high[owner])], axis=1)
    return Patches(
        boxes=boxes,
        inside=inside if options.boundary == "drop" else np.ones_like(inside),
        radius=radius,
        angle=angle,
        scale=scale,
    )


def _polar(
    along: NDArray[np.int64],
    others: NDArray[np.int64],
    shorter: NDArray[np.float64],
    longer: NDArray[np.float64],
    options: SpiralConfig,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return radius and angle of each patch; `others` is how many its spiral has besides the centre's."""
    centre = along < 0
    step, arm = np.divmod(np.maximum(along, 0), options.arms)
    steps = np.maximum(-(-others // options.arms), 1)  # on the longest arm
    swept = step * (SWEEP / steps)
    angle = swept if options.angle == "reference" else step * GOLDEN_ANGLE
    angle = angle + arm * (2 * np.pi / options.arms)
    greatest = options.greatest_radius * (shorter if options.metric == "elliptic" else longer)
    if options.radii == "log":
        # The radius follows the turn of the reference arm whatever the angles are, so that both reach the same end.
        radius = options.start_radius * shorter * options.growth ** (swept / QUARTER)
    else:
        radius = shorter / 2 * np.sqrt((step + 0.5) / steps)
    return np.where(centre, 0.0, np.minimum(radius, greatest)), np.where(centre, 0.0, angle)


def _bounded(
    points: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], options: SpiralConfig
) -> NDArray[np.float64]:
    """Return the points moved into their rectangles."""
    if options.boundary == "reflect":
        side = high - low
        folded = np.mod(points - low, 2 * side)
        points = low + np.minimum(folded, 2 * side - folded)
    return np.clip(points, low, high)


def _scales(along: NDArray[np.int64], radius: NDArray[np.float64], options: SpiralConfig) -> NDArray[np.float64]:
    """Return the side of each patch as a share of the shorter side, from its radius as such a share."""
    if options.patch == "constant":
        return np.full(radius.shape, CONSTANT_SCALE)
    if options.patch == "grow":
        return np.clip(GROW_RATE * radius, LEAST_SCALE, GREATEST_SCALE)
    shrunk = np.maximum(SHRINK_SCALE * np.exp(-SHRINK_RATE * radius), LEAST_SCALE)
    return np.where(along < 0, CENTRE_SCALE, shrunk)
