"""Whether a file has been cut off, as its container's own bookkeeping says.

    first or last bytes of the file -> what they promise -> is all of it there?

FFmpeg reads a shortened Matroska, Ogg, GIF or MPEG transport stream to its end without a word. These looks cost a few
reads and take nothing for cut off that may be whole: where a container says nothing, the answer is no.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

SEGMENT = b"\x18\x53\x80\x67"
OGG_PAGE = 27  # bytes of a page's head, before its table of segments
OGG_LAST = 4
LONGEST_OGG_PAGE = 65307
GIF_END = b"\x00\x3b"  # of the last block, and of the file
TS_SYNC = 0x47
TS_PACKETS = (188, 192, 204)
LONG_BOX = 1
MOST_BOXES = 2**20


def cut_off(path: str, container: str) -> bool:
    """Return whether a file is shorter than it says, given FFmpeg's name of its container."""
    look = next((look for name, look in LOOKS.items() if name in container.split(",")), None)
    if look is None:
        return False
    with Path(path).open("rb") as file:
        return look(file, os.fstat(file.fileno()).st_size)


def _boxes(file: BinaryIO, size: int) -> bool:
    """MP4: a chain of boxes, each with its length, must end where the file does."""
    place = 0
    for _ in range(MOST_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:  # the beginning of a box's length, which is below 16 MiB; anything else is no box
            return any(head) and head[0] == 0
        length = int(struct.unpack(">I", head[:4])[0])
        if length == LONG_BOX and len(head) == 16:
            length = int(struct.unpack(">Q", head[8:])[0])
        if length < 8 or not head[4:8].rstrip().isalnum():  # 0: to the end of the file; else no box
            return False
        place += length
        if place >= size:
            return place > size
    return False


def _segment(file: BinaryIO, size: int) -> bool:
    """Matroska: the segment that holds everything states its length, unless it is all ones: unknown."""
    head = file.read(4096)
    at = head.find(SEGMENT)
    if at < 0 or at + 12 > len(head):
        return False
    first = head[at + 4]
    n_bytes = 9 - first.bit_length()
    if n_bytes > 8:
        return False
    value = int.from_bytes(head[at + 4 : at + 4 + n_bytes]) & ((1 << 7 * n_bytes) - 1)
    return value != (1 << 7 * n_bytes) - 1 and at + 4 + n_bytes + value > size


def _pages(file: BinaryIO, size: int) -> bool:
    """Ogg: the last page is whole. That it is not flagged as the last is no sign: some writers forget it."""
    file.seek(max(0, size - 2 * LONGEST_OGG_PAGE))
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0:
        return True
    if at + OGG_PAGE > len(tail):
        return True
    n_segments = tail[at + 26]
    table = tail[at + OGG_PAGE : at + OGG_PAGE + n_segments]
    return len(table) < n_segments or at + OGG_PAGE + n_segments + sum(table) > len(tail)


def _trailer(file: BinaryIO, size: int) -> bool:
    """GIF: ends with a trailer; some writers fill up with zeros, some tools add a line's end."""
    file.seek(max(0, size - 4096))
    return not file.read().rstrip(b"\0\r\n\t ").endswith(GIF_END)


def _packets(file: BinaryIO, size: int) -> bool:
    """MPEG transport stream: packets of one length."""
    head = file.read(5 * max(TS_PACKETS))
    for length in TS_PACKETS:
        begin = length % 188 if length == 192 else 0  # four bytes of time stand before each packet of 192
        if len(head) >= begin + 4 * length and all(head[begin + k * length] == TS_SYNC for k in range(4)):
            return size % length != 0
    return False


def _riff(file: BinaryIO, size: int) -> bool:
    """AVI: the first list states its length, unless its writer has not come back to fill it in."""
    head = file.read(8)
    if len(head) < 8 or head[:4] != b"RIFF":
        return False
    length = int(struct.unpack("<I", head[4:])[0])
    return 0 < length < 2**31 and 8 + length > size


LOOKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "mp4": _boxes,
    "matroska": _segment,
    "ogg": _pages,
    "gif": _trailer,
    "mpegts": _packets,
    "avi": _riff,
}
