"""The table of loaders as a picture.

rows of loaders -> bars of rows a second, bars of processor time a row, both on axes of tenfold steps -> PNG
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bytropix.jobs.bench.rows import BenchRow

FINE = 2  # pixels a unit: sharp on fine screens
WIDTH, LEFT, GAP, RIGHT = 1200, 170, 110, 90
TOP, ROW, BAR, BOTTOM = 132, 40, 22, 64
PAPER, INK, SOFT, GRID = "#fbfaf7", "#25231f", "#6a665e", "#e4e0d7"
OURS, OTHERS = "#2f6f73", "#b9b4a8"


@dataclass(frozen=True, slots=True)
class _Panel:
    """One set of bars: where it lies, in units, and what the ends of its axis are, as powers of ten."""

    figure: str
    title: str
    left: int
    right: int
    low: int
    high: int

    def x(self, value: float) -> float:
        """Return the place of a value."""
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return self.left + min(max(part, 0), 1) * (self.right - self.left)


def draw(rows: Sequence[BenchRow], path: Path, about: str) -> None:
    """Write a PNG of the loaders' rows, in their order; `about` says below the title how they were measured."""
    middle = (LEFT + WIDTH) // 2
    panels = [
        _panel(rows, "samples_per_s", "rows a second (longer is better)", LEFT, middle - GAP // 2),
        _panel(
            rows, "cpu_us_per_sample", "microseconds of processor a row (shorter is better)", middle + GAP // 2, WIDTH
        ),
    ]
    height = TOP + ROW * len(rows) + BOTTOM
    image = Image.new("RGB", (FINE * WIDTH, FINE * height), PAPER)
    pen = ImageDraw.Draw(image)
    _say(pen, 24, 34, "Shuffled 4 KiB rows: bytropix beside other loaders", size=24)
    _say(pen, 24, 66, about, size=15, color=SOFT)
    for panel in panels:
        _axis(pen, panel, height - BOTTOM + 4)
        for number, row in enumerate(rows):
            _bar(pen, panel, row, TOP + number * ROW)
    for number, row in enumerate(rows):
        y = TOP + number * ROW + ROW // 2
        _say(pen, LEFT - 12, y, str(row.figures["loader"]), size=16, anchor="rm", color=_ink(row))
    _say(
        pen,
        24,
        height - 22,
        "Axes in steps of ten. Each loader in its own process; medians of turns.",
        size=13,
        color=SOFT,
    )
    kept = io.BytesIO()
    image.save(kept, "PNG", optimize=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(kept.getvalue())
    beside.replace(path)


def _panel(rows: Sequence[BenchRow], figure: str, title: str, left: int, right: int) -> _Panel:
    """Return a panel whose axis begins at a power of ten below all values, at least a fifth of a step below."""
    found = [max(_value(row, figure), 1e-3) for row in rows]
    low = math.floor(math.log10(min(found)) - 0.2)
    return _Panel(figure, title, left, right - RIGHT, low, max(low + 1, math.ceil(math.log10(max(found)))))


def _axis(pen: ImageDraw.ImageDraw, panel: _Panel, bottom: int) -> None:
    _say(pen, panel.left, TOP - 34, panel.title, size=16)
    for power in range(panel.low, panel.high + 1):
        x = panel.x(10.0**power)
        pen.line([(FINE * x, FINE * (TOP - 8)), (FINE * x, FINE * bottom)], fill=GRID, width=FINE)
        _say(pen, x, bottom + 12, short(10.0**power), size=13, color=SOFT, anchor="mm")


def _bar(pen: ImageDraw.ImageDraw, panel: _Panel, row: BenchRow, top: int) -> None:
    value = _value(row, panel.figure)
    above, below = top + (ROW - BAR) // 2, top + (ROW + BAR) // 2
    end = max(panel.x(value), panel.left + 1)
    color = OURS if _is_ours(row) else OTHERS
    pen.rectangle([(FINE * panel.left, FINE * above), (FINE * end, FINE * below)], fill=color)
    _say(pen, end + 8, (above + below) / 2, short(value), size=15, color=_ink(row))


def _say(
    pen: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int, color: str = INK, anchor: str = "lm"
) -> None:
    pen.text((FINE * x, FINE * y), text, fill=color, font=ImageFont.load_default(FINE * size), anchor=anchor)


def _ink(row: BenchRow) -> str:
    return INK if _is_ours(row) else SOFT


def _is_ours(row: BenchRow) -> bool:
    return str(row.figures["loader"]).startswith("bytropix")


def _value(row: BenchRow, figure: str) -> float:
    value = row.figures[figure]
    return float(value) if isinstance(value, int | float) else 0.0


def short(value: float) -> str:
    """Return a figure for people: 242k, 3.7k, 12, 0.8."""
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 1e3:
        return f"{value / 1e3:.3g}k"
    return f"{value:.3g}"
