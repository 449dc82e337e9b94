"""Patches along a golden spiral: small squares, in the middle of a frame or of each of many rectangles.

rectangles, counts -> the centre and the steps along the arms -> radius, angle -> point -> square, clipped -> Patches

The centre has the first patch; the others are dealt to the arms in turn. All of it is arrays: one frame or a thousand
rectangles are one call.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytropix.gaad.config import GOLDEN, PatchName, SpiralConfig

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
    owner = np.arange(counts.size).repeat(counts)
    along = np.arange(owner.size) - (counts.cumsum() - counts + 1)[owner]  # -1: the centre's patch
    low, high = rectangles[owner, :2], rectangles[owner, 2:]
    sides = high - low
    shorter, longer = np.minimum(sides[:, 0], sides[:, 1]), np.maximum(sides[:, 0], sides[:, 1])
    centre = along < 0
    radius, angle = _polar(along, (counts - 1)[owner], shorter, longer, options)
    radius[centre] = angle[centre] = 0

    away = np.empty_like(sides)
    away[:, 0], away[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    if options.metric == "elliptic":
        away *= sides / shorter[:, None]
    points = away + ((low + high) / 2 if centres is None else centres[owner])
    inside: NDArray[np.bool_] = np.ones(owner.size, dtype=np.bool_)
    if options.boundary == "drop":
        within = (points > low - ON_BORDER) & (points < high + ON_BORDER)
        inside = within[:, 0] & within[:, 1]
    elif options.boundary == "reflect":
        folded = np.mod(points - low, 2 * sides)
        points = low + np.minimum(folded, 2 * sides - folded)
    points = np.minimum(np.maximum(points, low), high)

    scale = SCALES[options.patch](radius / shorter)
    if options.patch == "shrink":
        scale[centre] = CENTRE_SCALE
    half = (shorter * scale / 2)[:, None]
    boxes = np.empty((owner.size, 4))
    np.maximum(points - half, low, out=boxes[:, :2])
    np.minimum(points + half, high, out=boxes[:, 2:])
    return Patches(boxes=boxes, inside=inside, radius=radius, angle=angle, scale=scale)


def _polar(
    along: NDArray[np.int64],
    others: NDArray[np.int64],
    shorter: NDArray[np.float64],
    longer: NDArray[np.float64],
    options: SpiralConfig,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return radius and angle of each patch but the centre's; `others` is how many its spiral has of them."""
    step, arm = np.divmod(along, options.arms)
    steps = np.maximum(-(-others // options.arms), 1)  # on the longest arm
    swept = step * (SWEEP / steps)
    angle = swept if options.angle == "reference" else step * GOLDEN_ANGLE
    angle = angle + arm * (2 * np.pi / options.arms)
    greatest = options.greatest_radius * (shorter if options.metric == "elliptic" else longer)
    radius: NDArray[np.float64]
    if options.radii == "log":
        # The radius follows the turn of the reference arm whatever the angles are, so that both reach the same end.
        radius = options.start_radius * shorter * options.growth ** (swept / QUARTER)
    else:
        radius = shorter / 2 * np.sqrt(np.abs(step + 0.5) / steps)
    return np.minimum(radius, greatest, dtype=np.float64), angle


def _shrinking(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(SHRINK_SCALE * np.exp(-SHRINK_RATE * radius), LEAST_SCALE)


def _growing(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(np.maximum(GROW_RATE * radius, LEAST_SCALE), GREATEST_SCALE)


def _constant(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(radius.shape, CONSTANT_SCALE)


# Side of a patch from its radius, both as shares of the shorter side.
SCALES: dict[PatchName, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "shrink": _shrinking,
    "grow": _growing,
    "constant": _constant,
}
