"""From files to documents: read, hash, cut.

    SourceFile -> blocks -> document_ends -> lengths u32[d], digests u64[d], sha256 of the file
                                          or the reason why the file is refused

Where a document ends depends on the bytes before that place alone, so a file that grows keeps the documents it had,
and a reader that goes byte by byte cuts where ingestion cut.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import SourceError
from bytropix.patching.limits import LONGEST_REST, PROMISED
from bytropix.pipelines.sources import SourceFile

SCAN_BYTES = 1 << 22  # of a file held at a time


@dataclass(frozen=True, slots=True, eq=False)
class ScannedFile:
    """A source file after its scan: 12 bytes of memory for each of its documents."""

    file: SourceFile
    size: int
    """Bytes that were read."""
    sha256: str
    """Of the whole file, in hex."""
    lengths: NDArray[np.uint32]
    """Bytes of each document; they lie end to end from the file's first byte."""
    digests: NDArray[np.uint64]
    """The first eight bytes of each document's sha256, as a number."""
    refused: str = ""
    """Why it is refused; empty if it is not."""


@dataclass(frozen=True, slots=True, eq=False)
class FileDocuments:
    """Some documents of one file, in order."""

    source: str
    path: str
    begins: NDArray[np.int64]
    """First byte of each in the file."""
    lengths: NDArray[np.uint32]
    digests: NDArray[np.uint64]

    @property
    def n_bytes(self) -> int:
        """Bytes of these documents."""
        return int(self.lengths.sum(dtype=np.int64))


def document_ends(data: bytes, limit: int, *, whole: bool = True) -> list[int]:
    """Return where documents end in `data`, which begins one.

    A document ends after its first newline at or past byte limit // 2, at the latest at `limit` bytes and as many
    more, at most three, as the last character still promises.

    Args:
        data: Bytes of a file, from the beginning of a document.
        limit: Most bytes of a document, apart from that rest of a character.
        whole: Whether the file ends with `data`, and with it the last document. If not, only those ends are given
            that the bytes decide; what follows the last one belongs to a document that goes on.
    """
    ends: list[int] = []
    begin = 0
    while begin < len(data):
        newline = data.find(b"\n", begin + limit // 2, begin + limit)
        end = newline + 1 if newline >= 0 else _end_past(data, begin + limit)
        if end > len(data) or end < 0:
            if whole:
                ends.append(len(data))
            break
        ends.append(end)
        begin = end
    return ends


def _end_past(data: bytes, limit: int) -> int:
    """Return the first place from `limit` on at which no character is under way, -1 if `data` ends before it."""
    if limit > len(data):
        return -1
    for end in range(limit, min(limit + LONGEST_REST, len(data) + 1)):
        if not _promised(data[end - LONGEST_REST : end]):
            return end
    return limit + LONGEST_REST


def _promised(tail: bytes) -> int:
    """Return how many continuation bytes are promised after `tail`, the last three bytes."""
    for back, byte in enumerate(reversed(tail)):
        if byte & 0xC0 != 0x80:
            return max(0, int(PROMISED[byte]) - back)
    return 0


def digest_of(document: bytes | memoryview) -> int:
    """Return the first eight bytes of the sha256 of a document, as a number from 0 to 2^64 - 1."""
    return int.from_bytes(hashlib.sha256(document).digest()[:8], "big")


def scan(file: SourceFile, limit: int) -> ScannedFile:
    """Read a file once, in blocks, and return its documents.

    Raises:
        SourceError: The user named this very file and it is empty or cannot be read.
    """
    whole = hashlib.sha256()
    lengths: list[NDArray[np.uint32]] = []
    digests: list[NDArray[np.uint64]] = []
    reason, size = file.refused, 0
    try:
        for text, ends in _documents_of(file, limit):
            begins = [0, *ends[:-1]]
            view = memoryview(text)
            digests.append(np.array([digest_of(view[a:b]) for a, b in zip(begins, ends, strict=True)], dtype=np.uint64))
            lengths.append(np.diff(ends, prepend=0).astype(np.uint32))
            whole.update(view[: ends[-1]])
            size += ends[-1]
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if not reason and not size:
        reason = "empty"
    if reason and file.named:
        raise SourceError(f"{file.path}: {reason}; give a readable file with at least one byte")
    if reason:
        lengths, digests = [], []
    return ScannedFile(
        file=file,
        size=size,
        sha256=whole.hexdigest(),
        lengths=np.concatenate([np.empty(0, np.uint32), *lengths]),
        digests=np.concatenate([np.empty(0, np.uint64), *digests]),
        refused=reason,
    )


def _documents_of(file: SourceFile, limit: int) -> Iterator[tuple[bytes, list[int]]]:
    """Give stretches of a file, each with at least one document and the ends of all its documents."""
    if file.refused:
        return
    with Path(file.path).open("rb") as stream:
        rest = b""
        while True:
            block = stream.read(max(SCAN_BYTES, 2 * limit))
            text = rest + block
            ends = document_ends(text, limit, whole=not block)
            if ends:
                yield text, ends
                text = text[ends[-1] :]
            if not block:
                return
            rest = text


def read_documents(files: tuple[FileDocuments, ...]) -> NDArray[np.uint8]:
    """Return the bytes of documents, end to end.

    Raises:
        SourceError: A file has changed since it was scanned, or cannot be read any more.
    """
    data = np.empty(sum(file.n_bytes for file in files), np.uint8)
    view = data.data
    place = 0
    for file in files:
        try:
            with Path(file.path).open("rb", buffering=0) as stream:
                rows = zip(file.begins.tolist(), file.lengths.tolist(), file.digests.tolist(), strict=True)
                for begin, length, digest in rows:
                    document = view[place : place + length]
                    stream.seek(begin)
                    if _fill(stream, document) < length or digest_of(document) != digest:
                        raise SourceError(
                            f"{file.path}: changed while it was read; leave it alone and run again with --overwrite"
                        )
                    place += length
        except OSError as error:
            raise SourceError(
                f"{file.path}: cannot be read any more ({error.strerror}); bring it back and run again with --resume"
            ) from error
    return data


def _fill(stream: FileIO, out: memoryview) -> int:
    """Read into `out` until it is full or the file ends; return the bytes read."""
    done = 0
    while done < len(out):
        read = stream.readinto(out[done:])
        if not read:
            break
        done += read
    return done
