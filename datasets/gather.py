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
        documents: i16 [k, width], the number of the run that a byte is of, from 1 on, 0 behind them; if asked for.
    """

    bytes: Tensor
    bits: Tensor
    lengths: NDArray[np.int64]
    patches: NDArray[np.int64]
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
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.quarantine = quarantine or Quarantine("raise", 0)
        self._bytes = BlockTable(parts, sizes, "bytes", cache_bytes, block_bytes, self.quarantine)
        self._starts = BlockTable(parts, sizes, "starts", cache_bytes // 8, block_bytes, self.quarantine)
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
        memory = self._pool.take(count * (8 * words + width))
        packed = memory[: 8 * count * words].view(count, 8 * words)
        rows = memory[8 * count * words :].view(count, width)
        found, patches = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        lengths = runs.stops - runs.starts
        fits = _gather(
            (text.address, text.length, text.first),
            (bits.address, bits.length, bits.first),
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
        if not fits:
            raise IndexError("a row is longer than its columns")
        return Rows(rows, packed, found, patches, self._numbers(runs, found, width) if documents else None)

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


_Pieces = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@numba.njit(nogil=True, cache=True)
def _copy_pieces(target: int, pieces: _Pieces, run: int) -> None:
    """Copy the pieces of a run one behind the other to address `target`."""
    address, length, first = pieces
    for piece in range(first[run], first[run + 1]):
        copy_bytes(target, address[piece], length[piece])
        target += length[piece]


@numba.njit(nogil=True, cache=True)
def _ask_for(pieces: _Pieces, run: int) -> None:
    """Ask for the first piece of a run ahead of its use."""
    address, length, first = pieces
    if first[run] < first[run + 1]:
        prefetch(address[first[run]], length[first[run]])


@numba.njit(nogil=True, cache=True)
def _gather(
    text: _Pieces,
    bits: _Pieces,
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
) -> bool:
    """Fill rows, aligned, found and patches; returns False if a row is longer than its columns.

    Bits pass through a small buffer that stays in the nearest cache.
    """
    width = rows.shape[1]
    packed = np.zeros(aligned.shape[1] + 2, dtype=np.uint64)  # width + 7 bits and a word that only feeds the shift
    for row in range(found.size):
        place = 0
        aligned[row] = 0
        for run in range(first[row], first[row + 1]):
            if run + 1 < lengths.size:
                _ask_for(text, run + 1)
                _ask_for(bits, run + 1)
            if text[2][run] == text[2][run + 1] or bits[2][run] == bits[2][run + 1]:  # lost, and the row with it
                place = 0
                aligned[row] = 0
                break
            if place + lengths[run] > width:
                return False
            _copy_pieces(rows.ctypes.data + row * width + place, text, run)
            _copy_pieces(packed.ctypes.data, bits, run)
            append_bits(packed, shifts[run], lengths[run], aligned[row], place)
            if opens:
                aligned[row, place >> 6] |= np.uint64(1) << np.uint64(place & 63)
            place += lengths[run]
        aligned[row, 0] |= np.uint64(1)
        found[row] = place
        patches[row] = count_bits(aligned[row], counted)
        if place < width:
            rows[row, place:] = 0
    return True


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
