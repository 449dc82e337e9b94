"""Work spread over processes: results in the order of the tasks, few tasks under way.

    tasks, pulled one by one -> at most two a worker under way -> results, in the order of the tasks

A result that comes before its turn waits for it while further tasks begin, so one long task holds up no worker. Tasks
and results are pickled, and `work` is a function of a module. Processes start by spawn, and end on their own when the
process that started them is gone: a run that was killed leaves nothing behind that writes into its store.
"""

import importlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from typing import Protocol, TypeVar

from bytropix.errors import ConfigError, StoreError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # tasks under way for each worker: one at work, one that is there when it ends
LOOK_AGAIN = 1.0  # seconds after which the room for tasks is asked for anew


class Runner(Protocol):
    """Who does the tasks."""

    @property
    def workers(self) -> int:
        """How many tasks are worked on at a time; on a cluster it changes."""
        ...

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Give `work(task)` for each task, in order.

        A task is pulled when there is room for it: at most two a worker are under way.

        Raises:
            BytropixError: What `work` raised, when it is that task's turn.
            StoreError: A worker died, and its task could not be done elsewhere.
        """
        ...


@contextmanager
def local_runner(workers: int, task_module: str = "bytropix.pipelines.part_task") -> Iterator[Runner]:
    """Give a runner of `workers` processes, which begin to start at once; one worker is this process itself.

    Args:
        workers: How many.
        task_module: What they import as they start, so that the first task need not.

    Raises:
        ConfigError: `workers` is below 1.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if workers == 1:
        yield _ThisProcess()
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(task_module,)
    )
    others = set(multiprocessing.active_children())
    try:
        with deaf_to_interrupts():
            pool.submit(int)  # the first task starts all processes
        yield _Processes(workers, pool)
    except BaseException:
        # Nobody wants the tasks at work any more, and whatever they leave half done is swept by the next run.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _ThisProcess:
    """One task after the other, here."""

    workers: int = 1

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Give the results; a task is pulled when its result is."""
        return map(work, tasks)


@dataclass(frozen=True, slots=True)
class _Processes:
    """Processes of this machine."""

    workers: int
    _pool: ProcessPoolExecutor

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Give the results in order."""
        try:
            yield from in_order(lambda task: self._pool.submit(work, task), tasks, lambda: AHEAD * self.workers)
        except BrokenProcessPool as error:
            raise StoreError(
                "a worker process died (out of memory?); run again with --resume and fewer --workers"
            ) from error


def await_one(under_way: "set[Future[R]]") -> None:
    """Wait until a task is done, or for a while."""
    wait(under_way, LOOK_AGAIN, FIRST_COMPLETED)


def in_order(
    submit: Callable[[T], "Future[R]"],
    tasks: Iterable[T],
    room: Callable[[], int],
    pause: Callable[["set[Future[R]]"], None] = await_one,
) -> Iterator[R]:
    """Give the results of tasks in their order, with at most `room()` of them, at least one, under way."""
    rest = iter(tasks)
    waiting: deque[Future[R]] = deque()
    under_way: set[Future[R]] = set()
    while True:
        for task in islice(rest, max(0, room() - len(under_way))):
            future = submit(task)
            waiting.append(future)
            under_way.add(future)
        if not waiting:
            return
        if waiting[0].done():
            yield waiting.popleft().result()
        else:
            pause(under_way)
        under_way = {future for future in under_way if not future.done()}


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Let processes that start here never hear Ctrl-C, which the terminal sends to all; it is for this one to act."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # or the first process would start it, after which this thread hears again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(task_module: str) -> None:
    """Leave Ctrl-C to the process that started this one, end with it, and import what the work of a part needs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()
    importlib.import_module(task_module)


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
