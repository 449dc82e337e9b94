"""Work on a Dask cluster: a scheduler and workers of their own over TCP, and a cluster of ours on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest

import bytropix
from bytropix.errors import ConfigError, SourceError, StoreError
from bytropix.pipelines import dask_runner as module
from bytropix.pipelines.dask_runner import dask_runner
from bytropix.pipelines.runner import Runner
from bytropix.version import VERSION

JOBS = Path(__file__).parent / "on_workers"
sys.path.append(str(JOBS))  # processes that start by spawn are given this path
from runner_jobs import Job, die, note, refuse_seven, square, wait_until, weigh  # noqa: E402


class Cluster:
    """Processes of dask's own command line: a scheduler, and workers as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.log = (folder / "log").open("wb")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        path = os.pathsep.join([str(JOBS), str(Path(bytropix.__file__).parents[1])])
        self.environment = {**os.environ, "PYTHONPATH": path, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2"}
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_until(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        self.address: str = json.loads(self.file.read_text())["address"]

    def worker(self, name: str, *flags: str) -> None:
        """Start a worker of one thread, with a nanny that starts it again when it dies."""
        self._start(name, "worker", "--name", name, "--nthreads", "1", "--memory-limit", "0", *flags)

    def workers(self) -> dict[str, Any]:
        """Return what the scheduler knows of its workers."""
        with distributed.Client(self.address, set_as_default=False) as client:
            found: dict[str, Any] = client.scheduler_info()["workers"]
        return found

    def stop(self, name: str) -> None:
        """Kill a process with all that it has started."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """Kill what is left."""
        for name in list(self.processes):
            self.stop(name)
        self.log.close()

    def _start(self, name: str, kind: str, *flags: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard"]
        self.processes[name] = subprocess.Popen(
            [*command, "--scheduler-file", str(self.file), *flags],
            env=self.environment,
            cwd=self.file.parent,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a scheduler with two workers."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.worker("one")
        cluster.worker("two")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Cluster]:
    """Return a scheduler without workers."""
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def said() -> list[str]:
    """Return what a runner has said."""
    return []


@pytest.fixture
def two(cluster: Cluster, said: list[str]) -> Iterator[Runner]:
    """Return a runner on that scheduler, once both workers have joined."""
    with dask_runner(cluster.address, 1, said.append) as runner:
        wait_until(lambda: list(runner.map(square, [Job(number=1, seconds=0.2)])) == [1] and runner.workers == 2)
        yield runner


def jobs(folder: Path, count: int = 12, seconds: float = 0.0) -> Iterator[Job]:
    """Give jobs one by one."""
    return (Job(number=number, folder=folder, seconds=seconds) for number in range(count))


def test_results_come_in_order(two: Runner, tmp_path: Path) -> None:
    """Whichever worker ends first; no task is none."""
    slow = [Job(number=number, seconds=0.3 if number in (0, 5) else 0.0) for number in range(20)]

    assert [number**2 for number in range(20)] == list(two.map(square, slow))
    assert list(two.map(square, [])) == []


def test_two_tasks_a_worker_are_under_way(two: Runner, tmp_path: Path) -> None:
    """Tasks are pulled as others are done: four at most for two workers, and four are reached."""
    found = []

    def pulled() -> Iterator[Job]:
        for job in jobs(tmp_path, 40, 0.02):
            found.append(job.number + 1 - len(list(tmp_path.glob("done-*"))))
            yield job

    assert list(range(40)) == list(two.map(note, pulled()))
    assert max(found) == 4


def test_tasks_of_many_documents_are_no_warning(two: Runner) -> None:
    """A task of 24 MB, past dask's mark for a graph, travels without a word (warnings are errors here)."""
    load = np.ones(24 << 20, np.uint8)

    assert list(two.map(weigh, [Job(number=number, load=load) for number in range(3)])) == [24 << 20] * 3


def test_error_of_ours_ends_the_run_as_it_is(two: Runner, tmp_path: Path) -> None:
    """It is raised once, at its turn, is not tried again, and no further task begins after it."""
    with pytest.raises(SourceError, match=r"^seven is not wanted$"):
        list(two.map(refuse_seven, jobs(tmp_path, 20)))

    assert (tmp_path / "refused").read_text() == "x"


def test_task_of_a_lost_worker_is_done_again(cluster: Cluster, two: Runner, tmp_path: Path) -> None:
    """A worker that is killed at its task costs time and nothing else."""
    killed = iter([Job(number=n, folder=tmp_path, seconds=0.05, deadly=int(n == 3)) for n in range(12)])

    assert [number**2 for number in range(12)] == list(two.map(die, killed))
    assert [path.name for path in tmp_path.glob("death-*")] == ["death-3-0"]


def test_result_of_a_lost_worker_is_kept(cluster: Cluster, two: Runner, tmp_path: Path) -> None:
    """What waits for its turn is here already: the worker that made it may go, and nothing is done twice."""
    results = two.map(note, (Job(number=n, folder=tmp_path, waits_for="" if n else "killed") for n in range(9)))

    def kill_the_other() -> None:
        wait_until(lambda: (tmp_path / "done-8").exists())
        time.sleep(1.0)  # to fetch the last
        os.kill(int((tmp_path / "begun-8").read_text()), signal.SIGKILL)
        (tmp_path / "killed").touch()

    killer = threading.Thread(target=kill_the_other)
    killer.start()
    assert list(range(9)) == list(results)
    killer.join()
    assert list(map(str, range(9))) == sorted((tmp_path / "log").read_text().split())


def test_task_that_kills_every_worker_is_given_up(two: Runner, tmp_path: Path) -> None:
    """After the third worker one line names it, or what stood in line behind it; the workers that come back do more."""
    with pytest.raises(StoreError, match=r"^job \d: 3 workers died over it or a task beside it.*--resume"):
        list(two.map(die, [Job(number=n, folder=tmp_path, deadly=99 * (n == 3)) for n in range(12)]))

    assert len(list(tmp_path.glob("death-3-*"))) == 3
    assert list(two.map(square, [Job(number=2)])) == [4]


def test_workers_may_come_later(lonely: Cluster, said: list[str], tmp_path: Path) -> None:
    """A run that finds no worker says so, waits, and goes on with those that join."""
    with dask_runner(lonely.address, 1, said.append) as runner:
        results = runner.map(note, jobs(tmp_path, 6, 0.5))
        waiting = f"dask: no worker at {lonely.address}; waiting for one (`dask worker {lonely.address}`)"
        assert said == [waiting]
        lonely.worker("late")
        assert next(results) == 0
        lonely.worker("later")
        wait_until(lambda: len(list(tmp_path.glob("begun-*"))) >= 2)
        assert list(range(1, 6)) == list(results)
        assert said[:2] == [waiting, "dask: 1 worker"]


@pytest.mark.parametrize("late", [False, True], ids=["there", "late"])
@pytest.mark.parametrize(
    ("preload", "message"),
    [
        ("import bytropix.version as v; v.VERSION = '0.0.9'", f"has bytropix 0.0.9, and this is {VERSION}; install"),
        ("import sys; sys.modules['bytropix'] = None", rf"cannot import bytropix .*install bytropix {VERSION} there"),
    ],
    ids=["older", "none"],
)
def test_worker_without_our_version_is_refused(
    lonely: Cluster, said: list[str], tmp_path: Path, preload: str, message: str, late: bool
) -> None:
    """Be it there at the start or a late one, the run ends with both versions and the remedy."""
    (tmp_path / "preload.py").write_text(preload)
    if not late:
        lonely.worker("other", "--preload", "preload.py")
        wait_until(lambda: len(lonely.workers()) == 1)

    def run() -> None:
        with dask_runner(lonely.address, 1, said.append) as runner:
            lonely.worker("other", "--preload", "preload.py")
            list(runner.map(square, jobs(tmp_path)))

    with pytest.raises(ConfigError, match=message):
        run()


def test_lost_scheduler_is_named(lonely: Cluster, said: list[str], tmp_path: Path) -> None:
    """A scheduler that dies ends the run in one line with the remedy."""

    def run() -> None:
        with dask_runner(lonely.address, 1, said.append) as runner:
            lonely.worker("one")
            results = runner.map(note, jobs(tmp_path, 9, 0.2))
            next(results)
            lonely.stop("scheduler")
            list(results)

    with pytest.raises(StoreError, match=rf"^the Dask scheduler at {lonely.address} is gone;.*--resume"):
        run()


@pytest.mark.parametrize("kind", ["nobody", "silent", "malformed", "scheme", "worker"])
def test_scheduler_that_is_not_there(
    cluster: Cluster, said: list[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whoever is at the address instead, one line names it and what to do."""
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = {
            "nobody": "tcp://127.0.0.1:9",
            "silent": f"tcp://127.0.0.1:{port}",
            "malformed": "somewhere",
            "scheme": "gopher://127.0.0.1:9",
            "worker": next(iter(cluster.workers())),
        }[kind]
        message = rf"^--scheduler {address}: no Dask scheduler answers there.*`dask scheduler`"
        with pytest.raises(ConfigError, match=message), dask_runner(address, 1, said.append):
            pass


def test_cluster_of_our_own(said: list[str], tmp_path: Path) -> None:
    """Without an address there are as many processes here as asked for; a lost one is replaced."""
    with dask_runner(None, 2, said.append) as runner:
        assert runner.workers == 2
        assert "dask: 2 workers on this machine, dashboard http://127.0.0.1:" in said[0]
        killed = iter([Job(number=n, folder=tmp_path, seconds=0.05, deadly=int(n == 3)) for n in range(8)])
        assert [number**2 for number in range(8)] == list(runner.map(die, killed))
        with pytest.raises(StoreError, match=r"^job \d: 3 workers died over it or a task beside it.*--resume"):
            list(runner.map(die, [Job(number=n, folder=tmp_path, deadly=99 * (n == 3)) for n in range(8)]))
