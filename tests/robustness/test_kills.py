"""Runs that are killed: what a reader finds, and what the next run makes of it."""

import sys
from pathlib import Path

import pytest

from bytropix.jobs.bench.kill_cases import try_cases
from bytropix.jobs.bench.kills import Trial, in_fresh_process, kill_at_random
from bytropix.jobs.bench.worker_kills import kill_workers

sys.path.append(str(Path(__file__).parent / "careless"))  # processes that start by spawn are given this path
from careless_copy import kill_a_copy

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")


def faults(trials: list[Trial]) -> list[str]:
    """Return what was wrong, and when."""
    return [f"{trial.case}, {trial.how}: {trial.fault}" for trial in trials if trial.fault]


def test_killed_runs_leave_nothing_torn(tmp_path: Path) -> None:
    """At any moment a reader sees the store from before, an unfinished one or all of it; a rerun makes every byte."""
    trials = try_cases(kill_at_random, tmp_path, 3, seed=0)

    assert faults(trials) == []
    assert {"unfinished", "before"} <= {trial.found for trial in trials}


def test_careless_writer_is_seen(tmp_path: Path) -> None:
    """The trials would notice: a copy that begins with the manifest is torn when it is killed."""
    trials = in_fresh_process(kill_a_copy, tmp_path)

    assert [trial for trial in trials if trial.found is None and trial.fault]


@pytest.mark.parametrize("films", [False, True])
def test_killed_workers_cost_nothing_but_time(tmp_path: Path, films: bool) -> None:
    """A cluster that loses a worker at any moment makes the store that one process makes."""
    assert faults(kill_workers(tmp_path, "zarr", 3, seed=0, films=films)) == []
