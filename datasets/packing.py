"""Whole documents packed into rows; every byte of the split lies in exactly one of them.

    doc_ends of a part -> sections -> documents too long for a row: full rows, and a rest
                                   -> the others and the rests: best fit, the longest first -> packed rows
    window number -> section -> its plan, made anew if it was let go -> runs

A section is about 1 MiB of neighbouring documents of one part. A row holds nothing from further away, so that the
windows of one block of the order (bytropix.datasets.lanes) lie in few blocks of the store. The rows of a section follow
from the lengths of its documents and the width alone: no rank, thread or restart can see others.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.windows import Runs

SECTION_BYTES = 1 << 20
SECTION_ROWS = 64  # at least, however long they are: the rows that are opened last are the emptiest
MOST_RUNS = 32767  # in a row, so that the numbers of its documents fit 16 bits
KEPT_BYTES = 64 << 20
READERS = 8  # threads that read ends of documents when a split is opened


class Documents(Protocol):
    """What packing needs of a part."""

    @property
    def doc_ends(self) -> NDArray[np.int64]:
        """End of each document, i64 [d], ascending from above 0; the last is the size of the part."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of a section: full rows first, in the order of their bytes, then packed ones.

    Attributes:
        full: i64 [l + 1], full rows before each document that has some, and all of them.
        begins: i64 [l], where these documents begin.
        first: i64 [packed rows + 1]; packed row i is the runs first[i] to first[i + 1].
        starts: i64 [runs], bytes into the part; in a row they ascend.
        stops: i64 [runs].
    """

    full: NDArray[np.int64]
    begins: NDArray[np.int64]
    first: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.full[-1]) + self.first.size - 1

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return sum(array.nbytes for array in (self.full, self.begins, self.first, self.starts, self.stops))


def plan_rows(begin: int, ends: NDArray[np.int64], width: int) -> Plan:
    """Lay out the documents of a section.

    A document of at most `width` bytes is one run; a longer one is full rows, and one run for the rest if there is one.

    Args:
        begin: Where the first document begins.
        ends: i64 [d], where each ends, ascending.
        width: Bytes of a row, at least 1.
    """
    begins = np.concatenate(([begin], ends[:-1]))
    counts, rests = np.divmod(ends - begins, width)
    long, packed = counts > 0, np.flatnonzero(rests)
    rows = _best_fit(rests[packed], width)
    packed = packed[np.argsort(rows, kind="stable")]
    return Plan(
        full=np.concatenate(([0], np.cumsum(counts[long]))),
        begins=begins[long],
        first=np.concatenate(([0], np.cumsum(np.bincount(rows)))),
        starts=ends[packed] - rests[packed],
        stops=ends[packed],
    )


class Sized(Protocol):
    """Something that knows its size."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        ...


T = TypeVar("T", bound=Sized)


class Kept(Generic[T]):
    """Values by number, made when they are asked for and kept while there is room; safe for threads.

    Args:
        make: Makes a value, always the same for a number.
        room: Bytes of values to keep; the last one is kept whatever its size.
    """

    def __init__(self, make: Callable[[int], T], room: int) -> None:
        self._make, self._room, self._used = make, room, 0
        self._values: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> T:
        """Return a value."""
        with self._lock:
            if number in self._values:
                self._values.move_to_end(number)
                return self._values[number]
        made = self._make(number)
        with self._lock:
            if number not in self._values:  # another thread may have been faster
                self._values[number] = made
                self._used += made.nbytes
            while self._used > self._room and len(self._values) > 1:
                self._used -= self._values.popitem(last=False)[1].nbytes
        return made


class DocumentCut:
    """Windows of whole documents; see `bytropix.datasets.windows.Cut`.

    Making one reads the ends of all documents of the split, 8 bytes a document, by several threads, and keeps 24 bytes
    for each section of about a MiB. Of plans and of ends of documents, those used last are kept, 64 MiB of each.
    Safe for threads.

    Args:
        parts: The parts of a split, at least one.
        width: Most bytes of a window, at least 1.

    Raises:
        StoreError: The ends of some part's documents are damaged. Without them its windows are not known, so this part
            cannot be left out as damaged blocks can.
    """

    def __init__(self, parts: Sequence[Documents], width: int) -> None:
        self.width = width
        self._ends = Kept(lambda part: parts[part].doc_ends, KEPT_BYTES)
        self._plans = Kept(self._plan, KEPT_BYTES)
        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(lambda part: _sections(part, parts[part].doc_ends, width), range(len(parts))))
        self._part, self._document, rows = np.concatenate(tables, axis=1)
        self._first_row = np.concatenate(([0], np.cumsum(rows)))
        self.windows = int(self._first_row[-1])

    def runs(self, windows: NDArray[np.int64]) -> Runs:
        """Return where windows lie; a run is a document, or a piece of one that is longer than a window."""
        sections = np.searchsorted(self._first_row, windows, side="right") - 1
        order = np.argsort(sections, kind="stable")
        first = np.zeros(windows.size + 1, dtype=np.int64)
        asked = []
        for places in np.split(order, np.flatnonzero(np.diff(sections[order])) + 1) if windows.size else []:
            section = sections[places[0]]
            plan, rows = self._plans[int(section)], windows[places] - self._first_row[section]
            first[places + 1] = _runs_in(plan.full[-1], plan.first, rows)
            asked.append((plan, places, rows, self._part[section]))
        np.cumsum(first, out=first)
        parts = np.empty(first[-1], dtype=np.int64)
        starts, stops = np.empty_like(parts), np.empty_like(parts)
        for plan, places, rows, part in asked:
            arrays = plan.full, plan.begins, plan.first, plan.starts, plan.stops
            _lay_out(arrays, self.width, rows, first[places], part, parts, starts, stops)
        return Runs(first, parts, starts, stops)

    def _plan(self, section: int) -> Plan:
        """Make the plan of a section."""
        part, document = int(self._part[section]), int(self._document[section])
        ends = self._ends[part]
        last = section + 1 == self._part.size or self._part[section + 1] != part
        stop = ends.size if last else int(self._document[section + 1])
        return plan_rows(int(ends[document - 1]) if document else 0, ends[document:stop], self.width)


def _sections(part: int, ends: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return, for each section of a part, the part, the first document and the number of rows, i64 [3, s]."""
    begins = np.concatenate(([0], ends[:-1]))
    number = begins // max(SECTION_BYTES, SECTION_ROWS * width)
    first = np.flatnonzero(np.diff(number, prepend=-1))  # a long document leaves the sections that it covers empty
    rows = _count_rows(begins, ends, np.append(first, ends.size), width)
    return np.stack([np.full(first.size, part), first, rows])


@numba.njit(nogil=True, cache=True)
def _count_rows(
    begins: NDArray[np.int64], ends: NDArray[np.int64], sections: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Return how many rows each section takes."""
    rows = np.zeros(sections.size - 1, dtype=np.int64)
    for section in range(rows.size):
        documents = slice(sections[section], sections[section + 1])
        lengths = ends[documents] - begins[documents]
        rests = lengths % width
        packed = _best_fit(rests[rests > 0], width)
        rows[section] = (lengths // width).sum() + (packed.max() + 1 if packed.size else 0)
    return rows


@numba.njit(nogil=True, cache=True)
def _best_fit(lengths: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return the row of each run: the longest first, each into the fullest row that has room for it.

    Rows are kept by the room that is left in them, and a tree of flags over it tells the least that is enough, so a run
    costs the logarithm of `width`.

    Args:
        lengths: i64 [n], each at least 1 and below `width`.
        width: Bytes of a row.
    """
    leaves = 1
    while leaves <= width:
        leaves *= 2
    there = np.zeros(2 * leaves, dtype=np.bool_)  # node i is above 2 i and 2 i + 1; leaf r: some row has room r
    newest = np.full(width, -1, dtype=np.int64)  # by room, a list of rows threaded through `older`
    older = np.empty(lengths.size, dtype=np.int64)
    held = np.zeros(lengths.size, dtype=np.int64)
    found = np.empty(lengths.size, dtype=np.int64)
    rows = 0
    for run in _longest_first(lengths, width):
        room = _least(there, leaves, lengths[run])
        if room < 0:
            room, row, rows = width, rows, rows + 1
        else:
            row = newest[room]
            newest[room] = older[row]
            if newest[room] < 0:
                _clear(there, leaves + room)
        found[run] = row
        held[row] += 1
        room -= lengths[run]
        if room and held[row] < MOST_RUNS:
            older[row], newest[room] = newest[room], row
            _set(there, leaves + room)
    return found


@numba.njit(nogil=True, cache=True)
def _longest_first(lengths: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return the numbers of runs by falling length, equal ones as they come."""
    place = np.zeros(width + 1, dtype=np.int64)
    for length in lengths:
        place[width - length] += 1
    place = np.cumsum(place) - place
    order = np.empty(lengths.size, dtype=np.int64)
    for run in range(lengths.size):
        order[place[width - lengths[run]]] = run
        place[width - lengths[run]] += 1
    return order


@numba.njit(nogil=True, cache=True)
def _least(there: NDArray[np.bool_], leaves: int, least: int) -> int:
    """Return the first leaf from `least` on that is set, -1 if there is none."""
    node = leaves + least
    while not there[node]:
        while node & 1:  # nothing to the right below this parent
            node >>= 1
        if not node:
            return -1
        node += 1
    while node < leaves:
        node = 2 * node + (not there[2 * node])
    return node - leaves


@numba.njit(nogil=True, cache=True)
def _set(there: NDArray[np.bool_], node: int) -> None:
    """Set a leaf, and what is above it."""
    while node and not there[node]:
        there[node] = True
        node >>= 1


@numba.njit(nogil=True, cache=True)
def _clear(there: NDArray[np.bool_], node: int) -> None:
    """Clear a leaf, and of what is above it that which has nothing left below."""
    there[node] = False
    node >>= 1
    while node and not (there[2 * node] or there[2 * node + 1]):
        there[node] = False
        node >>= 1


@numba.njit(nogil=True, cache=True)
def _runs_in(full: int, first: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many runs each of some rows of a plan holds."""
    counts = np.ones(rows.size, dtype=np.int64)
    for i in range(rows.size):
        if rows[i] >= full:
            counts[i] = first[rows[i] - full + 1] - first[rows[i] - full]
    return counts


@numba.njit(nogil=True, cache=True)
def _lay_out(
    plan: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    width: int,
    rows: NDArray[np.int64],
    place: NDArray[np.int64],
    part: int,
    parts: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> None:
    """Write the runs of rows of a plan, those of row i from place[i] on."""
    full, begins, first, run_starts, run_stops = plan
    for i in range(rows.size):
        packed = rows[i] - full[-1]
        at = place[i]
        if packed < 0:
            document = np.searchsorted(full, rows[i], side="right") - 1
            starts[at] = begins[document] + (rows[i] - full[document]) * width
            stops[at] = starts[at] + width
            parts[at] = part
        else:
            for run in range(first[packed], first[packed + 1]):
                starts[at], stops[at], parts[at] = run_starts[run], run_stops[run], part
                at += 1
