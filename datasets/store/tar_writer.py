"""Tars and their indexes as bytes: the same members are the same tar.

    members, in order -> TarWriter -> headers, contents, padding as pieces; where each lies and its crc32c
    rows -> as_npy -> a .npy table        bytes -> from_npy -> rows

Headers are ustar with mode 644 and neither time nor owner. Members lie uncompressed, so that a reader may map them.
"""

import io
from functools import lru_cache

import google_crc32c
import numpy as np
from numpy.typing import NDArray

TAR_BLOCK = 512
TAR_RECORD = 20 * TAR_BLOCK  # tars end on a multiple of this
_MODE, _TIME = b"0000644\0" + b"0000000\0" * 2, b"\0" + b"00000000000\0"
_REST = b"0" + bytes(100) + b"ustar\00000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_EMPTY_SUM = sum(_MODE) + sum(_TIME) + sum(_REST) + 8 * ord(" ")  # the checksum's own place counts as spaces
_LONG = 1 << 12  # bytes from which a member is kept as a view; shorter ones are joined
_NPY_PREFIX = 10  # bytes: magic, version, size of the rest of the header


class TarWriter:
    """A tar under way."""

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self._small: list[bytes | memoryview] = []
        self._place = 0

    def add(self, name: str, *contents: bytes | memoryview) -> tuple[int, int, int]:
        """Add a member of contents that lie end to end; return where it begins, its bytes and its crc32c."""
        at, size, crc = self._place + TAR_BLOCK, sum(map(len, contents)), 0
        self._small.append(_header(name, size))
        for content in contents:
            crc = google_crc32c.extend(crc, bytes(content))
            if len(content) >= _LONG:
                self._pieces += [b"".join(self._small), content]
                self._small = []
            else:
                self._small.append(content)
        self._small.append(bytes(-size % TAR_BLOCK))
        self._place = at + size + -size % TAR_BLOCK
        return at, size, int(crc)

    def finish(self) -> list[bytes | memoryview]:
        """Return the tar as pieces that lie end to end."""
        end = 2 * TAR_BLOCK
        self._small.append(bytes(end + -(self._place + end) % TAR_RECORD))
        return [*self._pieces, b"".join(self._small)]


def index_name(name: str) -> str:
    """Return the name of the index of a tar."""
    return name.removesuffix(".tar") + ".index"


def as_npy(rows: NDArray[np.generic]) -> bytes:
    """Return an array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, rows, allow_pickle=False)
    return file.getvalue()


def from_npy(data: bytes, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Return the table of a .npy file, a view of it. Raises ValueError if it is none.

    Its header is compared with what it must be, not parsed: numpy does that with `ast`, which Python 3.11 cannot do in
    two threads at once.
    """
    begin = _NPY_PREFIX + int.from_bytes(data[8:_NPY_PREFIX], "little")
    count, rest = divmod(len(data) - begin, dtype.itemsize)
    if count < 0 or rest or data[:begin] != npy_header(dtype, (count,)):
        raise ValueError("another table, or none")
    return np.frombuffer(data, dtype, offset=begin)


@lru_cache(maxsize=256)  # of the members of a part there are few shapes
def npy_header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return what a .npy file of an array in C order begins with."""
    file = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _header(name: str, size: int) -> bytes:
    """Return the ustar header of a regular file with mode 644 and neither time nor owner."""
    told, length = name.encode(), b"%011o" % size
    total = _EMPTY_SUM + sum(told) + sum(length)
    return b"%b%b%b%b%06o\0 %b" % (told.ljust(100, b"\0"), _MODE, length, _TIME, total, _REST)
