"""Compressed files, decoded as they are read.

    stream -> 64 KiB at a time -> decoder of one compressed stream, then of the next -> a stream of what was compressed

Any number of compressed streams may follow one another, as in multi-member gzip and BGZF. Nothing is silent: a stream
that ends early, damage and foreign bytes after the end all refuse the file, and so does one that expands too much.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from bytropix.pipelines.sources.records import SourceFault, check_expansion

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FEED_BYTES = 1 << 16  # of compressed data that a decoder gets at a time
ZSTD_FEED_BYTES = 1 << 12  # its decoder cannot be told to stop: this much becomes at most 128 MiB
MOST_MEMORY = 1 << 28  # of an xz decoder
MOST_WINDOW = 1 << 27  # of a zstd decoder, as the program `zstd` has it unless told otherwise


class BrokenStreamError(SourceFault):
    """Compressed data that is damaged or ends early."""


class Decoder(Protocol):
    """A decoder of one compressed stream, as bz2 and lzma have them."""

    @property
    def eof(self) -> bool:
        """Whether the compressed stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether no output is left that is known already."""

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most `max_length` bytes of output."""


class _Inflate:
    """zlib's decoder in that form."""

    def __init__(self, wbits: int) -> None:
        self._decoder = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail or data, max_length)


class _Zstd:
    """zstandard's decoder of a frame in that form."""

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise SourceFault("reading zst needs zstandard; pip install zstandard") from error
        self._decoder = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj()
        self._error = zstandard.ZstdError
        self._left = memoryview(b"")

    @property
    def eof(self) -> bool:
        return self._decoder.eof and not self._left

    @property
    def needs_input(self) -> bool:
        return not self._left

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            left = self._left or memoryview(self._decoder.decompress(data))
        except self._error as error:
            raise ValueError(str(error)) from error
        self._left = left[max_length:]
        return bytes(left[:max_length])


@dataclass(frozen=True, slots=True)
class Compression:
    """A way to compress."""

    title: str
    """How messages call it."""
    suffixes: tuple[str, ...]
    """Ends of file names, in lower case."""
    archive_suffixes: tuple[str, ...]
    """Ends of the names of tars that are compressed so."""
    magic: tuple[bytes, ...]
    """How a compressed stream may begin."""
    decoder: Callable[[], Decoder]
    """Makes a decoder."""
    feed_bytes: int = FEED_BYTES
    """Compressed bytes that a decoder gets at a time."""
    several: bool = True
    """Whether streams may follow one another, with zeros between them."""


DECODERS = {
    "gz": Compression("gzip", (".gz", ".bgz", ".bgzf"), (".tgz",), (b"\x1f\x8b",), lambda: _Inflate(31)),
    "bz2": Compression("bzip2", (".bz2",), (".tbz2", ".tbz"), (b"BZh",), bz2.BZ2Decompressor),
    "xz": Compression(
        "xz",
        (".xz",),
        (".txz",),
        (b"\xfd7zXZ\0",),
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_MEMORY),
    ),
    "zst": Compression(
        "zstd",
        (".zst", ".zstd"),
        (".tzst",),
        (b"\x28\xb5\x2f\xfd", *(bytes([number]) + b"\x2a\x4d\x18" for number in range(0x50, 0x60))),
        _Zstd,
        ZSTD_FEED_BYTES,
    ),
}
DEFLATE = Compression("deflate", (), (), (b"",), lambda: _Inflate(-15), several=False)
ZLIB = Compression("zlib", (), (), (b"\x78",), lambda: _Inflate(15), several=False)


class Decoded(io.RawIOBase):
    """What a compressed stream holds, as a stream that is read in order."""

    def __init__(self, source: BinaryIO | io.RawIOBase, compression: Compression, max_expansion: float) -> None:
        self._source = source
        self._compression = compression
        self._max_expansion = max_expansion
        self._decoder: Decoder | None = None
        self._rest = b""  # compressed bytes that no decoder has taken
        self._streams = 0
        self.taken = 0
        """Compressed bytes that were decoded."""
        self.given = 0
        """Bytes that they became."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, out: "WriteableBuffer", /) -> int:
        """Fill `out`, unless the end comes first.

        Raises:
            BrokenStreamError: The data is damaged or ends early.
            SourceFault: It expands too much.
        """
        view = memoryview(out)
        filled = 0
        while filled < len(view) and (piece := self._piece(len(view) - filled)):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def _piece(self, most: int) -> bytes:
        """Return some of what comes next, nothing at the end."""
        while True:
            self._decoder = decoder = self._decoder or self._next_stream()
            if decoder is None:
                return b""
            data = b""
            if decoder.needs_input:
                data, self._rest = self._rest or self._read(), b""
            try:
                piece = decoder.decompress(data, most)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError) as error:
                raise BrokenStreamError(f"broken {self._compression.title} stream: {error}") from error
            self.taken += len(data)
            self.given += len(piece)
            check_expansion(self.given, self.taken, self._max_expansion)
            if decoder.eof:
                self._rest = decoder.unused_data
                self.taken -= len(self._rest)
                self._decoder = None
            elif not piece and not data:
                raise BrokenStreamError(f"truncated {self._compression.title} stream")
            if piece:
                return piece

    def _next_stream(self) -> Decoder | None:
        """Return a decoder for the stream that begins here, None at the end of the data."""
        title, magic = self._compression.title, self._compression.magic
        while True:
            if self._streams and self._compression.several:
                self._rest = self._rest.lstrip(b"\0")
            if len(self._rest) >= max(map(len, magic)) and self._rest:
                break
            more = self._read()
            if not more:
                break
            self._rest += more
        if not self._rest:
            return None
        if not self._rest.startswith(magic) or (self._streams and not self._compression.several):
            if any(each.startswith(self._rest) for each in magic):
                raise BrokenStreamError(f"truncated {title} stream")
            if self._streams:
                raise BrokenStreamError(f"bytes after the end of the {title} stream that are no {title}; cut them off")
            raise BrokenStreamError(f"no {title} data in it; name it for what it is, or read it with --kind plain")
        self._streams += 1
        return self._compression.decoder()

    def _read(self) -> bytes:
        return self._source.read(self._compression.feed_bytes) or b""
