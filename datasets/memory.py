"""The two compiled steps of a gather that numba has no word for: copy bytes by address, unpack bits to flags.

Addresses come from arrays that the caller keeps alive; callers check every range before they copy.
"""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

# Row v holds the 8 bits of v, lowest first, one a byte, as one 64-bit word.
FLAGS: NDArray[np.uint64] = (
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view(np.uint64).ravel()
)


@intrinsic
def copy_bytes(typing_context: Any, destination: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes from address `source` to address `destination`; the ranges must not overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.get_value_type(types.voidptr)
        to, start = (builder.inttoptr(address, pointer) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, start, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@numba.njit(nogil=True, cache=True)
def unpack_bits(
    packed: NDArray[np.uint64], shift: int, flags: NDArray[np.uint64], table: NDArray[np.uint64]
) -> None:
    """Unpack bits `shift`, `shift` + 1, ... of `packed` (lowest bit first) into one byte each.

    Args:
        packed: u64 [k + 1] of a little-endian bit string; the last word only feeds the shift.
        shift: 0 to 63.
        flags: u64 [8 k], written; seen as u8 it holds 64 k bytes of 0 or 1.
        table: `FLAGS`.
    """
    low = np.uint64(255)
    down, up = np.uint64(shift), np.uint64(63 - shift)
    for i in range(flags.size >> 3):
        word = (packed[i] >> down) | ((packed[i + 1] << np.uint64(1)) << up)
        for k in range(8):
            flags[i * 8 + k] = table[(word >> np.uint64(8 * k)) & low]
