"""A store in a folder of this machine.

write beside under a name of its own -> flush to disk -> rename -> flush the folder's entry

Names beside are unique, since two workers may write one part: one that a cluster has given up may still be alive.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.commit import BESIDE, flush, flush_folder, rename, room_for, write_pieces
from bytropix.datasets.store.ranges import MappedFile
from bytropix.datasets.store.schema import FileRecord
from bytropix.errors import StoreError, UnreachableError

if TYPE_CHECKING:
    from bytropix.datasets.store.storage import StoredFile

BUFFER_BYTES = 1 << 20  # tars are many short pieces


class LocalStorage:
    """See `Storage`.

    Args:
        root: The store's folder; it is made when something is written.
    """

    listed = True

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self._root = root

    @property
    def local(self) -> Path:
        """Its folder."""
        return self._root

    def size(self, name: str) -> int | None:
        """Return the bytes of a file."""
        path = self._root / name
        try:
            return path.stat().st_size if path.is_file() else None
        except FileNotFoundError:  # gone between the two
            return None
        except (OSError, ValueError) as error:  # no permission, or a name that can be none
            raise StoreError(f"{path}: cannot be read ({error}); restore it or ingest again") from error

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the name and bytes of every file below a folder."""
        found: dict[str, int] = {}
        for place, _, files in os.walk(self._root / folder):
            for entry in files:
                path = Path(place) / entry
                with suppress(FileNotFoundError):
                    found[path.relative_to(self._root).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def read(self, name: str) -> NDArray[np.uint8]:
        """Return a file, mapped."""
        path = self._root / name
        try:
            if not path.stat().st_size:
                return np.empty(0, np.uint8)
            return np.memmap(path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise UnreachableError(
                    f"{path}: cannot be opened beside all else that is open ({error.strerror}); allow more, as with "
                    "`ulimit -n 4096`"
                ) from error
            raise StoreError(f"{path}: cannot be read ({error}); restore it or ingest again") from error

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes `start` to `stop` of a file."""
        path = self._root / name
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                return file.read(stop - start)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}); restore it or ingest again") from error

    def ranges(self, name: str, record: FileRecord) -> MappedFile:
        """Return a file, mapped; the record is not looked at, since the file is here."""
        return MappedFile(self.read(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file as a whole."""
        with self.open_write(name) as file:
            write_pieces(file, [data])

    def create(self, name: str, data: bytes) -> bool:
        """Write a file as a whole unless there is one."""
        path = self._root / name
        with room_for(path), self._beside(path) as beside:
            with beside.open("wb") as file:
                write_pieces(file, [data])
                flush(file)
            try:
                os.link(beside, path)
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links
                if path.exists():
                    return False
                rename(beside, path)
            flush_folder(path.parent)
        return True

    def write_folder(self, name: str, files: "Sequence[StoredFile]") -> None:
        """Write a folder as a whole."""
        path = self._root / name
        with room_for(path), self._beside(path) as beside:
            beside.mkdir()
            for item in files:
                place = beside / item.name
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    write_pieces(file, item.pieces)
                    flush(file)
            for folder in sorted({(beside / item.name).parent for item in files} | {beside}):
                flush_folder(folder)
            self._exchange(beside, path)
            flush_folder(path.parent)

    @contextmanager
    def open_write(self, name: str) -> Iterator[BinaryIO]:
        """Give a file that takes its name when the block ends well."""
        path = self._root / name
        with room_for(path), self._beside(path) as beside:
            with beside.open("wb", buffering=BUFFER_BYTES) as file:
                yield file
                flush(file)
            rename(beside, path)
            flush_folder(path.parent)

    def link(self, source: str, target: str) -> None:
        """Let a second name stand for the same bytes."""
        path = self._root / target
        with room_for(path), self._beside(path) as beside:
            try:
                os.link(self._root / source, beside)
            except OSError:  # a file system without hard links
                shutil.copyfile(self._root / source, beside)
                with beside.open("rb+") as file:
                    flush(file)
            rename(beside, path)
            flush_folder(path.parent)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files, and folders that are then empty."""
        with room_for(self._root):
            for name in names:
                (self._root / name).unlink(missing_ok=True)
            for folder in sorted({step for name in names for step in Path(name).parents}, key=str, reverse=True):
                with suppress(OSError):  # not empty, or gone
                    (self._root / folder).rmdir()

    def prune(self) -> None:
        """Remove folders that hold no file, as a process leaves that was killed before it wrote one."""
        for place, _, _ in os.walk(self._root, topdown=False):
            with suppress(OSError):  # not empty, or gone
                Path(place).rmdir()

    @contextmanager
    def _beside(self, path: Path) -> Iterator[Path]:
        """Give a name beside `path` and remove what is still there under it at the end."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{BESIDE}{path.name}-{uuid.uuid4().hex}")
        try:
            yield beside
        finally:
            if beside.is_dir():
                shutil.rmtree(beside, ignore_errors=True)
            else:
                beside.unlink(missing_ok=True)

    def _exchange(self, beside: Path, path: Path) -> None:
        """Give a folder its name. A folder cannot be renamed onto one that holds something, so that one moves first."""
        while True:
            old = path.with_name(f"{BESIDE}{path.name}-{uuid.uuid4().hex}")
            with suppress(FileNotFoundError):
                rename(path, old)
            try:
                rename(beside, path)
                return
            except OSError:
                if not path.exists():
                    raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
