"""Progress bars on stderr: lively on a terminal, a line every ten seconds in a log file."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tqdm import tqdm


def progress_bar(what: str, total: int, *, unit: str = "B", done: int = 0, leave: bool = True) -> Any:
    """Return a bar over `total` units, bytes with SI prefixes unless told otherwise; use as a context manager.

    Its last state stays on the screen unless told otherwise.
    """
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        dynamic_ncols=True,
        leave=leave,
        file=sys.stderr,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
    )


@contextmanager
def stage_bars(*, leave: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function of stage, done and total that draws one bar per stage, and another where one is begun again."""
    with ExitStack() as stack:
        bars: dict[str, Any] = {}  # the one that is drawn

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in bars or done < bars[stage].n:
                stack.close()
                bars.clear()
                unit = " documents" if stage == "clean" else "B"
                bars[stage] = stack.enter_context(progress_bar(f"{stage:<7}", total, unit=unit, leave=leave))
            bars[stage].update(done - bars[stage].n)

        yield progress
