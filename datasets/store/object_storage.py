"""A store under a URL, by fsspec: S3 and what speaks its language, Google, Azure, a folder, memory.

An object appears when its upload is complete and is never seen in part: a single request puts it there, and a multipart
upload that fails is abandoned. So nothing is renamed. What makes many objects one store is the manifest, written last.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import StoreError

if TYPE_CHECKING:
    from bytropix.datasets.store.storage import StoredFile

R = TypeVar("R")


def is_url(place: str | Path) -> bool:
    """Return whether a place is a URL such as s3://bucket/name, and not a path."""
    return "://" in str(place)


class ObjectStorage:
    """See `Storage`.

    Args:
        url: Protocol, bucket and prefix. Keys and endpoints come from the environment, as the protocol's package reads
            them (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL).
    """

    local = None

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self._root = _connect(self.url)

    def size(self, name: str) -> int | None:
        """Return the bytes of an object."""

        def ask() -> int | None:
            try:
                info = self._fs.info(self._path(name))
            except FileNotFoundError:
                return None
            return None if info.get("type") == "directory" else int(info["size"])

        return self._tried(name, ask)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the name and bytes of every object below a folder."""

        def ask() -> dict[str, int]:
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            skip = len(self._root.rstrip("/")) + 1
            return {path[skip:]: int(info["size"]) for path, info in sorted(found.items())}

        return self._tried(folder, ask)

    def read(self, name: str) -> NDArray[np.uint8]:
        """Return an object, fetched as a whole."""
        data = self._tried(name, lambda: self._fs.cat_file(self._path(name)))
        return np.frombuffer(data, np.uint8)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop` of an object, by one request."""
        return bytes(self._tried(name, lambda: self._fs.cat_file(self._path(name), start=start, end=stop)))

    def write(self, name: str, data: bytes) -> None:
        """Write an object, in place of what is there."""
        self._tried(name, lambda: self._fs.pipe_file(self._path(name), data))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one; S3 decides by a conditional request."""

        def put() -> bool:
            try:
                self._fs.pipe_file(self._path(name), data, mode="create")
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
        file = self._tried(name, lambda: self._fs.open(self._path(name), "wb", autocommit=False))
        try:
            yield cast(BinaryIO, file)
            self._tried(name, lambda: (file.close(), file.commit()))
        except BaseException:
            with suppress(AttributeError):  # closing would upload the rest; files in memory have no such attribute
                file.closed = True
            self._tried(name, file.discard)
            raise

    def link(self, source: str, target: str) -> None:
        """Copy an object; the server does it."""
        self._tried(target, lambda: self._fs.copy(self._path(source), self._path(target)))

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects."""

        def ask() -> None:
            for name in names:
                if self._fs.exists(self._path(name)):
                    self._fs.rm_file(self._path(name))

        self._tried("", ask)

    def prune(self) -> None:
        """Do nothing: there are no folders."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _tried(self, name: str, ask: Callable[[], R]) -> R:
        """Return what the server answers, or raise one line about it."""
        try:
            return ask()
        except StoreError:
            raise
        except Exception as error:  # each protocol's package has errors of its own
            place = f"{self.url}/{name}" if name else self.url
            said = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(
                f"{place}: {said}; check the address, the keys and the connection, then run again"
            ) from error


def _connect(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path there."""
    import fsspec  # only where a URL is used, since it takes a while to import

    try:
        fs, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        raise StoreError(f"{url}: {error}; pip install 'bytropix[remote]'") from error
    except ValueError as error:
        raise StoreError(f"{url}: {error}; give a path or a URL such as s3://bucket/name.bx") from error
    return fs, str(path)
