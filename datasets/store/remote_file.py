"""A file on a server, read by pages: kept in memory for a moment, on a disk for long, fetched ahead by threads.

range -> pages -> in memory? -> on their way? -> in the cache on disk? -> fetched from the server -> kept

A page is fetched once, however many ask for it: who comes second waits for the first. A page that waits in the queue of
hints is taken out of it by a reader who needs it now.
"""

import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.page_cache import PAGE_BYTES, PageCache, page_key
from bytropix.errors import StoreError

THREADS = 16
HINTS = 512  # pages that may wait to be fetched ahead; further ones are not noted
RECENT_PAGES = 32  # in memory: a block is a quarter of a page, and a page that no disk keeps lives only here

Page = NDArray[np.uint8]


class Server(Protocol):
    """What a remote file needs of the storage that it lies in."""

    url: str

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return exactly the bytes `start` to `stop` of a file."""
        ...


class RemoteFile:
    """A file on a server that a manifest names, see `Ranges`.

    Args:
        server: Its storage.
        name: Its name there.
        size: Its bytes.
        sha256: Its hash, as the manifest says.
        cache: Where its pages are kept.
    """

    def __init__(self, server: Server, name: str, size: int, sha256: str, cache: PageCache) -> None:
        self.size = size
        self.cache = cache
        self._server, self._name, self._sha256 = server, name, sha256

    def range(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return bytes `start` to `stop`, fewer where the file ends before."""
        stop = min(stop, self.size)
        numbers = _pages(start, stop)
        for number in numbers[1:HINTS]:
            _fetcher.ahead(self, number)
        pages = [_fetcher.page(self, number) for number in numbers]
        if not pages:
            return np.empty(0, np.uint8)
        first = numbers[0] * PAGE_BYTES
        whole = pages[0] if len(pages) == 1 else np.concatenate(pages)
        return whole[start - first : stop - first]

    def anew(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the same, fetched from the server."""
        for number in _pages(start, min(stop, self.size)):
            _fetcher.drop(self, number)
            self.cache.drop(self._key(number))
        return self.range(start, stop)

    def prefetch(self, start: int, stop: int) -> None:
        """Let threads bring these bytes into the cache on disk; without one there is no room for them."""
        if self.cache.usable:
            for number in _pages(start, min(stop, self.size)):
                _fetcher.ahead(self, number)

    def load(self, number: int) -> Page:
        """Return a page from the disk or else from the server."""
        begin, end = self._span(number)
        key = self._key(number)
        content = self.cache.get(key, end - begin)
        if content is None:
            content = self._server.read_range(self._name, begin, end)
            self.cache.put(key, content)
        return np.frombuffer(content, np.uint8)

    def on_disk(self, number: int) -> bool:
        """Return whether the cache on disk has a page."""
        return self.cache.has(self._key(number))

    def _span(self, number: int) -> tuple[int, int]:
        return number * PAGE_BYTES, min(self.size, (number + 1) * PAGE_BYTES)

    def _key(self, number: int) -> str:
        begin, end = self._span(number)
        return page_key(self._server.url, self._sha256, begin, end - begin)


def _pages(start: int, stop: int) -> range:
    """Return the numbers of the pages that bytes `start` to `stop` lie in."""
    return range(start // PAGE_BYTES, -(-stop // PAGE_BYTES)) if start < stop else range(0)


class _Fetcher:
    """The pages of a process: those in memory, those on their way, and the threads that fetch ahead.

    The threads are daemons: a process ends without waiting for a server.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: OrderedDict[tuple[RemoteFile, int], Page] = OrderedDict()
        self._flights: dict[tuple[RemoteFile, int], Future[Page | None]] = {}
        self._hints: queue.Queue[Callable[[], object]] = queue.Queue(HINTS)
        self._threads = 0

    def page(self, file: RemoteFile, number: int) -> Page:
        """Return a page."""
        place = file, number
        while True:
            with self._lock:
                if place in self._recent:
                    self._recent.move_to_end(place)
                    return self._recent[place]
                flight = self._flights.get(place)
                ours = flight is None or flight.cancel()  # one that nobody has begun
                if ours or flight is None:
                    flight = self._flights[place] = Future()
                    flight.set_running_or_notify_cancel()
            if ours:
                self._fly(place, flight)
            page = flight.result()
            if page is not None:
                self._keep(place, page)
                return page

    def ahead(self, file: RemoteFile, number: int) -> None:
        """Have a page fetched by a thread, unless it is in memory or on its way, or too many are waiting."""
        place = file, number
        flight: Future[Page | None] = Future()
        with self._lock:
            if place in self._recent or place in self._flights:
                return
            self._flights[place] = flight

        def fetch() -> None:
            if flight.set_running_or_notify_cancel():
                self._fly(place, flight, ahead=True)

        if not self.later(fetch) and flight.cancel():
            with self._lock:
                if self._flights.get(place) is flight:
                    del self._flights[place]

    def later(self, task: Callable[[], object]) -> bool:
        """Let a thread do something soon; return whether it will: too many things may wait already."""
        try:
            self._hints.put_nowait(task)
        except queue.Full:
            return False
        with self._lock:
            if self._threads < THREADS:
                self._threads += 1
                threading.Thread(target=self._work, daemon=True, name=f"bytropix-pages-{self._threads}").start()
        return True

    def drop(self, file: RemoteFile, number: int) -> None:
        """Forget a page."""
        with self._lock:
            self._recent.pop((file, number), None)

    def _keep(self, place: tuple[RemoteFile, int], page: Page) -> None:
        """Hold a page in memory, in place of the one that was used least recently."""
        with self._lock:
            self._recent[place] = page
            self._recent.move_to_end(place)
            if len(self._recent) > RECENT_PAGES:
                self._recent.popitem(last=False)

    def _work(self) -> None:
        """Do what is to be done, for ever; who needs it meets what went wrong, and says so."""
        while True:
            task = self._hints.get()
            with suppress(StoreError):
                task()
            del task  # else an idle thread would hold what it worked on

    def _fly(self, place: tuple[RemoteFile, int], flight: "Future[Page | None]", *, ahead: bool = False) -> None:
        """Bring a page and tell all who wait for it; ahead of its use it stays on disk, and they look for it there."""
        file, number = place
        page: Page | None = None
        failure: BaseException | None = None
        try:
            if not (ahead and file.on_disk(number)):
                page = file.load(number)
        except BaseException as error:
            failure = error
        if page is not None and not (ahead and file.cache.usable):
            self._keep(place, page)
        with self._lock:
            del self._flights[place]
        if failure is not None:
            flight.set_exception(failure)
        else:
            flight.set_result(page)


_fetcher = _Fetcher()


def _start_over() -> None:
    """Begin anew in a forked process, which has none of its parent's threads."""
    global _fetcher
    _fetcher = _Fetcher()


def later(task: Callable[[], object]) -> None:
    """Let one of the threads that fetch ahead do something soon; forgotten if too much is waiting."""
    _fetcher.later(task)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
