"""A store under a URL, by fsspec: S3 and what speaks its language, Google, Azure, a web server, a folder, memory.

An object appears when its upload is complete and is never seen in part: a single request puts it there, and a multipart
upload that fails is abandoned. So nothing is renamed. What makes many objects one store is the manifest, written last.

Every question has a deadline and is asked again where that helps, see `bytropix.datasets.store.retries`; the protocol's
package is told not to do so as well. Parts are read by pages, see `RemoteFile`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.page_cache import PageCache, cache_folder, cache_limit
from bytropix.datasets.store.remote_file import THREADS, RemoteFile
from bytropix.datasets.store.retries import PATIENCE, Patience, is_missing, patiently, within
from bytropix.datasets.store.schema import FileRecord
from bytropix.errors import StoreError

if TYPE_CHECKING:
    from bytropix.datasets.store.storage import StoredFile

R = TypeVar("R")
WEB = ("http", "https")


def is_url(place: str | Path) -> bool:
    """Return whether a place is a URL such as s3://bucket/name, and not a path."""
    return "://" in str(place)


class ObjectStorage:
    """See `Storage`.

    Args:
        url: Protocol, bucket and prefix. Keys and endpoints come from the environment, as the protocol's package reads
            them (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL).
        patience: How long a server is waited for.
    """

    local = None

    def __init__(self, url: str, patience: Patience = PATIENCE) -> None:
        self.url = url.rstrip("/")
        self.patience = patience
        self.listed = url.partition("://")[0] not in WEB
        self._connect()

    def size(self, name: str) -> int | None:
        """Return the bytes of an object."""

        def ask() -> int | None:
            try:
                info = self._call("info", self._path(name))
            except Exception as error:
                if is_missing(error):
                    return None
                raise
            if info.get("size") is None:
                raise StoreError(
                    f"{self.url}/{name}: the server does not tell its size; use another, or copy the store"
                )
            return None if info.get("type") == "directory" else int(info["size"])

        return self._tried(name, ask)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the name and bytes of every object below a folder; nothing where the server lists nothing."""

        def ask() -> dict[str, int]:
            self._fs.invalidate_cache()
            try:
                found = self._call("find", self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            skip = len(self._root.rstrip("/")) + 1
            return {path[skip:]: int(info["size"]) for path, info in sorted(found.items())}

        return self._tried(folder, ask) if self.listed else {}

    def read(self, name: str) -> NDArray[np.uint8]:
        """Return an object, fetched as a whole."""
        size = self.size(name)
        if size is None:
            raise StoreError(f"{self.url}/{name}: missing; restore it from a copy, or ingest again")
        return np.frombuffer(self.read_range(name, 0, size), np.uint8)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop` of an object, all of them, by one request."""
        length = stop - start

        def ask() -> bytes:
            data = bytes(self._call("cat_file", self._path(name), start=start, end=stop, n_bytes=length))
            if len(data) > length:
                raise StoreError(
                    f"{self.url}/{name}: the server sends {len(data)} bytes where {length} were asked for; it knows no "
                    "ranges: use one that does, or copy the store to a disk"
                )
            if len(data) < length:
                raise OSError(f"the server sends {len(data)} bytes of {length} from byte {start} on")
            return data

        return self._tried(name, ask) if length else b""

    def ranges(self, name: str, record: FileRecord) -> RemoteFile:
        """Return an object that a manifest names, to be read by ranges; nothing is asked yet."""
        return RemoteFile(self, name, record.size, record.sha256, self._cache)

    def write(self, name: str, data: bytes) -> None:
        """Write an object, in place of what is there."""
        self._tried(name, lambda: self._call("pipe_file", self._path(name), data, n_bytes=len(data)))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one; S3 decides by a conditional request."""

        def put() -> bool:
            try:
                self._call("pipe_file", self._path(name), data, mode="create", n_bytes=len(data))
            except FileExistsError:
                return False
            return True

        return self._tried(name, put)

    def write_folder(self, name: str, files: "Sequence[StoredFile]") -> None:
        """Write objects one by one; none counts before a manifest names it."""
        for item in files:
            self.write(f"{name}/{item.name}", b"".join(item.pieces))

    @contextmanager
    def open_write(self, name: str) -> Iterator[BinaryIO]:
        """Give a file whose blocks are uploaded as it grows; it becomes an object when the block ends well."""
        fs, _ = _connect(self.url, {})  # its package repeats a failed piece, which cannot be done from here
        file = self._tried(name, lambda: fs.open(self._path(name), "wb", autocommit=False))
        try:
            yield cast(BinaryIO, file)
            self._once(name, lambda: (file.close(), file.commit()))
        except BaseException:
            with suppress(AttributeError):  # closing would upload the rest; files in memory have no such attribute
                file.closed = True
            self._once(name, file.discard)
            raise

    def link(self, source: str, target: str) -> None:
        """Copy an object; the server does it."""
        self._tried(target, lambda: self._fs.copy(self._path(source), self._path(target)))

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects."""

        def ask() -> None:
            for name in names:
                if self._call("exists", self._path(name)):
                    self._call("rm_file", self._path(name))

        self._tried("", ask)

    def prune(self) -> None:
        """Do nothing: there are no folders."""

    @cached_property
    def _cache(self) -> PageCache:
        return PageCache(cache_folder() / "pages", cache_limit())

    def _connect(self) -> None:
        self._process = os.getpid()
        self._fs, self._root = _connect(self.url, _without_retries(self.url, self.patience))
        self._fs.retries = 1  # s3fs's own, of errors that botocore does not repeat

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _call(self, method: str, *args: Any, n_bytes: int = 0, **kwargs: Any) -> Any:
        """Ask once, with a deadline that fits the bytes that are to move."""
        if self._process != os.getpid():
            self._connect()  # connections do not survive a fork
        ask, seconds = getattr(self._fs, method), self.patience.deadline(n_bytes)
        if self._fs.async_impl:
            return ask(*args, timeout=seconds, **kwargs)  # what is late is ended
        return within(seconds, lambda: ask(*args, **kwargs))

    def _tried(self, name: str, ask: Callable[[], R]) -> R:
        """Return what the server answers, or raise one line about it."""
        return patiently(f"{self.url}/{name}" if name else self.url, ask, self.patience)

    def _once(self, name: str, ask: Callable[[], R]) -> R:
        """Return what the server answers to what must not be said twice, or raise one line about it."""
        return patiently(f"{self.url}/{name}", ask, replace(self.patience, tries=1))


def _without_retries(url: str, patience: Patience) -> dict[str, Any]:
    """Return how a protocol's package is told not to be patient itself."""
    protocol = url.partition("://")[0]
    if protocol in WEB:
        return {"headers": {"Accept-Encoding": "identity"}}  # ranges of the file, not of its compressed form
    if protocol in ("s3", "s3a"):
        waits = {"connect_timeout": patience.answer, "read_timeout": patience.answer}
        return {"config_kwargs": {**waits, "retries": {"total_max_attempts": 1}, "max_pool_connections": 2 * THREADS}}
    return {}


def _connect(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the file system of a URL and the path there."""
    import fsspec  # only where a URL is used, since it takes a while to import

    try:
        fs, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        raise StoreError(f"{url}: {error}; pip install 'bytropix[remote]'") from error
    except ValueError as error:
        raise StoreError(f"{url}: {error}; give a path or a URL such as s3://bucket/name.bx") from error
    return fs, str(path)
