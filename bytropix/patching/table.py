"""The entropy table: how uncertain is the next byte (or character), given up to three bytes before it.

    counts -> log2_q16 -> entropy in Q16 bits -> quantize -> u8 in 1/32 bit
    last 3 bytes -> context_slot -> order3[slot], or when that says "back off" order2[last 2 bytes]

Everything is integer arithmetic, so two machines that fit the same bytes hold the same table bit for bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError

Measure = Literal["character", "byte"]
Integer = int | np.int64  # numba computes in int64; callers from Python hand plain ints

QUANTA_PER_BIT = 32
LARGEST = 254  # 7.94 bits; 255 is taken
BACK_OFF = 255
SLOT_BITS = 20
Q16_PER_QUANTUM = (1 << 16) // QUANTA_PER_BIT

_SHAPES = {"order0": 1, "order1": 1 << 8, "order2": 1 << 16, "order3": 1 << SLOT_BITS}
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: multiplicative hashing by Knuth
_SLOT_SHIFT = np.uint64(64 - SLOT_BITS)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EntropyTable:
    """Entropies of what follows a context, u8 in 1/32 bit (0 to 254; 255 in `order3` = use `order2`).

    Attributes:
        order0: u8[1], no byte known.
        order1: u8[256], the last byte known.
        order2: u8[65536], index `before << 8 | last`.
        order3: u8[2^20], index `context_slot` of the last three bytes; contexts may share a slot.
        measure: Of the next "byte", or at a byte that begins one of the whole next "character".
    """

    order0: NDArray[np.uint8]
    order1: NDArray[np.uint8]
    order2: NDArray[np.uint8]
    order3: NDArray[np.uint8]
    measure: Measure

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise ConfigError(f"entropy table measure must be 'character' or 'byte', got {self.measure!r}")
        for name, array in self.arrays().items():
            if array.dtype != np.uint8 or array.shape != (_SHAPES[name],):
                raise ConfigError(
                    f"entropy table {name} must be uint8 of shape ({_SHAPES[name]},), "
                    f"got {array.dtype} of shape {array.shape}; ingest again to fit a new table"
                )

    def arrays(self) -> dict[str, NDArray[np.uint8]]:
        """Return the four arrays by name, for storage."""
        return {name: getattr(self, name) for name in _SHAPES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.uint8]], measure: Measure) -> Self:
        """Build a table from what `arrays` returned.

        Raises:
            ConfigError: An array is missing, or has another type or shape.
        """
        missing = [name for name in _SHAPES if name not in arrays]
        if missing:
            raise ConfigError(f"entropy table has no array '{missing[0]}'; ingest again to fit a new table")
        return cls(**{name: np.ascontiguousarray(arrays[name]) for name in _SHAPES}, measure=measure)


@numba.njit(cache=True, nogil=True)
def context_slot(third: Integer, second: Integer, last: Integer) -> Integer:
    """Return the slot (0 to 2^20 - 1) of three consecutive bytes, `last` being the nearest."""
    context = (np.uint64(third) << np.uint64(16)) | (np.uint64(second) << np.uint64(8)) | np.uint64(last)
    return np.int64((context * _GOLDEN) >> _SLOT_SHIFT)


@numba.njit(cache=True, nogil=True)
def log2_q16(value: Integer) -> Integer:
    """Return log2 of an integer from 1 to 2^32 - 1 in Q16 (bits x 65536), by repeated squaring."""
    whole = 0
    while (value >> whole) > 1:
        whole += 1
    # The mantissa lies in [1, 2) as Q31: its square has 64 bits, hence unsigned.
    mantissa = np.uint64(value) << np.uint64(31 - whole)
    fraction = 0
    for _ in range(16):
        mantissa = (mantissa * mantissa) >> np.uint64(31)
        fraction <<= 1
        if mantissa >> np.uint64(32):
            mantissa >>= np.uint64(1)
            fraction |= 1
    return np.int64((whole << 16) | fraction)


@numba.njit(cache=True, nogil=True)
def quantize(entropy_q16: Integer) -> Integer:
    """Return an entropy in Q16 bits as table quanta (1/32 bit, nearest), at most `LARGEST`."""
    return min((entropy_q16 + Q16_PER_QUANTUM // 2) // Q16_PER_QUANTUM, LARGEST)
