"""Workers of a Dask cluster that are killed at random moments, while the run goes on.

a scheduler and two workers -> ingestion, part by part -> one of the workers is killed -> the same store as without
"""

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import distributed

from bytropix.datasets.store import PartLayout, VideoLayout
from bytropix.datasets.store.formats import FormatName
from bytropix.jobs.bench.kill_cases import ingest, ingest_films, small_corpus, small_films
from bytropix.jobs.bench.kills import Trial, differing, in_fresh_process, tree


def kill_workers(folder: Path, format: FormatName, trials: int, seed: int, *, films: bool = False) -> list[Trial]:
    """Ingest `trials` times on a cluster of two workers, and kill one of them at some moment each time.

    Args:
        folder: An empty folder to work in.
        format: Of the store.
        trials: How often.
        seed: Of the moments and the workers.
        films: Whether to ingest films.
    """
    return in_fresh_process(_kill_workers, folder, format, trials, seed, films)


def _kill_workers(folder: Path, format: FormatName, trials: int, seed: int, films: object) -> list[Trial]:
    work: Callable[..., None] = (
        partial(ingest_films, small_films(folder / "films"), VideoLayout(format=format))
        if films
        else partial(ingest, [small_corpus(folder / "corpus")], PartLayout(format=format))
    )
    what = "film" if films else "ingest"
    generator = random.Random(seed)
    work(folder / "whole")
    whole = tree(folder / "whole")
    found = []
    with distributed.LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
    ) as cluster:
        for name in ("first", "second"):  # in the first one the workers import what they need
            begin = time.perf_counter()
            work(folder / name, scheduler=cluster.scheduler_address)
        span = time.perf_counter() - begin
        for number in range(trials):
            moment, place = span * generator.random(), folder / str(number)
            killer = threading.Timer(moment, _kill_a_worker, [generator.random()])
            killer.start()
            work(place, scheduler=cluster.scheduler_address)
            killer.join()
            names = differing(whole, tree(place))
            how = f"a worker killed after {moment:.3f} s"
            fault = f"other files: {', '.join(names[:5])}" if names else ""
            found.append(Trial(case=f"{what} {format} on Dask", how=how, found="after", fault=fault))
    return found


def _kill_a_worker(drawn: float) -> None:
    """Kill one of the worker processes that are children of this one, unless it is just gone."""
    workers = worker_processes()
    with suppress(ProcessLookupError, IndexError):
        os.kill(workers[int(drawn * len(workers))], signal.SIGKILL)


def worker_processes() -> list[int]:
    """Return the processes that this one has spawned for work, oldest first."""
    found = []
    for child in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for pid in map(int, child.read_text().split()):
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    return sorted(found)
