"""Gather many windows at once: bytes copied, start bits shifted into place, no Python per window.

    places, lengths -> memory segments -> bytes u8 [k, width], bits u8 [k, 8 words], patches i64 [k]

Starts stay packed, lowest bit first, in whole words of 64: flags would double what is written and moved. Rows shorter
than `width` end in zeros. Bit 0 of a row is always set: a window opens with a patch.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.blocks import BlockSource, BlockTable
from bytropix.datasets.buffers import BufferPool
from bytropix.datasets.memory import align_bits, copy_bytes, prefetch
from bytropix.datasets.order import Places

# Decoding is several times slower than gathering, so all of a store of up to half a gigabyte is kept: from the second
# epoch on nothing is decoded again. Of larger stores, what one group of the order spans (64 MiB) would do.
CACHE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Rows:
    """Gathered windows.

    Attributes:
        bytes: u8 [k, width].
        bits: u8 [k, 8 * ceil(width / 64)], bit j of a row set where a patch opens with its byte j.
        patches: i64 [k], patches that open in the first `counted` columns.
    """

    bytes: NDArray[np.uint8]
    bits: NDArray[np.uint8]
    patches: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.bool_]:
        """The bits as flags, bool [k, width], unpacked at each call."""
        return np.unpackbits(self.bits, axis=1, count=self.bytes.shape[1], bitorder="little").view(np.bool_)


class Gatherer:
    """Reads windows of a list of parts; safe to call from several threads.

    Args:
        parts: The parts, in the order that `Places.parts` numbers them.
        cache_bytes: Decoded text to keep; their starts, an eighth of it, come on top. Only compressed parts need it.
    """

    def __init__(self, parts: Sequence[BlockSource], *, cache_bytes: int = CACHE_BYTES) -> None:
        self._bytes = BlockTable(parts, "bytes", cache_bytes)
        self._starts = BlockTable(parts, "starts", cache_bytes // 8)
        self._sizes = np.array([part.n_bytes for part in parts], dtype=np.int64)
        self._pool = BufferPool()
        self._lock = threading.Lock()

    def __call__(self, places: Places, lengths: NDArray[np.int64], *, width: int, counted: int) -> Rows:
        """Gather windows into fresh arrays.

        Args:
            places: Where k windows begin.
            lengths: i64 [k], bytes of each, 1 to `width`; a window must lie inside its part.
            width: Columns of the result.
            counted: Columns over which patches are counted, at most `width`.

        Raises:
            StoreError: A block that a window touches cannot be read or its checksum is wrong.
        """
        stops = places.offsets + lengths
        if places.offsets.size and (
            places.offsets.min() < 0 or (stops > self._sizes[places.parts]).any() or lengths.max() > width
        ):
            raise IndexError("a window reaches past its part or its row")
        with self._lock:
            text = self._bytes.segments(places.parts, places.offsets, stops)
            bits = self._starts.segments(places.parts, places.offsets >> 3, (stops + 7) >> 3)
        count = lengths.size
        words = (width + 63) >> 6
        memory = self._pool.take(count * (8 * words + width))
        aligned = memory[: 8 * count * words].view(np.uint64).reshape(count, words)
        rows = memory[8 * count * words :].reshape(count, width)
        patches = np.empty(count, dtype=np.int64)
        _gather(
            text.address,
            text.length,
            text.first,
            bits.address,
            bits.length,
            bits.first,
            places.offsets & 7,
            lengths,
            counted,
            rows,
            aligned,
            patches,
        )
        return Rows(rows, aligned.view(np.uint8), patches)


@numba.njit(nogil=True, cache=True)
def _copy_runs(target: int, address: NDArray[np.int64], length: NDArray[np.int64], first: int, stop: int) -> None:
    """Copy memory runs first..stop one behind the other to address `target`."""
    for run in range(first, stop):
        copy_bytes(target, address[run], length[run])
        target += length[run]


@numba.njit(nogil=True, cache=True)
def _gather(
    text_address: NDArray[np.int64],
    text_length: NDArray[np.int64],
    text_first: NDArray[np.int64],
    bits_address: NDArray[np.int64],
    bits_length: NDArray[np.int64],
    bits_first: NDArray[np.int64],
    shifts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    counted: int,
    rows: NDArray[np.uint8],
    aligned: NDArray[np.uint64],
    patches: NDArray[np.int64],
) -> None:
    """Fill rows, aligned and patches; bits pass through a small buffer that stays in the nearest cache."""
    width = rows.shape[1]
    packed = np.zeros(aligned.shape[1] + 1, dtype=np.uint64)  # at most width + 7 bits: they always fit
    for i in range(lengths.size):
        length = lengths[i]
        if i + 1 < lengths.size:
            text, bits = text_first[i + 1], bits_first[i + 1]
            prefetch(text_address[text], text_length[text])
            prefetch(bits_address[bits], bits_length[bits])
        _copy_runs(rows.ctypes.data + i * width, text_address, text_length, text_first[i], text_first[i + 1])
        _copy_runs(packed.ctypes.data, bits_address, bits_length, bits_first[i], bits_first[i + 1])
        patches[i] = align_bits(packed, shifts[i], length, counted, aligned[i])
        if length < width:
            rows[i, length:] = 0
