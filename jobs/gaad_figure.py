"""The picture of region maps in docs/gaad.md: eight maps of one 16:9 frame, drawn from the code that makes them.

RegionConfig -> decompose -> boxes -> rectangles filled by depth, patches outlined -> docs/gaad.svg

python -m bytropix.jobs.gaad_figure docs/gaad.svg
"""

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bytropix.gaad import RegionConfig, SpiralConfig, decompose

WIDTH, HEIGHT = 224, 126  # of a frame, in units of the picture and in pixels
COLUMNS, GAP, CAPTION, MARGIN = 4, 16, 36, 12
RECTANGLE, PATCH, SOFT = "#b7791f", "#3b82c4", "#7d8590"

EVEN = SpiralConfig(angle="golden", radii="sunflower", metric="elliptic", patch="constant")
ARMS = SpiralConfig(arms=4, start_radius=0.1, patch="grow", metric="elliptic", boundary="drop")


@dataclass(frozen=True, slots=True)
class Panel:
    """One map of the picture."""

    title: str
    says: str
    config: RegionConfig


PANELS = (
    Panel("hybrid", "the default, and the original's", RegionConfig(regions=8)),
    Panel("leaves", "golden_cut", RegionConfig(regions=12, decomposition="subdivide", select="leaves")),
    Panel(
        "leaves",
        "square_remainder",
        RegionConfig(regions=12, decomposition="subdivide", select="leaves", rule="square_remainder"),
    ),
    Panel("multi_scale", "golden_cut", RegionConfig(regions=12, decomposition="subdivide", select="multi_scale")),
    Panel("spiral", "reference, shrinking", RegionConfig(regions=16, decomposition="spiral")),
    Panel("spiral", "golden, sunflower, elliptic", RegionConfig(regions=32, decomposition="spiral", spiral=EVEN)),
    Panel("spiral", "4 arms, growing, drop", RegionConfig(regions=24, decomposition="spiral", spiral=ARMS)),
    Panel("refine", "spirals inside rectangles", RegionConfig(regions=34, decomposition="refine")),
)


def svg() -> str:
    """Return the picture, the same every time."""
    rows = -(-len(PANELS) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP
    height = 2 * MARGIN + rows * (HEIGHT + CAPTION) + (rows - 1) * GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t d"'
        ' font-family="Helvetica, Arial, sans-serif" font-size="13">',
        '  <title id="t">Region maps of a 16:9 frame</title>',
        '  <desc id="d">Eight maps: rectangles by golden cuts, and patches along spirals.</desc>',
    ]
    for number, panel in enumerate(PANELS):
        row, column = divmod(number, COLUMNS)
        x, y = MARGIN + column * (WIDTH + GAP), MARGIN + row * (HEIGHT + CAPTION + GAP)
        lines += [f'  <g transform="translate({x} {y})">', *_drawn(panel), "  </g>"]
    return "\n".join([*lines, "</svg>", ""])


def _drawn(panel: Panel) -> list[str]:
    """Return the lines of one map."""
    regions = decompose(WIDTH, HEIGHT, panel.config)
    lines = [f'    <rect width="{WIDTH}" height="{HEIGHT}" fill="{SOFT}" fill-opacity=".08" stroke="{SOFT}"/>']
    for number, (x0, y0, x1, y1) in enumerate(regions.boxes[: regions.count].tolist()):
        colour = RECTANGLE if number < panel.config.rectangles else PATCH
        lines.append(
            f'    <rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"'
            f' fill="{colour}" fill-opacity=".14" stroke="{colour}"/>'
        )
    return [
        *lines,
        f'    <text y="{HEIGHT + 16}" fill="{SOFT}" font-weight="bold">{escape(panel.title)}</text>',
        f'    <text y="{HEIGHT + 31}" fill="{SOFT}" font-size="12">{escape(panel.says)}</text>',
    ]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(svg(), encoding="utf-8")
