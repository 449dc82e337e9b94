"""Why inputs were refused, counted."""

import re
from collections.abc import Iterable
from typing import Any

EMPTY = "empty"  # of a file or record that holds nothing: it is listed, but nothing is wrong with it
_NUMBER = re.compile(r"\d[\d,.]*")


def count_reasons(rows: Iterable[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return the reasons in rows of quarantine and how often each occurs, the most frequent first.

    Reasons that differ in numbers alone, of a column say, are one, as the first of them has it.
    """
    counts: dict[str, list[Any]] = {}
    for row in rows:
        counts.setdefault(_NUMBER.sub("N", row["reason"]), [row["reason"], 0])[1] += 1
    return sorted(((reason, count) for reason, count in counts.values()), key=lambda item: (-item[1], item[0]))
