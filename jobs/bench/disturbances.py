"""What runs leave that are killed, or meet a failing disk: nothing torn, and the same store in the end.

every operation -> killed at random moments; a call that writes fails; a worker of a cluster is killed -> rows
"""

from pathlib import Path

from bytropix.jobs.bench.kill_cases import FORMATS, try_cases
from bytropix.jobs.bench.kills import Trial, kill_at_random, tally
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target
from bytropix.jobs.bench.worker_kills import kill_workers
from bytropix.jobs.bench.write_faults import fail_at_calls

MOMENTS, CALLS, WORKERS = 3, 6, 2
"""Trials of each case, for each turn of the benchmark."""


def bench_kills(settings: BenchSettings) -> list[BenchRow]:
    """Return a row for each kind of disturbance: how many runs ended wrong; one more for each that did."""
    many = settings.repeats
    workers: list[Trial] = []
    for format in FORMATS:
        workers += kill_workers(_folder(settings, f"workers-{format}"), format, WORKERS * many, seed=0)
    workers += kill_workers(_folder(settings, "workers-films"), "zarr", WORKERS * many, seed=0, films=True)
    return [
        *_rows("killed at random", try_cases(kill_at_random, _folder(settings, "kills"), MOMENTS * many, seed=0)),
        *_rows("a call that writes fails", try_cases(fail_at_calls, _folder(settings, "calls"), CALLS * many, seed=0)),
        *_rows("a Dask worker is killed", workers),
    ]


def _rows(what: str, trials: list[Trial]) -> list[BenchRow]:
    wrong = [f"{trial.case}, {trial.how}: {trial.fault}" for trial in trials if trial.fault]
    targets = (Target("value", "<=", 0),)
    first = BenchRow(name=f"kills: {what}", value=len(wrong), unit="wrong", targets=targets, note=tally(trials))
    return [first, *(BenchRow(name="kills: WRONG", value=1, unit="run", note=line) for line in wrong)]


def _folder(settings: BenchSettings, name: str) -> Path:
    folder = settings.folder / name
    folder.mkdir()
    return folder
