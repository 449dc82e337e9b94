"""Bar charts as numbers: the template draws them as inline SVG, and knows no arithmetic but addition.

counts + labels -> bars, ticks, a line of the mean -> Chart
"""

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from bytropix.jobs.report.survey import Entropies, Lengths, in_groups
from bytropix.patching import QUANTA_PER_BIT

WIDTH, HEIGHT = 360, 190  # about the width of a phone, so that labels keep their size there
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 16, 36
# Bits where the next darker tint of a patch begins: finer where most text lies.
TINTS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
LONGEST_BAR = 40  # patch lengths with a bar of their own
SHORTEST_SPAN = 1 / 64  # seconds; what is shorter counts as this
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in units of the drawing, and what it says."""

    x: float
    y: float
    width: float
    height: float
    says: str
    tint: int = -1
    """Which tint of the passages it has; -1: none of them."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart."""

    title: str
    about: str
    """One line below it."""
    across: str
    """What the horizontal axis shows."""
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    """Places and labels below the bars."""
    lines: list[tuple[float, str]]
    """Heights and labels beside them."""
    mark: tuple[float, str] | None = None
    """Place and label of a dashed line."""


def frame() -> dict[str, int]:
    """Return what the template needs to know of the drawing."""
    drawing = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "top": TOP}
    return drawing | {"right": WIDTH - RIGHT, "base": HEIGHT - BOTTOM, "middle": WIDTH // 2}


def span_chart(title: str, seconds: Sequence[float], what: str) -> Chart:
    """Return videos or scenes by length, a bar a doubling.

    Args:
        title: What stands above it.
        seconds: Their lengths.
        what: What they are.
    """
    powers = [math.floor(math.log2(max(length, SHORTEST_SPAN))) for length in seconds]
    first, last = min(powers, default=0), max(powers, default=0)
    counts = [powers.count(power) for power in range(first, last + 1)]
    labels = [f"{span(2.0**power)} to {span(2.0 ** (power + 1))}" for power in range(first, last + 1)]
    step = _width(counts)
    every = -(-(len(counts) + 1) // 7)
    ticks = [(LEFT + k * step, span(2.0 ** (first + k))) for k in range(0, len(counts) + 1, every)]
    middle = math.log2(max(statistics.median(seconds), SHORTEST_SPAN)) - first if seconds else 0
    return Chart(
        title=title,
        about=f"{len(seconds):,} {what}, {span(sum(seconds))} in all; the longest has {span(max(seconds, default=0))}.",
        across="time, doubling",
        bars=_bars(counts, labels, what),
        ticks=ticks,
        lines=_lines(counts),
        mark=(LEFT + middle * step, f"median {span(statistics.median(seconds))}") if seconds else None,
    )


def span(seconds: float) -> str:
    """Return a time with a unit and two or three digits."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 or not seconds else f"{1000 * seconds:.3g} ms"


def document_chart(lengths: Lengths) -> Chart:
    """Return documents by length, a bar a doubling."""
    first = next((k for k, count in enumerate(lengths.doublings) if count), 0)
    counts = lengths.doublings[first:]
    edges = [1 << k for k in range(first, first + len(counts) + 1)]
    labels = [f"{size(low)} to {size(high)}" for low, high in pairwise(edges)]
    step = _width(counts)
    every = -(-len(edges) // 7)
    middle = math.log2(max(lengths.median, 1)) - first
    of = f", from {lengths.parts:,} of {lengths.of_parts:,} parts" if lengths.parts < lengths.of_parts else ""
    return Chart(
        title="Length of documents",
        about=f"{lengths.documents:,} documents{of}; the longest has {size(lengths.longest)}.",
        across="bytes, doubling",
        bars=_bars(counts, labels, "documents"),
        ticks=[(LEFT + k * step, size(edge)) for k, edge in enumerate(edges) if k % every == 0],
        lines=_lines(counts),
        mark=(LEFT + middle * step, f"median {size(round(lengths.median))}") if lengths.documents else None,
    )


def patch_chart(counts: Sequence[int], mean: float) -> Chart:
    """Return patches by length in bytes, the longest together."""
    longest = min(max(len(counts) - 1, 1), LONGEST_BAR)
    used = next((k for k in range(longest, 0, -1) if _total(counts[k:]) * 2000 >= _total(counts)), 1)
    shown = [*counts[1:used], _total(counts[used:])]
    more = len(counts) - 1 > used
    labels = [f"{k} bytes" for k in range(1, used)] + [f"{used} bytes{' or more' if more else ''}"]
    step = _width(shown)
    every = -(-used // 16)
    ticks = [(LEFT + (k - 0.5) * step, f"{k}{'+' if more and k == used else ''}") for k in range(1, used + 1)]
    return Chart(
        title="Length of patches",
        about=f"{_total(counts):,} patches; the longest has {len(counts) - 1:,} bytes.",
        across="bytes",
        bars=_bars(shown, labels, "patches"),
        ticks=[tick for k, tick in enumerate(ticks, 1) if k % every == 0],
        lines=_lines(shown),
        mark=(LEFT + min(mean - 0.5, used) * step, f"mean {mean:.2f}"),
    )


def entropy_chart(found: Entropies, n_bytes: int) -> Chart:
    """Return bytes by their entropy, four bars a bit."""
    quarter = QUANTA_PER_BIT // 4
    counts = in_groups(found.quanta, list(range(0, 256 + 1, quarter)))
    labels = [f"{k / 4:g} to {(k + 1) / 4:g} bits" for k in range(len(counts))]
    step = _width(counts)
    bars = _bars(counts, labels, "bytes")
    of = "all bytes" if found.n_bytes == n_bytes else f"a sample of {size(found.n_bytes)}"
    return Chart(
        title="Entropy of bytes",
        about=f"What the store's table expects of each byte, over {of}.",
        across="bits",
        bars=[replace(bar, tint=tint_of(k / 4)) for k, bar in enumerate(bars)],
        ticks=[(LEFT + 4 * bits * step, str(bits)) for bits in range(9)],
        lines=_lines(counts),
        mark=(LEFT + 4 * found.mean_bits * step, f"mean {found.mean_bits:.2f}"),
    )


def place_chart(found: Entropies) -> Chart:
    """Return the mean entropy at the first, second ... byte of a patch."""
    labels = [f"byte {k} of a patch" for k in range(1, len(found.by_place) + 1)]
    step = _width(found.by_place)
    top = max(1, math.ceil(max(found.by_place, default=0)))
    high = HEIGHT - TOP - BOTTOM
    bars = [
        Bar(
            LEFT + k * step,
            HEIGHT - BOTTOM - value / top * high,
            step,
            value / top * high,
            f"{label}: {value:.2f} bits",
        )
        for k, (value, label) in enumerate(zip(found.by_place, labels, strict=True))
    ]
    return Chart(
        title="Entropy within a patch",
        about="A patch should begin where something surprising may come.",
        across="place in the patch",
        bars=bars,
        ticks=[(LEFT + (k + 0.5) * step, str(k + 1)) for k in range(len(bars))],
        lines=[(HEIGHT - BOTTOM - bits / top * high, f"{bits} bit") for bits in range(1, top + 1)],
    )


def tint_of(bits: float) -> int:
    """Return the number of the tint of an entropy."""
    return bisect_right(TINTS, bits)


def size(n_bytes: float) -> str:
    """Return a number of bytes with a binary unit and three digits."""
    unit = 0
    while n_bytes >= 1024 and unit < len(UNITS) - 1:
        n_bytes, unit = n_bytes / 1024, unit + 1
    digits = 0 if n_bytes >= 100 or n_bytes == int(n_bytes) else 1 if n_bytes >= 10 else 2
    return f"{n_bytes:,.{digits}f} {UNITS[unit]}"


def percent(share: float) -> str:
    """Return a share in percent, never 0 % for what is there."""
    return "0 %" if not share else f"{share:.1%}".replace("%", " %") if share >= 0.001 else "< 0.1 %"


def _bars(counts: Sequence[int], labels: Sequence[str], what: str) -> list[Bar]:
    """Return bars over the whole width, the highest as high as the chart."""
    step, most, high = _width(counts), max(*counts, 1, 0), HEIGHT - TOP - BOTTOM
    total = max(_total(counts), 1)
    bars = []
    for k, (count, label) in enumerate(zip(counts, labels, strict=True)):
        height = max(count / most * high, 0.75 if count else 0)
        says = f"{label}: {count:,} {what}, {percent(count / total)}"
        bars.append(Bar(LEFT + k * step, HEIGHT - BOTTOM - height, step, height, says))
    return bars


def _lines(counts: Sequence[int]) -> list[tuple[float, str]]:
    """Return two or three heights with a round share of all."""
    most, total, high = max(*counts, 1, 0), max(_total(counts), 1), HEIGHT - TOP - BOTTOM
    top = most / total
    unit = next(step for step in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0) if 2 * step <= top) or top
    return [(HEIGHT - BOTTOM - k * unit / top * high, f"{100 * k * unit:g} %") for k in range(1, 4) if k * unit <= top]


def _width(bars: Sequence[float]) -> float:
    """Return the width of a bar with its gap."""
    return (WIDTH - LEFT - RIGHT) / max(len(bars), 1)


def _total(counts: Sequence[int]) -> int:
    return sum(counts)
