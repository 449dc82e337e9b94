"""Where runs of bytes lie in memory: parts are opened, blocks checked, fetched and decoded when they are first touched.

    runs (part, start, stop) -> open new parts -> check blocks of mapped parts, fetch those of others
                             -> segments (address, length)

A mapped part is one range of addresses; its blocks are looked at once, so that the store checks them. The blocks of any
other part, compressed or remote, are kept in a least-recently-used cache, which should hold what a round of the order
touches. What is kept for each part and block is a few bytes of a table of zeros, of which the system provides only what
has been touched: a store may have millions of parts.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.quarantine import Damage, Quarantine
from bytropix.datasets.windows import Runs
from bytropix.errors import StoreError

ArrayName = Literal["bytes", "starts"]

LOCAL_THREADS, REMOTE_THREADS = 2, 16  # decoding keeps cores busy, a network wants many questions under way
LEAST_MAPPED = 1 << 20  # bytes; a gather may touch thousands of smaller parts, whose blocks are copied instead
MOST_MAPPED = 64  # parts kept from call to call; a round of the order touches 48 places
NEW, MAPPED, FETCHED, LOST = range(4)  # what is known of a part


class BlockSource(Protocol):
    """What a gather needs of a part."""

    @property
    def url(self) -> str:
        """Where the part lies."""
        ...

    @property
    def mapped(self) -> bool:
        """Whether a block is a view that stays valid as long as the part; if not, it is memory of its own."""
        ...

    def whole(self, name: str, /) -> NDArray[np.uint8]:
        """Return an array of a mapped part as one view, unchecked."""
        ...

    def block(self, name: str, index: int, /) -> NDArray[np.uint8]:
        """Return a block, u8, contiguous, all but an array's last equally long; raises StoreError if it is damaged."""
        ...

    def prefetch(self, name: str, first: int, stop: int, /) -> None:
        """Take note that blocks will be wanted soon."""
        ...


@dataclass(frozen=True, slots=True)
class Segments:
    """Runs as pieces of memory: run i is the pieces first[i] to first[i + 1] of `address` and `length`.

    `held` keeps maps and decoded blocks alive: addresses are valid as long as this object is. A lost run has no piece.
    """

    address: NDArray[np.int64]
    length: NDArray[np.int64]
    first: NDArray[np.int64]
    held: list[NDArray[np.uint8]]


class BlockTable:
    """The blocks of one array of all parts, by address.

    Not safe for threads: callers hold a lock around `segments`, and may use its result without.

    Args:
        parts: The parts, in the order that runs number them.
        sizes: i64 [parts], bytes of text of each.
        name: The array.
        capacity: Bytes of decoded blocks to keep; the blocks of one call are kept whatever it says.
        block_bytes: Size of a block.
        quarantine: What to do about damage.
        remote: Whether blocks come over a network.
    """

    def __init__(
        self,
        parts: Sequence[BlockSource],
        sizes: NDArray[np.int64],
        name: ArrayName,
        capacity: int,
        block_bytes: int,
        quarantine: Quarantine,
        *,
        remote: bool,
    ) -> None:
        self._parts, self._name, self._capacity, self._quarantine = parts, name, capacity, quarantine
        self._block_bytes, self._remote = block_bytes, remote
        self._sizes = sizes
        stored = sizes if name == "bytes" else (sizes + 7) >> 3
        self._first_block = np.concatenate(([0], np.cumsum(-(-stored // block_bytes))))
        self._kind = np.zeros(sizes.size, dtype=np.uint8)
        self._base = np.zeros(sizes.size, dtype=np.int64)  # address of a mapped part
        self._checked = np.zeros(int(self._first_block[-1]), dtype=np.bool_)  # of mapped parts
        self._views: dict[int, NDArray[np.uint8]] = {}  # of mapped parts, the oldest first
        self._calls = 0
        self._decoded: dict[int, NDArray[np.uint8]] = {}
        self._used: dict[int, int] = {}  # the call that used a decoded block last
        self._decoded_bytes = 0
        self._lost: set[int] = set()
        self._index()

    def segments(self, runs: Runs) -> Segments:
        """Fetch what the runs touch and say where it lies.

        Raises:
            StoreError: A part or block is damaged, and damage is not to be left out.
        """
        self._calls += 1
        opened = self._kind[runs.parts]
        if not opened.all():
            self._open(np.unique(runs.parts[opened == NEW]).tolist())
        where = (runs.parts, runs.starts, runs.stops, self._block_bytes, self._first_block, self._kind)
        held = list(self._views.values())
        unchecked, fetched = _touched(*where, self._checked, check=self._quarantine.checks != "off")
        if unchecked.size:
            self._check(np.unique(unchecked))
        if fetched.size:
            held += self._fetch(np.unique(fetched).tolist())
        lost = np.array(sorted(self._lost), dtype=np.int64)
        found = Segments(*_split(*where, self._base, self._slots, self._addresses, lost), held)
        self._unmap()
        return found

    def expect(self, runs: Runs) -> None:
        """Pass on to the parts that these bytes will be wanted soon."""
        kind = np.full_like(self._kind, FETCHED)
        where = (runs.parts, runs.starts, runs.stops, self._block_bytes, self._first_block, kind)
        blocks = np.unique(_touched(*where, self._checked, check=False)[1])
        for part, first, stop in _stretches(blocks, self._first_block):
            self._parts[part].prefetch(self._name, first, stop)

    def _open(self, parts: list[int]) -> None:
        """Find out what parts are, and map those that can be."""
        for part in parts:
            source = None
            try:
                source = self._parts[part]
                if not source.mapped or self._sizes[part] < LEAST_MAPPED:
                    self._kind[part] = FETCHED
                    continue
                view = source.whole(self._name)
            except StoreError as error:
                count = int(self._first_block[part + 1] - self._first_block[part])
                self._quarantine.add(Damage(_place(source, part), self._name, -1, count, str(error)), error)
                self._kind[part] = LOST
                continue
            self._views[part] = view
            self._base[part] = view.ctypes.data
            self._kind[part] = MAPPED

    def _unmap(self) -> None:
        """Let go of the parts that were mapped first, where there are many: each map takes a file descriptor."""
        for part in list(self._views)[: max(0, len(self._views) - MOST_MAPPED)]:
            del self._views[part]
            self._kind[part] = NEW

    def _check(self, blocks: NDArray[np.int64]) -> None:
        """Have blocks of mapped parts checked; one after the other, as checksums are not computed side by side."""
        parts = np.searchsorted(self._first_block, blocks, side="right") - 1
        for part, block in zip(parts.tolist(), blocks.tolist(), strict=True):
            found = self._one(part, block)
            self._checked[block] = True
            if found is None:
                self._lost.add(block)

    def _fetch(self, blocks: list[int]) -> list[NDArray[np.uint8]]:
        """Bring blocks into memory, making room if need be; returns them all."""
        missing = [block for block in blocks if block not in self._decoded and block not in self._lost]
        # All of them or, after an error, none: a block that is kept and not in the index has no address.
        for block, found in list(self._read(missing)):
            if found is None:
                self._lost.add(block)
            else:
                self._decoded[block] = found
                self._decoded_bytes += found.nbytes
        present = [block for block in blocks if block in self._decoded]
        self._used.update(dict.fromkeys(present, self._calls))
        if missing:
            self._evict()
            self._index()
        return [self._decoded[block] for block in present]

    def _read(self, blocks: list[int]) -> Iterator[tuple[int, NDArray[np.uint8] | None]]:
        """Give blocks as they are read, `None` for one that is damaged and left out."""
        if not blocks:
            return
        parts = (np.searchsorted(self._first_block, blocks, side="right") - 1).tolist()
        threads = REMOTE_THREADS if self._remote else LOCAL_THREADS
        if len(blocks) == 1:
            yield blocks[0], self._one(parts[0], blocks[0])
            return
        with ThreadPoolExecutor(min(threads, len(blocks)), thread_name_prefix="bytropix-fetch") as executor:
            try:
                yield from zip(blocks, executor.map(self._one, parts, blocks), strict=True)
            except BaseException:
                executor.shutdown(wait=True, cancel_futures=True)
                raise

    def _one(self, part: int, block: int) -> NDArray[np.uint8] | None:
        """Return a block, `None` if it is damaged and left out."""
        index = block - int(self._first_block[part])
        source = None
        try:
            source = self._parts[part]
            found = source.block(self._name, index)
            return found.copy() if self._kind[part] == FETCHED and source.mapped else found
        except StoreError as error:
            self._quarantine.add(Damage(_place(source, part), self._name, index, 1, str(error)), error)
            return None

    def _evict(self) -> None:
        """Drop the blocks that were not used for longest until the rest fits; those of this call stay."""
        if self._decoded_bytes <= self._capacity:
            return
        for block in sorted(self._decoded, key=self._used.__getitem__):
            if self._decoded_bytes <= self._capacity or self._used[block] == self._calls:
                return
            self._decoded_bytes -= self._decoded.pop(block).nbytes
            del self._used[block]

    def _index(self) -> None:
        """Lay the decoded blocks out for compiled code: their numbers, ascending, and addresses."""
        self._slots = np.array(sorted(self._decoded), dtype=np.int64)
        self._addresses = np.array([self._decoded[slot].ctypes.data for slot in self._slots.tolist()], dtype=np.int64)


def _place(source: BlockSource | None, number: int) -> str:
    """Return where a part lies; if it cannot be opened at all, only its number is known."""
    return f"part {number}" if source is None else source.url


def _stretches(blocks: NDArray[np.int64], first_block: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Give (part, first, stop) of ascending blocks that follow each other in a part."""
    parts = np.searchsorted(first_block, blocks, side="right") - 1
    borders = np.flatnonzero((np.diff(blocks) != 1) | (np.diff(parts) != 0)) + 1
    for stretch in np.split(np.arange(blocks.size), borders):
        if stretch.size:
            part = int(parts[stretch[0]])
            base = int(first_block[part])
            yield part, int(blocks[stretch[0]]) - base, int(blocks[stretch[-1]]) + 1 - base


@numba.njit(nogil=True, cache=True)
def _touched(
    parts: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    block_bytes: int,
    first_block: NDArray[np.int64],
    kind: NDArray[np.uint8],
    checked: NDArray[np.bool_],
    *,
    check: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the blocks of mapped parts to check, and those of other parts; a block may come several times."""
    bound = 0
    for i in range(parts.size):
        bound += (stops[i] - 1) // block_bytes - starts[i] // block_bytes + 1
    unchecked, fetched = np.empty(bound, dtype=np.int64), np.empty(bound, dtype=np.int64)
    to_check = to_fetch = 0
    for i in range(parts.size):
        base = first_block[parts[i]]
        what = kind[parts[i]]
        for block in range(base + starts[i] // block_bytes, base + (stops[i] - 1) // block_bytes + 1):
            if what == FETCHED:
                fetched[to_fetch] = block
                to_fetch += 1
            elif what == MAPPED and check and not checked[block]:
                unchecked[to_check] = block
                to_check += 1
    return unchecked[:to_check], fetched[:to_fetch]


@numba.njit(nogil=True, cache=True)
def _is_in(block: int, ascending: NDArray[np.int64]) -> bool:
    """Whether a block is in a list."""
    place = np.searchsorted(ascending, block)
    return bool(place < ascending.size and ascending[place] == block)


@numba.njit(nogil=True, cache=True)
def _split(
    parts: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    block_bytes: int,
    first_block: NDArray[np.int64],
    kind: NDArray[np.uint8],
    base: NDArray[np.int64],
    slots: NDArray[np.int64],
    addresses: NDArray[np.int64],
    lost: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (address, length, first) of `Segments`: a mapped run is one piece, others are cut at block borders."""
    bound = parts.size
    for i in range(parts.size):
        bound += (stops[i] - 1) // block_bytes - starts[i] // block_bytes
    address, length = np.empty(bound, dtype=np.int64), np.empty(bound, dtype=np.int64)
    first = np.empty(parts.size + 1, dtype=np.int64)
    first[0] = count = 0
    for i in range(parts.size):
        part = parts[i]
        here = count
        gone = kind[part] == LOST
        if lost.size:
            for block in range(starts[i] // block_bytes, (stops[i] - 1) // block_bytes + 1):
                gone = gone or _is_in(first_block[part] + block, lost)
        if not gone and kind[part] == MAPPED:
            address[count], length[count] = base[part] + starts[i], stops[i] - starts[i]
            count += 1
        elif not gone:
            place = starts[i]
            while place < stops[i]:
                block = place // block_bytes
                within = place - block * block_bytes
                slot = np.searchsorted(slots, first_block[part] + block)
                address[count] = addresses[slot] + within
                length[count] = min(block_bytes - within, stops[i] - place)
                place += length[count]
                count += 1
        first[i + 1] = count if not gone else here
        count = first[i + 1]
    return address[:count], length[:count], first
