"""Work spread over threads or processes, results in order, few tasks at a time.

    tasks, made one by one -> at most `ahead` under way -> results in the order of the tasks

Processes start by spawn, and end on their own when the process that started them is gone: a run that was killed leaves
nothing behind that writes into its store.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from bytropix.errors import StoreError

T = TypeVar("T")
R = TypeVar("R")


def ordered(pool: Executor, work: Callable[[T], R], tasks: Iterable[T], *, ahead: int) -> Iterator[R]:
    """Give `work(task)` for each task, in order, with at most `ahead` of them under way."""
    waiting: deque[Future[R]] = deque()
    for task in tasks:
        waiting.append(pool.submit(work, task))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of `count` processes, which begin to start at once.

    Raises:
        StoreError: A process died.
    """
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        pool.submit(int)  # the first task starts all processes
        yield pool
    except BrokenProcessPool as error:
        raise StoreError(
            "a worker process died (out of memory?); run again with --resume and fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Leave Ctrl-C to the process that started this one, end with it, and import what the work of a part needs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()
    import bytropix.pipelines.part_task  # noqa: F401


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
