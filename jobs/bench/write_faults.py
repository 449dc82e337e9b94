"""Runs in which one call that writes fails, or is the last: every such call in turn.

    an undisturbed run -> how many calls write -> for each: the same run, in which that call meets a full disk,
                                                  a failing disk, or the end of the process -> as in `kills`

The calls are those to the system below Python: write, fsync, rename, link, mkdir. A write that fails has written half.
"""

import errno
import io
import os
import pathlib
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bytropix.jobs.bench.kills import Case, Trial, disturbed, undisturbed

KILL = 0
"""In place of an error number: the process ends at that call."""
TROUBLES = {errno.ENOSPC: "ENOSPC", errno.EIO: "EIO", KILL: "killed"}
CALLS = ("fsync", "replace", "rename", "link", "mkdir")


@dataclass(slots=True)
class Calls:
    """Calls that write below a folder, counted; one of them may fail."""

    folder: Path
    fails: int = -1
    """Number of the call that fails; none if negative."""
    trouble: int = KILL
    seen: list[str] = field(default_factory=list)
    """What each call was."""

    def meet(self, what: str, half: Callable[[], object] = lambda: None) -> None:
        """Count a call, and fail if it is its turn."""
        self.seen.append(what)
        if len(self.seen) - 1 != self.fails:
            return
        half()
        if self.trouble == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.trouble, os.strerror(self.trouble), str(self.folder))


class WatchedFile(io.FileIO):
    """A file whose writes are counted."""

    calls: Calls

    def write(self, data: Any) -> int:
        """Write, or write half of it and fail."""
        view = memoryview(data).cast("B")
        write = super().write
        self.calls.meet(f"write {Path(str(self.name)).name}", lambda: write(view[: len(view) // 2]))
        return write(view)


@contextmanager
def watched(calls: Calls) -> Iterator[Calls]:
    """Count the calls of this process that write."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(pathlib.Path, "open", _method(_open, calls, pathlib.Path.open)))
        for name in CALLS:
            stack.enter_context(patch.object(os, name, partial(_call, calls, name, getattr(os, name))))
        yield calls


def fail_at_calls(case: Case, folder: Path, most: int, seed: int) -> list[Trial]:
    """Let every call that writes fail in every way, or `most` of those trials, spread from the first call to the last.

    Args:
        case: What to do.
        folder: An empty folder to work in.
        most: How many trials at most.
        seed: Of the ways in which they fail.
    """
    whole = undisturbed(case, folder)
    calls = Calls(folder)
    undisturbed(replace(case, operation=partial(_counted, calls, case.operation)), folder)
    trials = [(number, trouble) for number in range(len(calls.seen)) for trouble in TROUBLES]
    if len(trials) > most:
        generator = random.Random(seed)
        numbers = [round(number * (len(calls.seen) - 1) / max(1, most - 1)) for number in range(most)]
        trials = [(number, generator.choice(list(TROUBLES))) for number in numbers]
    return [
        disturbed(
            case,
            whole,
            folder,
            f"call {number}, {calls.seen[number]}: {TROUBLES[trouble]}",
            trouble=partial(_failing, folder, number, trouble),
        )
        for number, trouble in trials
    ]


def _failing(folder: Path, number: int, trouble: int) -> AbstractContextManager[Calls]:
    return watched(Calls(folder, number, trouble))


def _counted(calls: Calls, operation: Callable[[Path], None], place: Path) -> None:
    """Do an operation and count its calls, of which the first run knows."""
    found = Calls(calls.folder)
    with watched(found):
        operation(place)
    calls.seen = found.seen


def _method(function: Callable[..., Any], *first: Any) -> Callable[..., Any]:
    """Return a function that takes `self` after some arguments."""

    def method(self: Any, *rest: Any, **named: Any) -> Any:
        return function(*first, self, *rest, **named)

    return method


def _open(calls: Calls, plain: Callable[..., Any], path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
    """Open a file; one that is written to is watched."""
    if mode not in ("wb", "xb"):
        return plain(path, mode, *rest, **named)
    raw = WatchedFile(path, mode)
    raw.calls = calls
    return io.BufferedWriter(raw)


def _call(calls: Calls, name: str, plain: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Make a call to the system, or fail."""
    paths = [Path(argument).name for argument in arguments if isinstance(argument, str | os.PathLike)]
    calls.meet(" ".join([name, *paths[-1:]]))
    return plain(*arguments, **named)
