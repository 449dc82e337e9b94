"""What a benchmark reports, and how two things are timed against each other.

ours, baseline -> run in turns, `repeats` times each -> medians and the median of the ratios -> BenchRow -> table
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

Place = Literal["rows", "variants", "ratios", "not_installed"]
"""Under which key of the JSON a row stands."""
Clock = Literal["wall", "processor"]
"""What one core does is told in processor time, which other work on the machine disturbs less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchSettings:
    """What every benchmark is told.

    Attributes:
        repeats: Turns of each measurement; the median is reported.
        megabytes: 10**6 bytes of text to work on.
        data: A folder of files to measure on; None for what `bytropix.jobs.bench.corpus` finds.
        folder: An empty folder to work in.
        faults_page: Where the benchmark of faults writes its table.
        png: Where the benchmark of streams draws its table.
    """

    repeats: int
    megabytes: float
    data: Path | None
    folder: Path
    faults_page: Path | None = None
    png: Path | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a figure of a row is meant to keep, such as ("ratio", ">=", 0.8)."""

    figure: Literal["value", "ratio"]
    sign: Literal[">=", "<="]
    bound: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchRow:
    """One measured figure.

    Attributes:
        name: What was measured; the word before the colon is the benchmark.
        value: The median; None where it could not be measured, for the reason in `note`.
        unit: Of value and baseline, such as "MB/s" (10**6 bytes a second).
        baseline: The median of what it is compared with, from the same run; None where nothing is.
        ratio: The median over the turns of value / baseline.
        against: What the baseline is.
        targets: Bounds to keep.
        note: Sizes and other circumstances.
        detail: Whether the row belongs in the JSON only.
        figures: What else the JSON says of it, each under its own name.
        place: Where in the JSON it stands.
    """

    name: str
    value: float | None
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    against: str = ""
    targets: tuple[Target, ...] = ()
    note: str = ""
    detail: bool = False
    figures: dict[str, str | float | bool | None] = field(default_factory=dict)
    place: Place = "rows"

    def met(self, target: Target) -> bool:
        """Return whether a target is met; what was not measured is not met."""
        found = self.value if target.figure == "value" else self.ratio
        if found is None:
            return False
        return found >= target.bound if target.sign == ">=" else found <= target.bound


def table(row: BenchRow) -> str:
    """Return a row as one line of a table for people."""
    value = "-" if row.value is None else _short(row.value)
    against = "" if row.baseline is None else f"{_short(row.baseline)} by {row.against}"
    ratio = "" if row.ratio is None else f"{_short(row.ratio)}x"
    targets = ", ".join(
        f"{target.figure} {target.sign} {_short(target.bound)} {'met' if row.met(target) else 'NOT MET'}"
        for target in row.targets
    )
    line = f"{row.name:<48} {value:>9} {row.unit:<11} {ratio:>8}  {against:<42} {targets:<40} {row.note}"
    return line.rstrip()


def _short(value: float) -> str:
    """Return a figure with three digits that count."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def seconds(work: Callable[[], object], clock: Clock = "wall") -> float:
    """Return the time of one call, by the clock on the wall or in processor time of all threads."""
    now = time.perf_counter if clock == "wall" else time.process_time
    start = now()
    work()
    return now() - start


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One of two things timed against each other: what is called, and how much one call does (in the row's unit)."""

    work: Callable[[], object]
    amount: float


def against(
    name: str,
    unit: str,
    ours: Contender,
    baseline: Contender,
    repeats: int,
    *,
    called: str,
    clock: Clock = "wall",
    targets: tuple[Target, ...] = (),
    note: str = "",
) -> BenchRow:
    """Time two things in turns, after one unmeasured call each that compiles and warms caches.

    Args:
        name: What is measured.
        unit: Of the rates, such as "MB/s".
        ours: What is ours.
        baseline: What it is compared with.
        repeats: Turns, at least 1.
        called: What the baseline is.
        clock: How time is taken.
        targets: Bounds to keep.
        note: Circumstances.
    """
    ours.work()
    baseline.work()
    turns = [
        (ours.amount / seconds(ours.work, clock), baseline.amount / seconds(baseline.work, clock))
        for _ in range(repeats)
    ]
    return BenchRow(
        name=name,
        value=statistics.median(rate for rate, _ in turns),
        unit=unit,
        baseline=statistics.median(rate for _, rate in turns),
        ratio=statistics.median(rate / other for rate, other in turns),
        against=called,
        targets=targets,
        note=note,
    )


def alone(name: str, unit: str, ours: Contender, repeats: int, *, clock: Clock = "wall", note: str = "") -> BenchRow:
    """Time one thing: a call unmeasured, then the median rate of `repeats`."""
    ours.work()
    found = statistics.median(ours.amount / seconds(ours.work, clock) for _ in range(repeats))
    return BenchRow(name=name, value=found, unit=unit, note=note)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on `count` threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
