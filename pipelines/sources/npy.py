"""NumPy files with one row of bytes, uint8: the bytes after the header.

    magic, header -> length -> blocks of one record without a name, with their place

The header is matched and never evaluated, and a pickle is never opened.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from bytropix.pipelines.sources.records import BLOCK_BYTES, BadRecord, Block, ReadOptions, SourceFault

MAGIC = b"\x93NUMPY"
MOST_HEADER = 10_000  # bytes; numpy's own bound
DESCR = re.compile(rb"""['"]descr['"]\s*:\s*(?:['"](?P<dtype>[^'"]*)['"]|(?P<several>\[))""")
SHAPE = re.compile(rb"""['"]shape['"]\s*:\s*\((?P<shape>[\d\s,]*)\)""")
UINT8 = (b"|u1", b"<u1", b">u1", b"=u1", b"u1")


def read_npy(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the bytes of the array.

    Raises:
        SourceFault: It is no .npy file, or one of other things than a row of uint8, or its length is not the header's.
    """
    start = stream.read(8)
    if not start.startswith(MAGIC) or len(start) < 8:
        raise SourceFault("not a .npy file")
    width = 2 if start[6] == 1 else 4  # bytes of the header's length; versions 2 and 3 have more
    length = int.from_bytes(stream.read(width), "little")
    if start[6] not in (1, 2, 3) or length > MOST_HEADER:
        raise SourceFault(f"a .npy header of version {start[6]} and {length:,} bytes, which is not read")
    size = _length(stream.read(length))
    place = begin = 8 + width + length
    while place < begin + size:
        data = stream.read(min(BLOCK_BYTES, begin + size - place))
        if not data:
            raise SourceFault(f"truncated .npy file: {place - begin:,} of {size:,} bytes")
        place += len(data)
        yield Block("", data, place == begin + size, place - len(data))
    if stream.read(1):
        raise SourceFault(f"a .npy file with bytes after the {size:,} of its array; cut them off")


def _length(header: bytes) -> int:
    """Return the number of bytes in the array."""
    descr, shape = DESCR.search(header), SHAPE.search(header)
    if not descr or not shape:
        raise SourceFault("a broken .npy header")
    dtype = "several fields" if descr["several"] else descr["dtype"].decode("latin-1")
    dims = re.findall(rb"\d+", shape["shape"])
    if "O" in dtype:
        raise SourceFault("a .npy file of Python objects, a pickle, which is never opened; save the bytes as 1-D uint8")
    if dtype.encode("latin-1") not in UINT8 or len(dims) != 1 or len(dims[0]) > 18:
        raise SourceFault(f"a .npy file of {dtype!r} with {len(dims)} dimensions; save the bytes as 1-D uint8")
    return int(dims[0])
