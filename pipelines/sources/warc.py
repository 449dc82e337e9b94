"""WARC files: the payload of each response, resource and conversion is a record.

    stream -> warcio: record and HTTP headers -> chunks, content encoding -> payload

warcio's own loop over records takes a file that is cut inside a record for a whole one, and its decoders give what they
have when a payload is damaged, so both are done here.
"""

import io
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from bytropix.pipelines.sources.compressed import DECODERS, ZLIB, Decoded
from bytropix.pipelines.sources.records import (
    BLOCK_BYTES,
    BadRecord,
    Block,
    ReadOptions,
    SourceFault,
    blocks_of,
    buffered,
    pieces_of,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LONGEST_HEADER = 1 << 16  # bytes of a line
MOST_HEADERS = 1 << 18  # bytes of all headers of a record
LONGEST_CHUNK_HEADER = 64
WANTED = ("response", "resource", "conversion")
ENCODINGS = {"gzip": DECODERS["gz"], "x-gzip": DECODERS["gz"], "deflate": ZLIB}


def read_warc(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the payloads; the record is the target URI.

    HTTP headers, chunks and the encodings gzip and deflate are taken off. A payload that is said to be chunked or
    encoded and does not begin so was decoded by the crawler, and is given as it is.

    Raises:
        SourceFault: It is no WARC file, damaged, or cut short.
    """
    try:
        from warcio.recordloader import ArcWarcRecordLoader
    except ImportError as error:
        raise SourceFault("reading WARC needs warcio; pip install warcio") from error
    logging.getLogger("warcio").setLevel(logging.ERROR)  # it warns about each URI with a space in it
    loader = ArcWarcRecordLoader(verify_http=False, arc2warc=False)
    lines = _Lines(stream)
    while line := lines.readline():
        if line.isspace():
            continue
        if not line.startswith(b"WARC/"):
            raise SourceFault(f"broken WARC, or none: no record begins at byte {lines.tell() - len(line):,}")
        record = _parsed(loader, lines, line)
        if record.rec_type in WANTED:
            yield from _payload(record, options)
        for _ in pieces_of(record.raw_stream):
            pass
        if record.raw_stream.limit:
            raise SourceFault(f"truncated WARC: it ends at byte {lines.tell():,}, inside a record")


def _parsed(loader: Any, lines: "_Lines", line: bytes) -> Any:
    """Return the record that begins with `line`, its headers read."""
    place = lines.tell() - len(line)
    lines.left = MOST_HEADERS
    try:
        record = loader.parse_record_stream(lines, line, "warc")
    except SourceFault:
        raise
    except Exception as error:  # warcio's errors have no common root, and strange headers raise Python's own
        raise SourceFault(f"broken WARC: the record at byte {place:,}: {error or type(error).__name__}") from error
    lines.left = sys.maxsize
    length = record.rec_headers.get_header("Content-Length") or ""
    if not (length.isascii() and length.isdigit()):
        raise SourceFault(f"broken WARC: the record at byte {place:,} has no length")
    return record


def _payload(record: Any, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the payload of a record, and a bad record after it if it proves not to be whole."""
    name = record.rec_headers.get_header("WARC-Target-URI") or record.rec_headers.get_header("WARC-Record-ID") or ""
    given = 0
    try:
        for block in blocks_of(name, _decoded(record, options)):
            given += len(block.data)
            yield block
    except SourceFault as error:
        yield BadRecord(name, f"a payload that cannot be decoded: {error}", given)
        return
    if not given:
        yield BadRecord(name, "empty")


def _decoded(record: Any, options: ReadOptions) -> Iterator[bytes]:
    """Give the payload without chunks and encoding."""
    pieces = pieces_of(record.raw_stream)
    chunking = encoding = ""
    if record.http_headers:
        chunking = (record.http_headers.get_header("transfer-encoding") or "").strip().lower()
        encoding = (record.http_headers.get_header("content-encoding") or "").strip().lower()
    if chunking == "chunked":
        pieces = _chunks(record.raw_stream)
    if encoding in ("", "identity"):
        return pieces
    if encoding not in ENCODINGS:
        raise SourceFault(f"content encoding {encoding[:40]!r} is not supported")
    source = buffered(_Joined(pieces))
    if source.peek(2).startswith(ENCODINGS[encoding].magic):
        source = buffered(Decoded(source, ENCODINGS[encoding], options.max_expansion))
    return pieces_of(source)


def _chunks(stream: Any) -> Iterator[bytes]:
    """Give what the chunks of a payload hold: each is its length in hex, a newline, bytes, a newline."""
    header = stream.readline(LONGEST_CHUNK_HEADER)
    size = _chunk_size(header)
    if size < 0:
        yield header
        yield from pieces_of(stream)
        return
    while size > 0:
        while size and (data := stream.read(min(size, BLOCK_BYTES))):
            size -= len(data)
            yield data
        if size or stream.read(2) != b"\r\n":
            raise SourceFault("a chunk is cut short")
        size = _chunk_size(stream.readline(LONGEST_CHUNK_HEADER))
    if size < 0:
        raise SourceFault("broken chunks")


def _chunk_size(header: bytes) -> int:
    """Return the length that the header of a chunk says, -1 if it is none."""
    digits = header.partition(b";")[0].strip()
    try:
        return int(digits, 16) if header.endswith(b"\r\n") and digits.isalnum() else -1
    except ValueError:
        return -1


class _Lines:
    """A stream with lines of bounded length, as warcio reads it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._place = 0
        self.left = sys.maxsize
        """Bytes of lines that may still be read."""

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._place

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        data = self._stream.read(size)
        self._place += len(data)
        return data

    def readline(self, size: int | None = None) -> bytes:
        """Return a line, or the beginning of a long one."""
        line = self._stream.readline(min(size or LONGEST_HEADER, LONGEST_HEADER))
        self._place += len(line)
        self.left -= len(line)
        if self.left < 0:
            raise SourceFault(f"broken WARC: headers of more than {MOST_HEADERS:,} bytes before byte {self._place:,}")
        return line


class _Joined(io.RawIOBase):
    """Pieces as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, out: "WriteableBuffer", /) -> int:
        """Fill `out` with some of what comes next."""
        view = memoryview(out)
        self._left = self._left or memoryview(next(self._pieces, b""))
        size = min(len(view), len(self._left))
        view[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
