"""The same tasks on a Dask cluster, one that runs already or one of our own on this machine.

    tasks -> scheduler -> workers, at most two tasks each -> results, in the order of the tasks

The scheduler does the task of a lost worker again on another, a few times. Tasks travel with the graph and are not
scattered: what was scattered to a worker is lost with it. `distributed` is imported when a cluster is asked for.
"""

import asyncio
import importlib.util
import logging
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bytropix import version
from bytropix.errors import ConfigError, StoreError
from bytropix.pipelines.runner import AHEAD, LOOK_AGAIN, Runner, deaf_to_interrupts, in_order

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 10.0  # seconds for a scheduler to answer
LOST_WORKERS = 3  # that a task may take along on a cluster of ours before it is given up; a scheduler has its own limit
SETTINGS = {
    # The documents of a part are listed in its task: 20 bytes each, above dask's mark for very short ones.
    "distributed.admin.large-graph-warning-threshold": "1 GiB",
    # Once a worker is lost the others are given one task at a time, so that fewer are blamed for the next death.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": LOST_WORKERS - 1,
}


@contextmanager
def dask_runner(scheduler: str | None, workers: int, say: Callable[[str], None]) -> Iterator[Runner]:
    """Give a runner on a Dask cluster.

    Args:
        scheduler: Address of a scheduler that runs, such as tcp://host:8786; `None` for a cluster of our own.
        workers: Processes of a cluster of our own; a scheduler has as many workers as have joined it.
        say: Told in one line each what a user should know: the dashboard, workers that come and go.

    Raises:
        ConfigError: Nobody answers at the address, or somebody there has another version of bytropix.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    import dask
    import distributed  # noqa: F401 - brings the defaults that are changed, and put back, below

    with ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        with deaf_to_interrupts():
            if scheduler is None:
                scheduler = stack.enter_context(_own_cluster(workers, say)).scheduler_address
            client = stack.enter_context(_connect(scheduler))
        runner = DaskRunner(client, scheduler, say)
        runner.follow()
        for address, there in client.run(ready, on_error="return").items():
            if not isinstance(there, OSError):  # of a worker that has just been lost
                _check(f"the Dask worker {address}", there, version.VERSION)
        try:
            yield runner
        finally:
            runner.cancel()


@contextmanager
def _own_cluster(workers: int, say: Callable[[str], None]) -> Iterator[Any]:
    """Give a cluster of processes on this machine, which ends with the block."""
    import distributed

    with distributed.LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        memory_limit=0,  # as for local processes: dask would pause and kill workers at a share of memory of its own
        silence_logs=logging.CRITICAL,  # errors come back to us, and we say who was lost
    ) as cluster:
        where = cluster.dashboard_link if importlib.util.find_spec("bokeh") else "needs `pip install bokeh`"
        say(f"dask: {workers} workers on this machine, dashboard {where}")
        yield cluster


def _connect(scheduler: str) -> Any:
    """Return a client of the scheduler at an address.

    Raises:
        ConfigError: Nobody answers there, or somebody who is no scheduler.
    """
    import distributed
    from distributed.comm.core import connect

    async def kind_of() -> str:
        async with asyncio.timeout(PATIENCE):
            comm: Any = await connect(scheduler, timeout=PATIENCE)  # type: ignore[no-untyped-call]
            try:
                await comm.write({"op": "identity", "reply": True})
                return str((await comm.read())["type"])
            finally:
                comm.abort()

    try:
        # Asked before a client is made, since one that finds nobody blocks for 20 s more when it is collected; in a
        # thread, since a notebook has a loop of its own in this one.
        with ThreadPoolExecutor(1) as thread:
            kind = thread.submit(lambda: asyncio.run(kind_of())).result()
        if kind != "Scheduler":
            raise ValueError(f"but a {kind}")
        return distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        why = f"waited {PATIENCE:.0f} s" if isinstance(error, TimeoutError) else _one_line(error)
        raise ConfigError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({why}); "
            "start one with `dask scheduler`, or use --dask for a cluster on this machine"
        ) from error


@dataclass(slots=True)
class DaskRunner:
    """Workers that a Dask scheduler knows."""

    _client: Any
    _address: str
    _say: Callable[[str], None]
    workers: int = 1
    """How many there are now, at least one."""
    _asked: float = -LOOK_AGAIN
    """When we last asked how many there are."""
    _known: int = -1
    """How many there were then."""
    _sent: "dict[Future[Any], Any]" = field(default_factory=dict)
    """What will hold the result of each task that is under way -> dask's future, whose result lies on a worker."""
    _news: threading.Event = field(default_factory=threading.Event)
    """Set when one of these is done."""

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Give the results in order; see `Runner`."""
        import distributed

        try:
            yield from in_order(lambda task: self._submit(work, task), tasks, self.follow, self._fetch)
        except distributed.KilledWorker as error:
            name = str(error.task).split("-", 2)[2]
            raise StoreError(
                # The scheduler also blames a task that was next in line on each of these workers.
                f"{name}: {error.allowed_failures + 1} workers died over it or a task beside it (out of memory?); "
                "run again with --resume and a smaller --part-bytes, or workers with more memory"
            ) from error
        except ModuleNotFoundError as error:  # one that has joined since they were asked
            _check("a Dask worker", error, version.VERSION)
        except CancelledError as error:
            raise self._gone() from error
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Begin no further task; one that is at work ends first."""
        if self._sent and self._client.status == "running":
            self._client.cancel(list(self._sent.values()))
        self._sent.clear()

    def _submit(self, work: Callable[[T], R], task: T) -> "Future[R]":
        """Send a task, under a key that shows its kind and its name on the dashboard."""
        name = str(task)[:100].encode("utf-8", "backslashreplace").decode()
        key = f"{work.__name__}-{uuid.uuid4().hex}-{name}"
        sent = self._client.submit(pickle.loads, pickle.dumps(_Call(work, task)), key=key, pure=False)
        sent.add_done_callback(lambda sent: self._news.set())
        future: Future[R] = Future()
        self._sent[future] = sent
        return future

    def _fetch(self, under_way: object) -> None:
        """Wait for news, and fetch every result that is ready: on its worker it can be lost."""
        self._news.wait(LOOK_AGAIN)
        self._news.clear()
        for future, sent in list(self._sent.items()):
            if not sent.done():
                continue
            try:
                future.set_result(sent.result(timeout=LOOK_AGAIN))
            except Exception as error:
                if isinstance(error, TimeoutError) and sent.status != "error":
                    continue  # it was lost on the way, and is made again
                future.set_exception(error)
            del self._sent[future]

    def follow(self) -> int:
        """Ask now and then how many workers there are, and return how many tasks may be under way."""
        if time.monotonic() - self._asked >= LOOK_AGAIN:
            try:
                found = len(self._client.nthreads())
            except (OSError, RuntimeError) as error:
                raise self._gone() from error
            if found == 0 != self._known:
                self._say(f"dask: no worker at {self._address}; waiting for one (`dask worker {self._address}`)")
            elif found != self._known >= 0:
                self._say(f"dask: {found} worker{'s' * (found > 1)}")
            self._asked, self._known, self.workers = time.monotonic(), found, max(1, found)
        return AHEAD * self.workers

    def _gone(self) -> StoreError:
        return StoreError(f"the Dask scheduler at {self._address} is gone; start it and run again with --resume")


@dataclass(frozen=True, slots=True)
class _Call(Generic[T, R]):
    """A task that is done where it is unpickled, by the thread that works.

    So it is bytes to the scheduler, and to a worker until its turn: what cannot be imported there fails this task,
    where it would else end the worker's connection and leave the run waiting.
    """

    work: Callable[[T], R]
    task: T

    def __reduce__(self) -> tuple[Callable[..., R], tuple[Any, ...]]:
        return _do, (version.VERSION, self.work, self.task)


def _do(wanted: str, work: Callable[[T], R], task: T) -> R:
    """Do a task, on a worker of the same version only."""
    _check("a Dask worker", version.VERSION, wanted)
    return work(task)


def ready() -> str:
    """Import what the work of a part needs, which takes a second, and return the version that is installed here."""
    import bytropix.pipelines.part_task  # noqa: F401

    return version.VERSION


def _check(who: str, there: Any, wanted: str) -> None:
    if isinstance(there, Exception):
        raise ConfigError(f"{who} cannot import bytropix ({_one_line(there)}); install bytropix {wanted} there")
    if there != wanted:
        raise ConfigError(f"{who} has bytropix {there}, and this is {wanted}; install the same version on both")


def _one_line(error: Exception) -> str:
    """Return what an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
