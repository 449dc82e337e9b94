"""Golden subdivision: a frame cut into rectangles, again and again, and which of them are kept.

frame -> the next rectangle to divide (in line, or the largest) -> cut by the rule -> two more -> ... -> selection

A cut that would leave a part below the least side is not made, so that the parts of a rectangle always tile it. Only
selection `largest` is exactly the rule it is named after in the original and takes the larger part alone then.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bytropix.gaad.config import GOLDEN, RuleName, SelectName
from bytropix.gaad.regions import NO_PARENT, Candidates

DEEPEST = 7  # cuts that made the smallest rectangle, in `largest`
SURPLUS = 3  # `largest` chooses among this many times the wanted count
SQUARE = 1e-5  # sides that differ by less, in pixels, are equal
_AREA_DIGITS = 3  # areas that agree to these digits, in square pixels, tie


class Rectangle(NamedTuple):
    """One rectangle: its corner and sides in pixels, the number of cuts that made it, and the one it was cut from."""

    x: float
    y: float
    width: float
    height: float
    depth: int
    parent: int

    @property
    def area(self) -> float:
        """Its area in square pixels."""
        return self.width * self.height

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Its corners: x0, y0, x1, y1."""
        return self.x, self.y, self.x + self.width, self.y + self.height


class Cut(NamedTuple):
    """A cut that can be made: across the width or the height, where, and whether it waits for all that do not."""

    upright: bool
    at: float
    late: bool


def golden_cut(width: float, height: float, min_side: float) -> Cut:
    """Return the cut across the longer side at 0.618 of it; a square's is upright."""
    upright = width > height - SQUARE
    return Cut(upright, (width if upright else height) / GOLDEN, late=False)


def square_remainder(width: float, height: float, min_side: float) -> Cut:
    """Return the cut that takes a square off.

    What is a square already, or would leave less than `min_side`, is cut golden, after everything that is not.
    """
    if abs(width - height) >= min_side:
        return Cut(width > height, min(width, height), late=False)
    return golden_cut(width, height, min_side)._replace(late=True)


RULES: dict[RuleName, Callable[[float, float, float], Cut]] = {
    "golden_cut": golden_cut,
    "square_remainder": square_remainder,
}


def parts(rectangle: Rectangle, number: int, cut: Cut) -> tuple[Rectangle, Rectangle]:
    """Return both parts of rectangle `number`: left or upper first."""
    x, y, width, height, depth, _ = rectangle
    upright, at, _ = cut
    depth += 1
    if upright:
        return Rectangle(x, y, at, height, depth, number), Rectangle(x + at, y, width - at, height, depth, number)
    return Rectangle(x, y, width, at, depth, number), Rectangle(x, y + at, width, height - at, depth, number)


def grow(
    width: float,
    height: float,
    rule: RuleName,
    min_side: float,
    *,
    deepest: int,
    enough: int,
    by_area: bool = False,
    alone: bool = False,
) -> tuple[list[Rectangle], list[bool]]:
    """Divide a frame until there are `enough` rectangles, or nothing can be divided.

    Args:
        width: Of the frame, in pixels.
        height: Of the frame, in pixels.
        rule: How a rectangle is cut.
        min_side: Least side of a part, in pixels.
        deepest: Most cuts that make a rectangle.
        enough: Where to stop; the last cut may exceed it by one.
        by_area: Divide the largest undivided rectangle next (ties: the upper, then the left one), not the oldest.
        alone: Take the larger part also where the smaller one would be too small.

    Returns:
        The rectangles in the order they were made, the frame first, and whether each was divided.
    """
    cut_of = RULES[rule]
    rectangles = [Rectangle(0.0, 0.0, float(width), float(height), 0, NO_PARENT)]
    divided = [False]
    # Late or not, what goes first among these, and the number, which says what is oldest.
    waiting: list[tuple[bool, float, float, float, int]] = [(False, 0.0, 0.0, 0.0, 0)]
    while waiting and len(rectangles) < enough:
        entry = heapq.heappop(waiting)
        number = entry[-1]
        parent = rectangles[number]
        cut = cut_of(parent.width, parent.height, min_side)
        if cut.late and not entry[0]:
            heapq.heappush(waiting, (True, *entry[1:]))
            continue
        fitting = [part for part in parts(parent, number, cut) if part.width >= min_side <= part.height]
        if len(fitting) == 2 or alone:
            divided[number] = bool(fitting)
            for part in fitting:
                if part.depth < deepest:
                    first = (-round(part.area, _AREA_DIGITS), part.y, part.x) if by_area else (0.0, 0.0, 0.0)
                    heapq.heappush(waiting, (False, *first, len(rectangles)))
                rectangles.append(part)
                divided.append(False)
    return rectangles, divided


def subdivide(
    width: int, height: int, n: int, *, rule: RuleName, select: SelectName, full_frame: bool, min_side: float
) -> Candidates:
    """Return at most `n` rectangles of a frame, fewer where its size yields no more.

    Args:
        width: Of the frame, in pixels.
        height: Of the frame, in pixels.
        n: Most rectangles, at least 0.
        rule: How a rectangle is cut.
        select: Which rectangles are kept. `largest` sorts by area and `leaves` too; the others keep coarse before fine.
        full_frame: Whether the frame itself may be among them. Where nothing can be cut, it always is.
        min_side: Least side of a rectangle, in pixels.
    """
    frame = Rectangle(0.0, 0.0, float(width), float(height), 0, NO_PARENT)
    if n == 0:
        return _chosen([frame], [])
    found = SELECTIONS[select](width, height, n, rule, 0 if full_frame else 1, min_side)
    return found if len(found.boxes) else _chosen([frame], [0])


def _largest(width: int, height: int, n: int, rule: RuleName, first: int, min_side: float) -> Candidates:
    """Return the largest of three times as many rectangles, as the original does; the older of equal ones first."""
    rectangles, _ = grow(width, height, rule, min_side, deepest=DEEPEST, enough=SURPLUS * n, alone=True)
    corners = np.array([found.box for found in rectangles[first:]], dtype=np.float32).reshape(-1, 4)
    sides = corners[:, 2:] - corners[:, :2]  # equal areas differ by rounding: in the original's precision
    order = (-sides[:, 0] * sides[:, 1]).argsort(kind="stable") + first
    return _chosen(rectangles, order[:n].tolist())


def _leaves(width: int, height: int, n: int, rule: RuleName, first: int, min_side: float) -> Candidates:
    """Return a tiling: always the largest rectangle is divided, until there are n."""
    rectangles, divided = grow(width, height, rule, min_side, deepest=n, enough=2 * n - 1, by_area=True)
    leaves = (number for number in range(len(rectangles)) if not divided[number])
    return _chosen(rectangles, sorted(leaves, key=lambda number: -round(rectangles[number].area, _AREA_DIGITS)))


def _breadth_first(width: int, height: int, n: int, rule: RuleName, first: int, min_side: float) -> Candidates:
    """Return the frame, its parts, the parts of these, and so on."""
    rectangles, _ = grow(width, height, rule, min_side, deepest=n, enough=n + first)
    return _chosen(rectangles, range(first, min(n + first, len(rectangles))))


def _multi_scale(width: int, height: int, n: int, rule: RuleName, first: int, min_side: float) -> Candidates:
    """Return as many rectangles of each depth as there are, spread over the frame; coarse depths have few.

    A depth is twice as rich as the one above it: the depths reach one further than n rectangles would need.
    """
    deepest = 1 + math.floor(math.log2(n))
    rectangles, _ = grow(width, height, rule, min_side, deepest=deepest, enough=2 << deepest)
    by_depth = [
        [number for number, found in enumerate(rectangles) if found.depth == depth]
        for depth in range(first, deepest + 1)
    ]
    shares = [0] * len(by_depth)
    left = min(n, sum(len(numbers) for numbers in by_depth))
    while left:  # deal one to each depth in turn that still has some
        for level, numbers in enumerate(by_depth):
            if left and shares[level] < len(numbers):
                shares[level] += 1
                left -= 1
    return _chosen(
        rectangles,
        [
            numbers[(2 * k + 1) * len(numbers) // (2 * share)]
            for numbers, share in zip(by_depth, shares, strict=True)
            for k in range(share)
        ],
    )


SELECTIONS: dict[SelectName, Callable[[int, int, int, RuleName, int, float], Candidates]] = {
    "largest": _largest,
    "leaves": _leaves,
    "breadth_first": _breadth_first,
    "multi_scale": _multi_scale,
}


def _chosen(rectangles: list[Rectangle], numbers: Sequence[int]) -> Candidates:
    """Return the rectangles of these numbers; the parent of each is its nearest ancestor among them."""
    place = {number: k for k, number in enumerate(numbers)}
    parents = []
    for number in numbers:
        above = rectangles[number].parent
        while above != NO_PARENT and above not in place:
            above = rectangles[above].parent
        parents.append(place.get(above, NO_PARENT))
    found = [rectangles[number] for number in numbers]
    nothing = np.zeros(len(found))
    return Candidates(
        boxes=np.array([one.box for one in found]).reshape(-1, 4),
        depth=np.array([one.depth for one in found], dtype=np.int64),
        parent=np.array(parents, dtype=np.int64),
        usable=np.ones(len(found), dtype=np.bool_),
        radius=nothing,
        angle=nothing,
        scale=np.sqrt([one.area / rectangles[0].area for one in found]),
    )
