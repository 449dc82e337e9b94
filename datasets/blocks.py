"""Where a range of bytes lies in memory: a block is fetched once and known by its address from then on.

    ranges (part, start, stop) -> blocks touched -> fetch the missing ones -> segments (address, length)

A block of a mapped part is a view of its map, asked for once so that the store checks it. A block of a
compressed part is decoded and kept in a least-recently-used cache, which should hold what one group of
the order touches. Blocks that are missing together are fetched in two threads: reading, checking and
decoding release Python's lock.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

ArrayName = Literal["bytes", "starts"]

_THREADS = 2


class BlockSource(Protocol):
    """What a gather needs of a part."""

    @property
    def n_bytes(self) -> int:
        """Bytes of text in the part; its `starts` array has one bit for each."""
        ...

    @property
    def mapped(self) -> bool:
        """Whether a block is a view that stays valid as long as the part; if not, it is memory of its own."""
        ...

    def block_bytes(self, name: ArrayName, /) -> int:
        """Return the size of every block of an array but the last, in stored raw bytes."""
        ...

    def block(self, name: ArrayName, index: int, /) -> NDArray[np.uint8]:
        """Return a block, u8, contiguous; raises StoreError if its checksum is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class Segments:
    """Ranges as runs of memory: range i is the runs first[i] to first[i + 1] of `address` and `length`.

    `held` keeps decoded blocks alive; addresses are valid as long as this object is.
    """

    address: NDArray[np.int64]
    length: NDArray[np.int64]
    first: NDArray[np.int64]
    held: list[NDArray[np.uint8]]


class BlockTable:
    """The blocks of one array of all parts, by address.

    Not safe for threads: callers hold a lock around `segments`, and may use its result without.

    Args:
        parts: The parts, in the order that ranges number them.
        name: The array.
        capacity: Bytes of decoded blocks to keep; the blocks of one call are kept whatever it says.
    """

    def __init__(self, parts: Sequence[BlockSource], name: ArrayName, capacity: int) -> None:
        self._parts = list(parts)
        self._name = name
        self._capacity = capacity
        self._block_bytes = np.array([part.block_bytes(name) for part in parts], dtype=np.int64)
        stored = [part.n_bytes if name == "bytes" else (part.n_bytes + 7) // 8 for part in parts]
        counts = -(-np.array(stored, dtype=np.int64) // self._block_bytes)
        self._first_slot = np.concatenate(([0], np.cumsum(counts)))
        self._address = np.zeros(int(self._first_slot[-1]), dtype=np.int64)  # 0: not in memory
        self._used = np.zeros_like(self._address)  # the call that used a block last
        self._calls = 0
        self._decoded: dict[int, NDArray[np.uint8]] = {}
        self._decoded_bytes = 0

    def segments(self, parts: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Segments:
        """Fetch what the ranges touch and say where it lies.

        Args:
            parts: i64 [k], indices into the part list.
            starts: i64 [k], stored raw bytes into the part.
            stops: i64 [k], past the last byte; start < stop <= the array's stored bytes.

        Raises:
            StoreError: A block cannot be read or its checksum is wrong.
        """
        self._calls += 1
        touched = _touch(parts, starts, stops, self._first_slot, self._block_bytes, self._used, self._calls)
        self._fetch(touched[self._address[touched] == 0].tolist())
        held = [self._decoded[slot] for slot in touched.tolist() if slot in self._decoded] if self._decoded else []
        address, length, first = _split(parts, starts, stops, self._first_slot, self._block_bytes, self._address)
        return Segments(address, length, first, held)

    def _fetch(self, slots: list[int]) -> None:
        """Bring blocks into memory, making room among the decoded ones if need be."""
        if not slots:
            return
        with ThreadPoolExecutor(min(_THREADS, len(slots)), thread_name_prefix="bytropix-fetch") as executor:
            for slot, (block, compressed) in zip(slots, executor.map(self._read, slots), strict=True):
                if compressed:
                    self._decoded[slot] = block
                    self._decoded_bytes += block.nbytes
                self._address[slot] = block.ctypes.data
        if self._decoded_bytes > self._capacity:
            self._evict()

    def _read(self, slot: int) -> tuple[NDArray[np.uint8], bool]:
        """Return a block and whether it was decoded, so that nothing else holds it."""
        part = int(np.searchsorted(self._first_slot, slot, side="right")) - 1
        found = self._parts[part]
        return found.block(self._name, slot - int(self._first_slot[part])), not found.mapped

    def _evict(self) -> None:
        """Drop the blocks that were not used for longest until the rest fits; those of this call stay."""
        for slot in sorted(self._decoded, key=lambda slot: int(self._used[slot])):
            if self._decoded_bytes <= self._capacity or self._used[slot] == self._calls:
                return
            self._decoded_bytes -= self._decoded.pop(slot).nbytes
            self._address[slot] = 0


@numba.njit(nogil=True, cache=True)
def _touch(
    parts: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    first_slot: NDArray[np.int64],
    block_bytes: NDArray[np.int64],
    used: NDArray[np.int64],
    call: int,
) -> NDArray[np.int64]:
    """Mark the blocks of the ranges as used by this call and list them, each once, in order of first use."""
    bound = 0
    for i in range(parts.size):
        size = block_bytes[parts[i]]
        bound += (stops[i] - 1) // size - starts[i] // size + 1
    touched = np.empty(bound, dtype=np.int64)
    count = 0
    for i in range(parts.size):
        base, size = first_slot[parts[i]], block_bytes[parts[i]]
        for slot in range(base + starts[i] // size, base + (stops[i] - 1) // size + 1):
            if used[slot] != call:
                used[slot] = call
                touched[count] = slot
                count += 1
    return touched[:count]


@numba.njit(nogil=True, cache=True)
def _split(
    parts: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    first_slot: NDArray[np.int64],
    block_bytes: NDArray[np.int64],
    address: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut each range at block borders; returns (address, length, first) of `Segments`."""
    first = np.empty(parts.size + 1, dtype=np.int64)
    first[0] = 0
    for i in range(parts.size):
        size = block_bytes[parts[i]]
        first[i + 1] = first[i] + (stops[i] - 1) // size - starts[i] // size + 1
    places = np.empty(first[-1], dtype=np.int64)
    lengths = np.empty(first[-1], dtype=np.int64)
    for i in range(parts.size):
        base, size, start = first_slot[parts[i]], block_bytes[parts[i]], starts[i]
        for run in range(first[i], first[i + 1]):
            block = start // size
            within = start - block * size
            places[run] = address[base + block] + within
            lengths[run] = min(size - within, stops[i] - start)
            start += lengths[run]
    return places, lengths, first
