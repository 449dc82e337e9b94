"""Pages of remote files on a disk of this machine, as many as fit a limit.

page of a file -> CACHE/pages/KEY -> its content, if it is whole        fetched page -> written beside -> renamed to KEY

A key tells the store's URL, the file's hash in the manifest and the place in it, so that a store that was changed or
appended to never meets an old page. Every page carries its length and checksum: what is torn or poisoned is dropped.

Many processes share the folder, and none holds a lock there: a page appears whole by its rename, one that vanishes
under a reader is fetched again, and whoever finds the folder full removes what was used least recently. A process that
is killed leaves at most a half-written file beside, which the next one sweeps.
"""

import hashlib
import os
import shutil
import struct
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import google_crc32c

from bytropix.datasets.store.commit import BESIDE
from bytropix.errors import ConfigError

PAGE_BYTES = 1 << 20
LIMIT_BYTES = 20 * 10**9
HEADER = struct.Struct("<4sIQ")  # mark, crc32c and length of what follows
MARK = b"bxp1"
STALE_SECONDS = 600  # a page is written in less than one


def cache_folder() -> Path:
    """Return where this user's programs may keep what can be made again; BYTROPIX_CACHE names another folder."""
    if "BYTROPIX_CACHE" in os.environ:
        return Path(os.environ["BYTROPIX_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "bytropix"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "bytropix"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bytropix"


def cache_limit() -> int:
    """Return how many bytes of pages may be kept: BYTROPIX_CACHE_BYTES, or 20 GB; 0 for none.

    Raises:
        ConfigError: It is no whole number from 0.
    """
    told = os.environ.get("BYTROPIX_CACHE_BYTES", str(LIMIT_BYTES))
    if not (told.isascii() and told.isdigit()):
        raise ConfigError(f"BYTROPIX_CACHE_BYTES must be a whole number of bytes from 0, got {told!r}")
    return int(told)


REFUSED_SECONDS = 5  # where there was no room, the folder is not looked through again for so long


class PageCache:
    """See the module. Safe for threads and processes.

    A file system that refuses, or is full, is no error: then less is kept, or nothing.

    Args:
        folder: Where pages are kept; made when the first one is.
        limit: Most bytes of files there; every process may exceed it by the page that it writes.

    Attributes:
        usable: Whether pages are kept: there is a limit above 0, and the last page could be written.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.usable = limit > 0
        self._lock = threading.Lock()
        self._again = 0.0  # when there may be room again
        self._room = 0  # bytes that may be written before the folder is looked through again

    def get(self, key: str, length: int) -> bytes | None:
        """Return a page of `length` bytes, `None` if it is not here or not whole; then it is no longer here."""
        if not self.limit:
            return None
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                head, content = file.read(HEADER.size), file.read(length + 1)
            os.utime(path)
        except OSError:  # never written, or removed by another process
            return None
        if len(content) != length or head != _header(content):
            self.drop(key)
            return None
        return content

    def has(self, key: str) -> bool:
        """Return whether a page is here, whole or not."""
        return bool(self.limit) and os.path.exists(self._path(key))  # noqa: PTH110  a folder that may not be read is none

    def put(self, key: str, content: bytes) -> None:
        """Keep a page, if there is room for it."""
        path = self._path(key)
        beside = path.with_name(f"{BESIDE}{uuid.uuid4().hex}")
        try:
            if time.monotonic() < self._again:
                return
            if not self._take_room(HEADER.size + len(content)):
                self.usable, self._again = False, time.monotonic() + REFUSED_SECONDS
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with beside.open("xb") as file:
                    file.write(_header(content))
                    file.write(content)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            self.usable = True
        except OSError:  # full, read-only, not ours: the page is there for its reader all the same
            self.usable = False

    def drop(self, key: str) -> None:
        """Remove a page."""
        with suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _take_room(self, size: int) -> bool:
        """Return whether so many bytes may be written, after making room for them if need be."""
        if size > self.limit:
            return False
        with self._lock:
            if self._room < size:
                self._room = self._make_room(size)
            self._room -= size
            return self._room >= 0

    def _make_room(self, size: int) -> int:
        """Remove pages until there is room; return how many bytes may be written until the next look.

        Other processes write too, and each knows only what it wrote itself. So a full folder is emptied to four fifths,
        and a process looks again after a fiftieth.
        """
        found = sorted(self._files())
        total = sum(n_bytes for _, n_bytes, _ in found)
        limit = min(self.limit, total + _free(self.folder) // 2)  # the last bytes of a disk are not for copies
        if total + max(size, limit // 50) > limit:
            for _, n_bytes, path in found:
                if total + size <= limit * 4 // 5:
                    break
                with suppress(OSError):
                    Path(path).unlink()
                total -= n_bytes
        return min(max(size, limit // 50), limit - total)

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """Give when each file was used last, its bytes and its path; sweep what a killed process left half-written."""
        with suppress(OSError):
            for shelf in os.scandir(self.folder):
                with suppress(OSError):
                    for entry in os.scandir(shelf):
                        with suppress(OSError):
                            about = entry.stat()
                            if entry.name.startswith(BESIDE) and about.st_mtime < time.time() - STALE_SECONDS:
                                Path(entry).unlink()
                            else:
                                yield about.st_mtime_ns, about.st_size, entry.path


def page_key(url: str, sha256: str, start: int, length: int) -> str:
    """Return the name of a page of a file: letters and digits, whatever a manifest says.

    The store's URL is in it: else a store could lend its own bytes to another, by claiming the hash of a file there.
    """
    return hashlib.sha256(f"{url}\0{sha256}\0{start}\0{length}".encode("utf-8", "surrogateescape")).hexdigest()


def _header(content: bytes) -> bytes:
    return HEADER.pack(MARK, google_crc32c.value(content), len(content))


def _free(folder: Path) -> int:
    """Return the free bytes of the disk that a folder lies on, or will."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
