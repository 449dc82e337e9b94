"""Where a store lies: a folder, or a prefix of an object store; one interface for both.

    open_storage("corpus.bx")        -> LocalStorage    files are mapped; written beside, flushed, renamed
    open_storage("s3://bucket/c.bx") -> ObjectStorage   objects are fetched by ranges; they appear complete

Names are posix paths below the store. Nothing that lies in a store counts until its manifest names it.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.local_storage import LocalStorage
from bytropix.datasets.store.object_storage import ObjectStorage, is_url
from bytropix.datasets.store.ranges import Ranges
from bytropix.datasets.store.schema import FileRecord

__all__ = ["LocalStorage", "ObjectStorage", "Storage", "StoredFile", "is_url", "open_storage", "same_files"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file to write, in memory."""

    name: str
    """Posix path below the folder it is written to."""
    pieces: Sequence[bytes | memoryview]
    """Its bytes, end to end; long ones are views, so that nothing is copied."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(len(piece) for piece in self.pieces)


class Storage(Protocol):
    """What writing and reading a store needs of the place where it lies. Safe for threads and processes.

    Every method raises StoreError, with the place and a remedy, where the system refuses.
    """

    url: str
    """The place, for messages and for opening it again."""
    listed: bool
    """Whether it can tell what lies there; a plain web server cannot, and its `sizes` are empty."""

    @property
    def local(self) -> Path | None:
        """Its folder, `None` if it is on no disk of this machine."""
        ...

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, `None` if there is none of that name."""
        ...

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the name and bytes of every file below a folder, sorted by name."""
        ...

    def read(self, name: str) -> NDArray[np.uint8]:
        """Return a file: mapped where it is local, fetched otherwise."""
        ...

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop` of a file; where it ends before, fewer, or an error."""
        ...

    def ranges(self, name: str, record: FileRecord) -> Ranges:
        """Return a file that a manifest names, to be read by ranges."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file as a whole, in place of what is there."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file as a whole unless there is one; return whether it was written. Of two callers one succeeds."""
        ...

    def write_folder(self, name: str, files: Sequence[StoredFile]) -> None:
        """Write a folder: as a whole on a disk, file by file on an object store."""
        ...

    def open_write(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Give a file for a long stream, which takes its name when the block ends well and vanishes otherwise."""
        ...

    def link(self, source: str, target: str) -> None:
        """Let a second name stand for the same bytes, in place of what is there: a hard link, or a copy."""
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Remove files, and folders that are then empty. What is gone already is no error."""
        ...

    def prune(self) -> None:
        """Remove folders that hold no file."""
        ...


def open_storage(place: str | Path) -> Storage:
    """Return the storage at a path or URL; nothing is read or made yet.

    Raises:
        StoreError: The URL's protocol is unknown or its package is not installed.
    """
    if is_url(place) and not str(place).startswith("file://"):
        return ObjectStorage(str(place))
    return LocalStorage(Path(str(place).removeprefix("file://")))


def same_files(storage: Storage, folder: str, files: Sequence[FileRecord]) -> bool:
    """Return whether every file is there with its size and hash."""
    return next(differing_files(storage, folder, files), None) is None


def differing_files(storage: Storage, folder: str, files: Sequence[FileRecord]) -> Iterator[tuple[str, str]]:
    """Give name and fault of every file that is not what its record says."""
    for file in files:
        name = f"{folder}/{file.path}" if folder else file.path
        size = storage.size(name)
        if size is None:
            yield name, "missing"
        elif size != file.size:
            yield name, f"{size} bytes instead of {file.size}"
        elif file.hash_of(storage.read(name).data) != file.sha256:
            yield name, "its sha256 is wrong"
