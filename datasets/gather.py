"""Gather many rows at once: bytes copied, start bits shifted into place, no Python per row.

    runs -> pieces of memory -> bytes u8 [k, width], bits u8 [k, 8 words], lengths i64 [k], patches i64 [k]

Starts stay packed, lowest bit first, in whole words of 64: flags would double what is written and moved. Rows shorter
than `width` end in zeros. Bit 0 of a row is always set: a row opens with a patch, as does each run of packed documents.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytropix.datasets.blocks import BlockSource, BlockTable
from bytropix.datasets.buffers import BufferPool
from bytropix.datasets.memory import append_bits, copy_bytes, count_bits, prefetch
from bytropix.datasets.quarantine import Quarantine
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.datasets.windows import Runs

# Decoding is several times slower than gathering, so all of a store of up to a quarter of a gigabyte is kept: from the
# second epoch on nothing is decoded again. Of larger stores, what one round of the order spans (96 MiB) would do.
CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Rows:
    """Gathered rows.

    Attributes:
        bytes: u8 [k, width].
        bits: u8 [k, 8 * ceil(width / 64)], bit j of a row set where a patch opens with its byte j.
        lengths: i64 [k], bytes of a row that are data; 0 for one that touched a block that is lost.
        patches: i64 [k], patches that open in the first `counted` columns.
        lost: Rows that touched a block that is lost.
        documents: i16 [k, width], the number of the run that a byte is of, from 1 on, 0 behind them; if asked for.
    """

    bytes: Tensor
    bits: Tensor
    lengths: NDArray[np.int64]
    patches: NDArray[np.int64]
    lost: int
    documents: Tensor | None = None

    @property
    def starts(self) -> NDArray[np.bool_]:
        """The bits as flags, bool [k, width], unpacked at each call."""
        return np.unpackbits(self.bits.numpy(), axis=1, count=self.bytes.shape[1], bitorder="little").view(np.bool_)


class Gatherer:
    """Reads rows of a list of parts; safe to call from several threads.

    Args:
        parts: The parts, in the order that `Runs.parts` numbers them.
        sizes: i64 [parts], bytes of each.
        cache_bytes: Decoded text to keep; their starts, an eighth of it, come on top. Mapped parts need none.
        quarantine: What to do about damaged blocks; an error by default.
        pinned: Whether rows are to lie in pinned memory.
        remote: Whether blocks come over a network.
        block_bytes: Size of the parts' blocks.
    """

    def __init__(
        self,
        parts: Sequence[BlockSource],
        sizes: NDArray[np.int64],
        *,
        cache_bytes: int = CACHE_BYTES,
        quarantine: Quarantine | None = None,
        pinned: bool = False,
        remote: bool = False,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.quarantine = quarantine or Quarantine("raise", 0)
        self._bytes = BlockTable(parts, sizes, "bytes", cache_bytes, block_bytes, self.quarantine, remote=remote)
        self._starts = BlockTable(parts, sizes, "starts", cache_bytes // 8, block_bytes, self.quarantine, remote=remote)
        self._sizes = sizes
        self._pool = BufferPool(pinned=pinned)
        self._lock = threading.Lock()

    def __call__(self, runs: Runs, *, width: int, counted: int, documents: bool = False) -> Rows:
        """Gather rows into fresh arrays.

        Args:
            runs: What the rows are made of; a row of no run is empty.
            width: Columns of the result, at least as many as the bytes of any row.
            counted: Columns over which patches are counted, at most `width`.
            documents: Whether each run is a document of its own: it opens a patch, and is numbered.

        Raises:
            StoreError: A block that a row touches cannot be read or its checksum is wrong.
        """
        if runs.parts.size and (runs.starts.min() < 0 or (runs.stops > self._sizes[runs.parts]).any()):
            raise IndexError("a run reaches past its part")
        with self._lock:
            text = self._bytes.segments(runs)
            bits = self._starts.segments(_bits_of(runs))
        count, words = runs.rows, (width + 63) >> 6
        whole = -(-count * width // 8) * 8
        memory = self._pool.take(whole + 8 * count * words)
        rows = memory[: count * width].view(count, width)
        packed = memory[whole:].view(count, 8 * words)
        found, patches = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        lengths = runs.stops - runs.starts
        lost = _gather(
            text.address,
            text.length,
            text.first,
            bits.address,
            bits.length,
            bits.first,
            runs.first,
            runs.starts & 7,
            lengths,
            counted,
            rows.numpy(),
            packed.numpy().view(np.uint64),
            found,
            patches,
            opens=documents,
        )
        if lost < 0:
            raise IndexError("a row is longer than its columns")
        return Rows(rows, packed, found, patches, lost, self._numbers(runs, found, width) if documents else None)

    def _numbers(self, runs: Runs, found: NDArray[np.int64], width: int) -> Tensor:
        """Return the number of the run that each byte is of."""
        numbers = self._pool.take(2 * runs.rows * width).view(torch.int16).view(runs.rows, width)
        _number(runs.first, runs.stops - runs.starts, found, numbers.numpy())
        return numbers

    def expect(self, runs: Runs) -> None:
        """Tell the parts that these bytes and their starts will be wanted soon."""
        self._bytes.expect(runs)
        self._starts.expect(_bits_of(runs))


def _bits_of(runs: Runs) -> Runs:
    """Return the same runs in bytes of the packed starts."""
    return Runs(runs.first, runs.parts, runs.starts >> 3, (runs.stops + 7) >> 3)


@numba.njit(nogil=True, cache=True, inline="always")
def _copy_pieces(target: int, address: NDArray[np.int64], length: NDArray[np.int64], first: int, stop: int) -> None:
    """Copy pieces of memory one behind the other to address `target`."""
    for piece in range(first, stop):
        copy_bytes(target, address[piece], length[piece])
        target += length[piece]


@numba.njit(nogil=True, cache=True)
def _gather(
    text_address: NDArray[np.int64],
    text_length: NDArray[np.int64],
    text_first: NDArray[np.int64],
    bits_address: NDArray[np.int64],
    bits_length: NDArray[np.int64],
    bits_first: NDArray[np.int64],
    first: NDArray[np.int64],
    shifts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    counted: int,
    rows: NDArray[np.uint8],
    aligned: NDArray[np.uint64],
    found: NDArray[np.int64],
    patches: NDArray[np.int64],
    *,
    opens: bool,
) -> int:
    """Fill rows, aligned, found and patches; returns how many rows are lost, -1 if a row is longer than its columns.

    Bits pass through a small buffer that stays in the nearest cache.
    """
    width = rows.shape[1]
    lost = 0
    packed = np.zeros(aligned.shape[1] + 2, dtype=np.uint64)  # width + 7 bits and a word that only feeds the shift
    for row in range(found.size):
        target = aligned[row]
        target[:] = 0
        place = 0
        for run in range(first[row], first[row + 1]):
            text, next_text = text_first[run], text_first[run + 1]
            bits, next_bits = bits_first[run], bits_first[run + 1]
            if text == next_text or bits == next_bits:  # lost, and the row with it
                place = 0
                target[:] = 0
                lost += 1
                break
            if place + lengths[run] > width:
                return -1
            if next_text < text_address.size and next_bits < bits_address.size:  # the next run's, in all likelihood
                prefetch(text_address[next_text], text_length[next_text])
                prefetch(bits_address[next_bits], bits_length[next_bits])
            _copy_pieces(rows.ctypes.data + row * width + place, text_address, text_length, text, next_text)
            _copy_pieces(packed.ctypes.data, bits_address, bits_length, bits, next_bits)
            append_bits(packed, shifts[run], lengths[run], target, place)
            if opens:
                target[place >> 6] |= np.uint64(1) << np.uint64(place & 63)
            place += lengths[run]
        target[0] |= np.uint64(1)
        found[row] = place
        patches[row] = count_bits(target, counted)
        if place < width:
            rows[row, place:] = 0
    return lost


@numba.njit(nogil=True, cache=True)
def _number(
    first: NDArray[np.int64], lengths: NDArray[np.int64], found: NDArray[np.int64], numbers: NDArray[np.int16]
) -> None:
    """Write the number of the run that each byte is of, 0 behind the data of a row."""
    for row in range(found.size):
        place = np.int64(0)
        if found[row]:
            for run in range(first[row], first[row + 1]):
                numbers[row, place : place + lengths[run]] = run - first[row] + 1
                place += lengths[run]
        numbers[row, place:] = 0
