"""What workers do in the tests of runners, and what waits for it; the folder of this file is put on their path."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import SourceError


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task of a test."""

    number: int
    folder: Path = Path()
    """Where it leaves notes."""
    seconds: float = 0.0
    waits_for: str = ""
    """A note without which it does not end."""
    deadly: int = 0
    """How many workers it kills."""
    load: NDArray[np.uint8] | None = None

    def __str__(self) -> str:
        return f"job {self.number}"


def square(job: Job) -> int:
    """Return the square of the job's number."""
    time.sleep(job.seconds)
    return job.number**2


def weigh(job: Job) -> int:
    """Return the sum of the load."""
    return 0 if job.load is None else int(job.load.sum())


def refuse_seven(job: Job) -> int:
    """Fail as a source does, at job 7, and count how often that was."""
    if job.number == 7:
        with (job.folder / "refused").open("a") as file:
            file.write("x")
        raise SourceError("seven is not wanted")
    return job.number


def note(job: Job) -> int:
    """Leave a note of beginning, with the process, and one of the end."""
    beside = job.folder / f".{job.number}"
    beside.write_text(str(os.getpid()))
    beside.replace(job.folder / f"begun-{job.number}")
    with (job.folder / "log").open("a") as log:
        log.write(f"{job.number}\n")
    time.sleep(job.seconds)
    if job.waits_for:
        wait_until(lambda: (job.folder / job.waits_for).exists())
    (job.folder / f"done-{job.number}").touch()
    return job.number


def die(job: Job) -> int:
    """Kill the worker as many times as the job says, and then return the square."""
    deaths = len(list(job.folder.glob(f"death-{job.number}-*")))
    if deaths < job.deadly:
        (job.folder / f"death-{job.number}-{deaths}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(job)


def wait_until(there: Callable[[], bool]) -> None:
    """Wait for something that happens within a minute."""
    patience = time.monotonic() + 60
    while not there():
        if time.monotonic() > patience:
            raise TimeoutError("it did not happen")
        time.sleep(0.01)
