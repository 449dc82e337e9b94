"""How often a harmed store was met in which way.

outcomes -> Tally -> words, rows
"""

from collections import Counter
from typing import Literal

from bytropix.jobs.bench.rows import BenchRow, Target
from bytropix.jobs.bench.victim import LAYOUTS

Outcome = Literal["named", "left out", "unused", "older", "wrong"]
Tally = dict[str, dict[str, Counter[Outcome]]]
"""By kind of fault and layout, how often there was which outcome."""

WORDS: dict[Outcome, str] = {
    "named": "named",
    "left out": "left out",
    "unused": "unused",
    "older": "older",
    "wrong": "WRONG",
}


def told(found: Counter[Outcome]) -> str:
    """Return how often there was which outcome, in words."""
    return ", ".join(f"{found[outcome]} {words}" for outcome, words in WORDS.items() if found[outcome])


def rows_of(tally: Tally, failures: list[str]) -> list[BenchRow]:
    """Return a row for each layout, one for each kind of fault there in the JSON alone, and one for each failure."""
    rows = []
    for layout in LAYOUTS:
        kinds = {kind: found[layout] for kind, found in tally.items() if layout in found}
        rows.append(_row(layout, sum(kinds.values(), Counter[Outcome]()), detail=False))
        rows += [_row(f"{layout}, {kind}", found, detail=True) for kind, found in kinds.items()]
    return rows + [BenchRow(name="faults: WRONG", value=1, unit="fault", note=line) for line in failures]


def _row(name: str, found: Counter[Outcome], *, detail: bool) -> BenchRow:
    return BenchRow(
        name=f"faults: {name}",
        value=found["wrong"],
        unit="wrong",
        targets=(Target("value", "<=", 0),),
        note=f"of {found.total()} faults: {told(found)}",
        detail=detail,
    )
