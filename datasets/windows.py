"""Where windows lie: all parts of a split, in order, are one row of bytes, cut every `width` bytes.

    window number -> its bytes in the row -> runs (part, start, stop), one more for each part border inside

Windows do not overlap and the last one is short, so that every byte of the split lies in exactly one of them.
"""

from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Runs:
    """Rows made of runs of bytes: row i is the runs first[i] to first[i + 1], laid end to end.

    Attributes:
        first: i64 [rows + 1].
        parts: i64 [runs], indices into a list of parts.
        starts: i64 [runs], bytes into the part.
        stops: i64 [runs], past the last byte; start < stop.
    """

    first: NDArray[np.int64]
    parts: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.first.size - 1

    @classmethod
    def single(cls, parts: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> "Runs":
        """Return rows of one run each."""
        return cls(np.arange(parts.size + 1), parts, starts, stops)


class Cut(Protocol):
    """How a split is cut into the windows of an epoch.

    Attributes:
        windows: Windows in an epoch.
        width: Most bytes of a window.
    """

    @property
    def windows(self) -> int: ...  # noqa: D102 - described above

    @property
    def width(self) -> int: ...  # noqa: D102

    def runs(self, windows: NDArray[np.int64], /) -> Runs:
        """Return where windows lie, each given by its number in [0, windows)."""
        ...


class RowCut:
    """Windows of equal width over all bytes of a split; see `Cut`.

    Args:
        sizes: i64 [parts], bytes of each part, at least one in all.
        width: Bytes of a window, at least 1.
    """

    def __init__(self, sizes: NDArray[np.int64], width: int) -> None:
        self.width = width
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.windows = -(-int(self._ends[-1]) // width)

    def runs(self, windows: NDArray[np.int64]) -> Runs:
        """Return where windows lie."""
        return Runs(*_runs(windows, self._ends, self.width))


@numba.njit(nogil=True, cache=True)
def _runs(
    windows: NDArray[np.int64], ends: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the fields of `Runs`."""
    total = ends[-1]
    first = np.empty(windows.size + 1, dtype=np.int64)
    opening = np.empty(windows.size, dtype=np.int64)  # the part that a window begins in
    first[0] = 0
    for i in range(windows.size):
        begin = windows[i] * width
        end = min(begin + width, total)
        part = np.searchsorted(ends, begin, side="right")
        opening[i] = part
        count = 1
        while ends[part] < end:
            part += 1
            count += ends[part] > ends[part - 1]
        first[i + 1] = first[i] + count
    parts = np.empty(first[-1], dtype=np.int64)
    starts, stops = np.empty_like(parts), np.empty_like(parts)
    for i in range(windows.size):
        place, end = windows[i] * width, min((windows[i] + 1) * width, total)
        part = opening[i]
        for run in range(first[i], first[i + 1]):
            while ends[part] <= place:
                part += 1
            base = ends[part - 1] if part else 0
            stop = min(end, ends[part])
            parts[run], starts[run], stops[run] = part, place - base, stop - base
            place = stop
    return first, parts, starts, stops
