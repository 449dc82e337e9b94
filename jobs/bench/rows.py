"""What a benchmark reports, and how two things are timed against each other.

ours, baseline -> run in turns, `repeats` times each -> medians and the median of the ratios -> BenchRow
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchRow:
    """One measured figure.

    Attributes:
        name: What was measured.
        value: The median.
        unit: Of value and baseline, such as "MB/s" (10**6 bytes a second).
        baseline: The median of what it is compared with, from the same run; None where nothing is.
        ratio: The median over the turns of value / baseline.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate_against(
    name: str,
    megabytes: float,
    ours: Callable[[], object],
    baseline: Callable[[], object],
    repeats: int,
    *,
    baseline_megabytes: float | None = None,
) -> BenchRow:
    """Time both in turns and return MB/s of each and their ratio.

    Args:
        name: What is measured.
        megabytes: 10**6 bytes that one call of `ours` works through.
        ours: Called once unmeasured, to compile and to warm caches, then `repeats` times.
        baseline: Likewise.
        repeats: Turns, at least 1.
        baseline_megabytes: As `megabytes`, where the baseline is too slow for the same amount.
    """
    other = megabytes if baseline_megabytes is None else baseline_megabytes
    ours()
    baseline()
    turns = [(megabytes / seconds(ours), other / seconds(baseline)) for _ in range(repeats)]
    return BenchRow(
        name=name,
        value=statistics.median(rate for rate, _ in turns),
        unit="MB/s",
        baseline=statistics.median(rate for _, rate in turns),
        ratio=statistics.median(rate / other_rate for rate, other_rate in turns),
    )


def rate(name: str, megabytes: float, work: Callable[[], object], repeats: int) -> BenchRow:
    """Time one thing alone: a call unmeasured, then the median of `repeats` in MB/s."""
    work()
    found = statistics.median(megabytes / seconds(work) for _ in range(repeats))
    return BenchRow(name=name, value=found, unit="MB/s")
