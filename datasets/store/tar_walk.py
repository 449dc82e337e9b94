"""Walking a tar header by header, in one pass, so that nothing that is cut or damaged is taken for its end.

    stream -> header blocks, one after another -> members, in order -> the bytes of each, with their place in the stream

Headers are walked here and not by `tarfile`, which takes a damaged header, or an archive cut between two members, for
the end of the archive. A tar ends with a block of zeros, and all of it is read, so concatenated tars are one.
"""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

UNIT = tarfile.BLOCKSIZE  # 512 bytes: headers are one, data is padded to a multiple
SKIPPED_BYTES = 1 << 20  # read at a time of what nobody wants
MOST_EXTENDED = 1 << 20  # bytes of a header that extends the next one: a long name, pax keywords
WITHOUT_DATA = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "",
}


class TarFault(Exception):  # noqa: N818 - as SourceFault
    """A tar that is damaged or cut short, or no tar; the message says where."""


class TarWalk:
    """Where a stream stands in a tar.

    Attributes:
        place: Bytes that were read.
        header_at: Where the last header begins.
        gap: Bytes of zeros before it; there are some where tars follow each other.
        zeros: Bytes of zeros behind the last member, so far.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.place = self.header_at = self.gap = self.zeros = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        data = self._read(size)
        if len(data) < size:
            raise TarFault(f"truncated tar: it ends at byte {self.place:,}, inside a member")
        return data

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Give the members that are no folders. Those who get one may take its data, `size` bytes, or leave it."""
        keywords: dict[str, str] = {}  # for all members from here on
        extended: dict[str, str] = {}  # for the next member
        for header in self._headers():
            end = self.place + header.size + -header.size % UNIT
            if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                extended |= _pax(self._extension(header))
            elif header.type == tarfile.XGLTYPE:
                keywords |= _pax(self._extension(header))
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = _text(self._extension(header).partition(b"\0")[0])
            elif header.type == tarfile.GNUTYPE_LONGLINK:
                self._extension(header)
            else:
                header.pax_headers = keywords | extended
                extended = {}
                _apply(header)
                end = self.place
                if header.type not in WITHOUT_DATA:
                    end += header.size + -header.size % UNIT
                if header.type != tarfile.DIRTYPE:
                    yield header
            while self.place < end:
                self.take(min(end - self.place, SKIPPED_BYTES))

    def _headers(self) -> Iterator[tarfile.TarInfo]:
        """Give what each header block says, to the end of the file."""
        while True:
            begin = self.place
            block = self._read(UNIT)
            if not block:
                break
            if not block.strip(b"\0"):
                self.zeros += len(block)
                continue
            self.header_at, self.gap, self.zeros = begin, self.zeros, 0
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.HeaderError, ValueError) as error:
                what = f"a broken header at byte {begin:,}, or bytes after the end" if begin else "not a tar file"
                raise TarFault(f"{what}: {error}") from error
            if header.size < 0:
                raise TarFault(f"a broken header at byte {begin:,}: a member of {header.size} bytes")
            if header.type == tarfile.GNUTYPE_SPARSE and block[482]:
                while self.take(UNIT)[504]:
                    pass
            yield header
        if not self.zeros:
            raise TarFault(f"truncated tar: it ends at byte {self.place:,}, without the zeros that close it")

    def _read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only where the stream ends; pipes and sockets give what they have."""
        data = self._stream.read(size) or b""
        while 0 < len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                break
            data += more
        self.place += len(data)
        return data

    def _extension(self, header: tarfile.TarInfo) -> bytes:
        """Return the data of a header that extends the next one."""
        if header.size > MOST_EXTENDED:
            raise TarFault(f"a broken header before byte {self.place:,}: {header.size:,} bytes of name or keywords")
        return self.take(header.size)


def _pax(data: bytes) -> dict[str, str]:
    """Return the keywords of a pax header: records of their own length, a space, `key=value` and a newline."""
    keywords: dict[str, str] = {}
    while data.strip(b"\0"):
        digits, space, _ = data[:20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record, data = data[len(digits) + 1 : length], data[length:]
        key, equals, value = record[:-1].partition(b"=")
        if not (space and equals and record.endswith(b"\n")):
            raise TarFault("a broken header: keywords that do not add up")
        keywords[_text(key)] = _text(value)
    return keywords


def _apply(header: tarfile.TarInfo) -> None:
    """Let keywords replace what the header itself says."""
    header.name = header.pax_headers.get("path", header.name)
    size = header.pax_headers.get("size", "")
    if size and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise TarFault(f"a broken header: a member of {size[:40]!r} bytes")
    header.size = int(size or header.size)


def _text(name: bytes) -> str:
    """Return a name; bytes that are not UTF-8 stay what they are, as in names of files."""
    return name.decode("utf-8", "surrogateescape")
