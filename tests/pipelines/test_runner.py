"""Work on processes of this machine: order, how much is under way, failures, Ctrl-C."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bytropix
from bytropix.errors import ConfigError, SourceError, StoreError
from bytropix.pipelines.runner import Runner, local_runner

JOBS = Path(__file__).parent / "on_workers"
sys.path.append(str(JOBS))  # processes that start by spawn are given this path
from runner_jobs import Job, die, note, refuse_seven, square, wait_until  # noqa: E402

SCRIPT = """
import signal
import sys
from pathlib import Path
from runner_jobs import Job, note
from bytropix.pipelines.dask_runner import dask_runner
from bytropix.pipelines.runner import local_runner

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    folder = Path(sys.argv[2])
    jobs = (Job(number=number, folder=folder, seconds=float(sys.argv[3]) if number else 0.0) for number in range(100))
    with local_runner(2) if sys.argv[1] == "local" else dask_runner(None, 2, print) as runner:
        for number in runner.map(note, jobs):
            (folder / "first").touch()
"""


@pytest.fixture(scope="module")
def two() -> Iterator[Runner]:
    """Return a runner of two processes."""
    with local_runner(2) as runner:
        yield runner


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers: int) -> None:
    """However many processes there are, and whichever ends first."""
    jobs = [Job(number=number, seconds=0.2 if number in (0, 5) else 0.0) for number in range(20)]
    with local_runner(workers) as runner:
        assert workers == runner.workers
        assert [number**2 for number in range(20)] == list(runner.map(square, jobs))
        assert list(runner.map(square, [])) == []


def test_workers_are_at_least_one() -> None:
    """No worker, no work."""
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"), local_runner(0):
        pass


def most_under_way(runner: Runner, folder: Path) -> int:
    """Return the most jobs that had been pulled and not been done, of forty that take a moment."""
    found = []

    def pulled() -> Iterator[Job]:
        for number in range(40):
            found.append(number + 1 - len(list(folder.glob("done-*"))))
            yield Job(number=number, folder=folder, seconds=0.02)

    assert list(range(40)) == list(runner.map(note, pulled()))
    return max(found)


def test_two_tasks_a_worker_are_under_way(two: Runner, tmp_path: Path) -> None:
    """Tasks are pulled as others are done: four at most for two workers, and four are reached."""
    assert most_under_way(two, tmp_path) == 4


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    """No pool is there, and a task is pulled when its result is asked for."""
    with local_runner(1) as runner:
        assert most_under_way(runner, tmp_path) == 1
        assert str(os.getpid()) == (tmp_path / "begun-0").read_text()


def test_nothing_is_pulled_before_it_is_asked_for(two: Runner) -> None:
    """A map that nobody reads does nothing."""
    pulled: list[int] = []
    jobs = (pulled.append(number) or Job(number=number, seconds=0.3 * bool(number)) for number in range(9))
    results = two.map(square, jobs)

    assert pulled == []
    assert next(results) == 0
    assert pulled in (list(range(4)), list(range(5)))


def test_long_task_holds_up_no_other(two: Runner, tmp_path: Path) -> None:
    """While the first task is at work, the other worker does all that follow; their results wait."""
    jobs = [Job(number=number, folder=tmp_path, seconds=1.5 if number == 0 else 0.0) for number in range(30)]
    results = two.map(note, jobs)

    assert next(results) == 0
    assert len(list(tmp_path.glob("done-*"))) == 30
    assert list(range(1, 30)) == list(results)


def test_error_of_ours_passes_through(two: Runner, tmp_path: Path) -> None:
    """It is raised as it is, once, at its turn, and the pool can be used afterwards."""
    results = two.map(refuse_seven, [Job(number=number, folder=tmp_path) for number in range(20)])

    assert list(range(7)) == [next(results) for _ in range(7)]
    with pytest.raises(SourceError, match=r"^seven is not wanted$"):
        next(results)
    assert (tmp_path / "refused").read_text() == "x"
    assert list(two.map(square, [Job(number=3)])) == [9]


def test_dead_worker_is_named(tmp_path: Path) -> None:
    """A process that was killed ends the run in one line with the remedy."""
    jobs = [Job(number=number, folder=tmp_path, deadly=int(number == 3)) for number in range(9)]
    with pytest.raises(StoreError, match=r"^a worker process died.*--resume.*--workers$"), local_runner(2) as runner:
        list(runner.map(die, jobs))


@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups")
@pytest.mark.parametrize("kind", ["local", "dask"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_run(tmp_path: Path, kind: str, how: signal.Signals) -> None:
    """Ctrl-C reaches all processes, and is acted on by the first alone; a kill reaches that one alone."""
    (tmp_path / "run.py").write_text(SCRIPT)
    path = os.pathsep.join([str(JOBS), str(Path(bytropix.__file__).parents[1])])
    # A worker of dask's that heard Ctrl-C would say so when its task is done, if it may live that long (4 s).
    command = [sys.executable, str(tmp_path / "run.py"), kind, str(tmp_path), "20" if kind == "local" else "2"]
    environment = {**os.environ, "PYTHONPATH": path}
    run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: {"first", "begun-1", "begun-2"} <= {path.name for path in tmp_path.iterdir()})
    workers = {int((tmp_path / f"begun-{number}").read_text()) for number in (1, 2)}
    if how is signal.SIGINT:
        os.killpg(run.pid, how)
    else:
        run.kill()
    said = run.communicate(timeout=30)[1]

    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert len(workers) == 2
    assert said.count("KeyboardInterrupt") == said.count("Traceback") == (how is signal.SIGINT)
