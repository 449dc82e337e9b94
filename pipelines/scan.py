"""From files to documents: open, read, hash, cut, once.

    SourceFile -> open -> HashingStream -> read_records -> Cutter -> ScannedFile: documents, sha256 of the file,
                                                                     or the reason why the file is refused
                                                                  -> spool/00007.bin, what does not lie there as such

A scan is a task for a runner: it knows nothing of other files, and what it returns is small.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import Storage, open_storage
from bytropix.datasets.store.commit import room_for
from bytropix.pipelines.cleaning import signer
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.cutter import Cutter
from bytropix.pipelines.documents import FileDocuments
from bytropix.pipelines.reasons import EMPTY
from bytropix.pipelines.sources import SourceFault, SourceFile, open_source, read_records
from bytropix.pipelines.sources.files import STDIN
from bytropix.pipelines.workplace import SPOOL, batches, is_elsewhere

READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class ScannedFile:
    """A source file after its scan."""

    file: SourceFile
    documents: FileDocuments
    kind: str = ""
    """How it was read."""
    size: int = 0
    """Bytes that were read."""
    sha256: str = ""
    """Of the whole file, in hex."""
    refused: str = ""
    """Why it is refused; empty if it is not."""
    bad: tuple[tuple[str, str, int], ...] = ()
    """Name, reason and bytes read of each record that was refused."""
    dropped: dict[str, int] = field(default_factory=dict)
    """How many documents were left out, by cause."""
    signatures: NDArray[np.uint32] = field(default_factory=lambda: np.empty((0, 0), np.uint32))
    """MinHash of each document, where near duplicates are to be dropped."""


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Some files to scan."""

    files: tuple[tuple[int, SourceFile], ...]
    """Each with its number among all files, which names its spool file."""
    url: str
    """The store's place."""
    config: IngestConfig
    keep: bool
    """Whether to write spool files; if not, documents cannot be read again."""
    strict: bool
    """Whether to stop at the first bad record of a file."""

    def __str__(self) -> str:
        return f"scan {self.files[0][1].name}"

    @property
    def is_stdin(self) -> bool:
        """Whether only the process that the user started can do it."""
        return self.files[0][1].path == STDIN


def scan_tasks(
    files: Sequence[SourceFile], url: str, config: IngestConfig, *, keep: bool, strict: bool
) -> Iterator[ScanTask]:
    """Give the tasks, see `batches`."""
    return (ScanTask(batch, url, config, keep, strict) for batch in batches(files))


def do_scan(task: ScanTask) -> list[ScannedFile]:
    """Scan files one after the other.

    Raises:
        StoreError: A spool file cannot be written.
        ConfigError: Near duplicates are to be found and datasketch is not installed.
    """
    storage = open_storage(task.url)
    return [scan(file, number, task.config, storage, keep=task.keep, strict=task.strict) for number, file in task.files]


def scan(
    file: SourceFile, number: int, config: IngestConfig, storage: Storage, *, keep: bool = True, strict: bool = False
) -> ScannedFile:
    """Read a file once and return its documents.

    Raises:
        StoreError: The spool file cannot be written.
    """
    if file.refused:
        return refused(file, file.refused)
    stream: HashingStream | None = None
    try:
        with ExitStack() as stack:
            spool = Spool(storage, f"{SPOOL}/{number:05d}.bin", stack, keep=keep)
            try:
                is_local = not is_elsewhere(file)
                stream = HashingStream(stack.enter_context(open_source(file.path)), seekable=is_local)
                cutter = Cutter(config, spool.write, in_place=is_local, sign=signer(config.clean.near_duplicates))
                kind = _read(stream, file, config, cutter, strict=strict)
                stream.finish()
            except OSError as error:
                raise SourceFault(f"cannot be read: {error.strerror or error}") from error
    except SourceFault as fault:
        return refused(file, str(fault), stream.size if stream else 0)
    if not stream.size:
        return refused(file, EMPTY)
    documents = cutter.documents(file.name, file.path, spool.name if spool.size else "")
    if not (len(documents) or cutter.bad or cutter.dropped):
        return refused(file, "holds no document", stream.size)
    return ScannedFile(
        file=file,
        documents=documents,
        kind=kind,
        size=stream.size,
        sha256=stream.sha256,
        bad=tuple(cutter.bad),
        dropped=dict(cutter.dropped),
        signatures=cutter.signatures(),
    )


def refused(file: SourceFile, reason: str, size: int = 0) -> ScannedFile:
    """Return a file that is not read, or no further."""
    none = Cutter(IngestConfig(), len, in_place=True).documents(file.name, file.path, "")
    return ScannedFile(file=file, documents=none, size=size, refused=reason)


def _read(stream: "HashingStream", file: SourceFile, config: IngestConfig, cutter: Cutter, *, strict: bool) -> str:
    """Let a file's records be cut and return its kind."""
    buffered = io.BufferedReader(stream, READ_BYTES)
    kind, items = read_records(cast(BinaryIO, buffered), file.name, config.read)
    for item in items:
        cutter.take(item)
        if strict and cutter.bad:
            break
    buffered.detach()
    return kind


class Spool:
    """A file of the store that holds documents until they are in parts; begun when something is written."""

    def __init__(self, storage: Storage, name: str, stack: ExitStack, *, keep: bool) -> None:
        self.name, self.size = name, 0
        self._storage, self._stack, self._keep = storage, stack, keep
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> int:
        """Keep bytes and return where they begin."""
        begin = self.size
        self.size += len(data)
        if self._keep:
            if self._file is None:
                self._file = self._stack.enter_context(self._storage.open_write(self.name))
            with room_for(Path(self._storage.url) / self.name):
                self._file.write(data)
        return begin


class HashingStream(io.RawIOBase):
    """A stream that is hashed as it is read.

    Args:
        stream: What is read.
        seekable: Whether readers may move about in it. Where they do, the rest is hashed at the end.
    """

    def __init__(self, stream: BinaryIO, *, seekable: bool) -> None:
        self._stream, self._seekable = stream, seekable
        self._sha256 = hashlib.sha256()
        self._place = self.size = 0
        self._gap = False

    @property
    def sha256(self) -> str:
        """Of what was read, in hex."""
        return self._sha256.hexdigest()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """Whether readers may move about."""
        return self._seekable

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and return how many bytes."""
        with memoryview(buffer) as view, view.cast("B") as target:
            data = self._stream.read(len(target)) or b""
            target[: len(data)] = data
        begin, self._place = self._place, self._place + len(data)
        self._gap |= begin > self.size
        if not self._gap and self._place > self.size:
            self._sha256.update(memoryview(data)[self.size - begin :])
            self.size = self._place
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        if not self._seekable:
            raise io.UnsupportedOperation("seek")
        self._place = self._stream.seek(offset, whence)
        return self._place

    def tell(self) -> int:
        """Return the place in the stream."""
        return self._place

    def finish(self) -> None:
        """Hash what no reader asked for."""
        if self._gap:
            self._sha256, self.size, self._gap = hashlib.sha256(), 0, False
        if self._place != self.size:
            self.seek(self.size)
        buffer = bytearray(READ_BYTES)
        while self.readinto(buffer):
            pass
