"""Progress bars on stderr: lively on a terminal, a line every ten seconds in a log file."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(what: str, total: int, *, unit: str = "B", done: int = 0) -> Any:
    """Return a bar over `total` units, bytes with SI prefixes unless told otherwise; use as a context manager."""
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        dynamic_ncols=True,
        file=sys.stderr,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
    )
