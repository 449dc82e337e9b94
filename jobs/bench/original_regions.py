"""The region maps that ours replace, written again after their description, for the bench and the tests alone.

frame size, count -> half of it rectangles by golden cuts, the largest kept -> the rest squares along a spiral -> boxes

The original does this anew for every frame of every batch, although nothing but the frame's size decides it, and calls
what it makes of the frame difference's size motion regions. Where it finds too few boxes it repeats the last.
"""

import math
from collections import deque

import numpy as np

GOLDEN = (1 + math.sqrt(5)) / 2
NEARLY = 1e-5
LEAST_SIDE = 5.0
DEEPEST = 6

Box = tuple[float, float, float, float]


def original_regions(width: int, height: int, n: int) -> list[Box]:
    """Return the `n` boxes of a frame, x0, y0, x1, y1 in pixels: the smaller half rectangles, the others squares."""
    first = n // 2
    boxes = rectangles(width, height, first) + squares(width, height, n - first)
    return [*boxes, *[boxes[-1]] * (n - len(boxes))]


def rectangles(width: int, height: int, n: int) -> list[Box]:
    """Return `n` rectangles, the frame and its largest parts."""
    if n == 0:
        return []
    found: list[Box] = [(0.0, 0.0, float(width), float(height))]
    waiting = deque([(0.0, 0.0, float(width), float(height), 0)])
    while waiting and len(found) < 3 * n:
        x, y, w, h, depth = waiting.popleft()
        if min(w, h) < LEAST_SIDE or depth > DEEPEST:
            continue
        if h > w + NEARLY:
            cut = h / GOLDEN
            pieces = [(x, y, w, cut), (x, y + cut, w, h - cut)]
        elif w > h + NEARLY or w > GOLDEN * LEAST_SIDE:
            cut = w / GOLDEN
            pieces = [(x, y, cut, h), (x + cut, y, w - cut, h)]
        else:
            continue
        for left, top, wide, tall in pieces:
            if min(wide, tall) >= LEAST_SIDE:
                found.append((left, top, left + wide, top + tall))
                waiting.append((left, top, wide, tall, depth + 1))
    distinct: dict[Box, Box] = {}
    for box in found:
        distinct.setdefault(rounded(box), box)
    largest = sorted(distinct.values(), key=_area, reverse=True)[:n]
    return [*largest, *[largest[-1]] * (n - len(largest))]


def squares(width: int, height: int, n: int) -> list[Box]:
    """Return `n` squares, one in the middle and the others along a spiral, clipped to the frame."""
    shorter, longer = min(width, height), max(width, height)
    points = [(width / 2, height / 2, 0.25)]
    for number in range(n - 1):
        angle = number * 2 * math.pi * GOLDEN / (n - 1)
        radius = min(0.05 * shorter * math.exp(math.log(GOLDEN) / (math.pi / 2) * angle), 0.6 * longer)
        x = min(max(width / 2 + radius * math.cos(angle), 0.0), float(width))
        y = min(max(height / 2 + radius * math.sin(angle), 0.0), float(height))
        points.append((x, y, max(0.05, 0.2 * math.exp(-0.5 * radius / (0.1 * shorter)))))
    boxes = []
    for x, y, scale in points[:n]:
        half = shorter * scale / 2
        left, top = min(max(x - half, 0.0), width - NEARLY), min(max(y - half, 0.0), height - NEARLY)
        right, bottom = max(min(x + half, float(width)), left + NEARLY), max(min(y + half, float(height)), top + NEARLY)
        boxes.append((left, top, right, bottom))
    return boxes


def rounded(box: Box) -> Box:
    """Return what tells the original's boxes apart."""
    x0, y0, x1, y1 = box
    return round(x0, 3), round(y0, 3), round(x1, 3), round(y1, 3)


def _area(box: Box) -> float:
    """Return the area of a box in the precision that decides the original's ties."""
    x0, y0, x1, y1 = (np.float32(side) for side in box)
    return float((x1 - x0) * (y1 - y0))
