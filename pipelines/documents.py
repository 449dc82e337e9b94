"""From files to documents: read, hash, cut, choose a side.

    SourceFile -> sha256 of the file, documents (offset, length, sha256), or a reason why it is refused

A long file is cut after the last newline in reach, else before a character's first byte, so that no character is split.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import SourceError
from bytropix.pipelines.sources import SourceFile


@dataclass(frozen=True, slots=True)
class Document:
    """A stretch of a source file."""

    offset: int
    """First byte in the file."""
    length: int
    """Bytes."""
    digest: bytes
    """sha256 of the content."""

    def in_val(self, fraction: float) -> bool:
        """Return whether the content's hash puts the document in the val split."""
        return int.from_bytes(self.digest[:8], "big") < fraction * 2**64


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A source file after its scan."""

    name: str
    path: Path
    size: int
    sha256: str
    documents: tuple[Document, ...]
    refused: str
    """Why it is refused; empty if it is not."""


def scan(task: tuple[SourceFile, int]) -> ScannedFile:
    """Read a file once, in pieces, and return its documents.

    Raises:
        SourceError: The user named this very file and it is empty or cannot be read.
    """
    file, document_bytes = task
    whole = hashlib.sha256()
    documents: list[Document] = []
    reason, offset = "", 0
    try:
        with file.path.open("rb") as stream:
            rest = b""
            limit = document_bytes or None
            while True:
                data = stream.read() if limit is None else stream.read(max(limit * 8, 1 << 22))
                whole.update(data)
                text, rest = rest + data, b""
                last = limit is None or not data
                begin = 0
                for end in cuts(text, limit, last=last):
                    piece = text[begin:end]
                    documents.append(Document(offset + begin, len(piece), hashlib.sha256(piece).digest()))
                    begin = end
                rest, offset = text[begin:], offset + begin
                if last:
                    break
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if not reason and offset == 0:
        reason = "empty"
    if reason and file.named:
        raise SourceError(f"{file.path}: {reason}; give a readable file with at least one byte")
    if reason:
        documents = []
    return ScannedFile(file.name, file.path, offset, whole.hexdigest(), tuple(documents), reason)


def cuts(text: bytes, limit: int | None, *, last: bool) -> list[int]:
    """Return where documents end in `text`, each at most `limit` bytes long.

    Args:
        text: Bytes that begin a document.
        limit: Most bytes of a document; `None` for no cut.
        last: Whether the file ends with `text`; otherwise what follows the last cut is left for the next piece.
    """
    if limit is None:
        return [len(text)] if text else []
    ends: list[int] = []
    begin = 0
    while len(text) - begin > limit:
        begin = _cut(text, begin, limit)
        ends.append(begin)
    if last and begin < len(text):
        ends.append(len(text))
    return ends


def _cut(text: bytes, begin: int, limit: int) -> int:
    """Return the end of the document that begins at `begin`, which more than `limit` bytes follow."""
    newline = text.rfind(b"\n", begin + limit // 2, begin + limit)
    if newline >= 0:
        return newline + 1
    end = begin + limit
    for back in range(4):
        if text[end - back] & 0xC0 != 0x80:
            return end - back
    return end


def read_document(path: Path, document: Document) -> NDArray[np.uint8]:
    """Return a document's bytes.

    Raises:
        SourceError: The file has changed since it was scanned.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(document.offset)
            data = stream.read(document.length)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read any more ({error.strerror}); run again with --resume") from error
    if hashlib.sha256(data).digest() != document.digest:
        raise SourceError(f"{path}: changed while it was read; leave it alone and run again with --overwrite")
    return np.frombuffer(data, np.uint8)
