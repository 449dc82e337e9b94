"""Work ahead of a consumer, in order: futures of the next few results wait in a short queue."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def ordered_prefetch(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield function(task) for every task, in order, while threads compute the next ones.

    An exception of `function` is raised here, in its place in the order. Closing the iterator waits for the
    results that are being computed and drops the rest.

    Args:
        function: Called from several threads at once.
        tasks: May be endless; read by the consumer's thread.
        threads: 1 or more.
        ahead: Results computed or waiting at any time, at least `threads`.
    """
    waiting: deque[Future[Result]] = deque()
    remaining = iter(tasks)
    executor = ThreadPoolExecutor(threads, thread_name_prefix="bytropix-prefetch")
    try:
        waiting.extend(executor.submit(function, task) for task in islice(remaining, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(executor.submit(function, task) for task in islice(remaining, 1))
            yield result
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
