"""Zip archives: each file in them is a record, and nothing is ever extracted.

central directory -> member, where its bytes lie -> as they are, with their place | decoded -> length and CRC checked
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from bytropix.pipelines.sources.compressed import DECODERS, DEFLATE, BrokenStreamError, Decoded
from bytropix.pipelines.sources.records import (
    BLOCK_BYTES,
    BadRecord,
    Block,
    ReadOptions,
    SourceFault,
    check_expansion,
    climbs_out,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LOCAL_HEADER = struct.Struct("<4s22xHH")  # of 30 bytes; then the name and the extra field
DECODED_BY = {zipfile.ZIP_DEFLATED: DEFLATE, zipfile.ZIP_BZIP2: DECODERS["bz2"]}
ENCRYPTED = 0x1


def read_zip(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the members of a zip archive.

    Args:
        stream: Seekable.
        options: `max_expansion` binds every member, and all of them together.

    Raises:
        SourceFault: It is no zip archive, its directory is damaged or cut off, or it expands too much.
    """
    size = stream.seek(0, io.SEEK_END)
    try:
        members = zipfile.ZipFile(stream).infolist()
    except (
        zipfile.BadZipFile,
        ValueError,
        EOFError,
        OSError,
        NotImplementedError,
        OverflowError,
        struct.error,
    ) as error:
        raise SourceFault(f"not a zip archive, or one cut short: {error}") from error
    given = 0
    for member in members:
        if member.filename.endswith("/"):
            continue  # a folder
        reason = _refusal(member)
        if reason:
            yield BadRecord(member.filename, reason)
            continue
        for one in _member(stream, member, options.max_expansion):
            if isinstance(one, Block):
                given += len(one.data)
                check_expansion(given, size, options.max_expansion)
            yield one


def _refusal(member: zipfile.ZipInfo) -> str:
    """Return why a member is not read, empty if it is."""
    if member.flag_bits & ENCRYPTED:
        return "encrypted"
    if member.compress_type != zipfile.ZIP_STORED and member.compress_type not in DECODED_BY:
        return f"compression method {member.compress_type} is not supported; pack it again with deflate"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a symbolic link"
    if climbs_out(member.orig_filename):
        return "its path leaves the archive"
    return "" if member.file_size else "empty"


def _member(stream: BinaryIO, member: zipfile.ZipInfo, max_expansion: float) -> Iterator[Block | BadRecord]:
    """Give one member, and a bad record after it if it proves not to be what the directory says."""
    name = member.filename
    header = b""
    if member.header_offset >= 0:
        stream.seek(member.header_offset)
        header = stream.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\3\4":
        yield BadRecord(name, "no member where the directory says")
        return
    _, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
    begin = member.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes
    raw: io.RawIOBase = _Range(stream, begin, member.compress_size)
    stored = member.compress_type == zipfile.ZIP_STORED
    if not stored:
        raw = Decoded(raw, DECODED_BY[member.compress_type], max_expansion)
    crc = done = 0
    try:
        while done < member.file_size and (data := raw.read(min(BLOCK_BYTES, member.file_size - done))):
            place = begin + done if stored else -1
            crc = zlib.crc32(data, crc)
            done += len(data)
            if done < member.file_size:
                yield Block(name, data, last=False, place=place)
        more = raw.read(1)
    except BrokenStreamError as error:
        yield BadRecord(name, str(error), done)
        return
    if done < member.file_size or more:
        yield BadRecord(
            name, f"{'more' if more else 'fewer'} bytes than the {member.file_size:,} of the directory", done
        )
    elif crc != member.CRC:
        yield BadRecord(name, "its bytes do not have the CRC of the directory", done)
    else:
        yield Block(name, data, last=True, place=place)


class _Range(io.RawIOBase):
    """Some bytes of a stream, found anew at every read, since others move in it."""

    def __init__(self, stream: BinaryIO, begin: int, size: int) -> None:
        self._stream = stream
        self._place = begin
        self._end = begin + size

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, out: "WriteableBuffer", /) -> int:
        """Read what is there, at most to the end of the range."""
        view = memoryview(out)
        self._stream.seek(self._place)
        data = self._stream.read(min(len(view), self._end - self._place))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)
