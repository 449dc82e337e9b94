"""The compiled steps of a gather: ask for memory ahead, copy bytes by address, unpack bits to flags.

Addresses come from arrays that the caller keeps alive; callers check every range before they copy.
"""

from collections.abc import Callable
from typing import Any, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

# Row v holds the 8 bits of v, lowest first, one a byte, as one 64-bit word.
FLAGS: NDArray[np.uint64] = (
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view(np.uint64).ravel()
)


@intrinsic
def _copy_bytes(typing_context: Any, destination: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes from address `source` to address `destination`; the ranges must not overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.get_value_type(types.voidptr)
        to, start = (builder.inttoptr(address, pointer) for address in arguments[:2])
        raw_memcpy: Callable[..., None] = cgutils.raw_memcpy
        raw_memcpy(builder, to, start, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def _prefetch_line(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at `address`; a hint that cannot fail."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        signature_of_hint = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [pointer], signature_of_hint)
        read, second_level, data = (ir.Constant(number, value) for value in (0, 2, 1))
        builder.call(hint, [builder.inttoptr(arguments[0], pointer), read, second_level, data])
        return context.get_dummy_value()

    return types.void(types.int64), generate


# What compiled code calls: the intrinsic's own first parameter, the typing context, is not an argument.
copy_bytes = cast(Callable[[int, int, int], None], _copy_bytes)
_ask_for_line = cast(Callable[[int], None], _prefetch_line)


@numba.njit(nogil=True, cache=True)
def prefetch(address: int, count: int) -> None:
    """Ask for `count` bytes from `address` on: shuffled windows are too far apart for the processor to guess."""
    for line in range(0, count, 64):
        _ask_for_line(address + line)


@numba.njit(nogil=True, cache=True)
def unpack_bits(
    packed: NDArray[np.uint64],
    shift: int,
    flags: NDArray[np.uint64],
    counted: int,
    table: NDArray[np.uint64],
) -> int:
    """Unpack bits `shift`, `shift` + 1, ... of `packed` (lowest bit first) into one byte each, and count some.

    Args:
        packed: u64 [k + 1] of a little-endian bit string; the last word only feeds the shift.
        shift: 0 to 63.
        flags: u64 [8 k], written; seen as u8 it holds 64 k bytes of 0 or 1.
        counted: How many of the first flags to count, at most 64 k.
        table: `FLAGS`.

    Returns:
        The number of ones among the first `counted` flags.
    """
    low, ones = np.uint64(255), np.uint64(0x0101010101010101)
    down, up = np.uint64(shift), np.uint64(63 - shift)
    whole = counted >> 6
    found = np.uint64(0)
    for i in range(flags.size >> 3):
        word = (packed[i] >> down) | ((packed[i + 1] << np.uint64(1)) << up)
        total = np.uint64(0)
        for k in range(8):
            eight = table[(word >> np.uint64(8 * k)) & low]
            flags[i * 8 + k] = eight
            total += eight
        if i < whole:  # each byte of `total` is at most 8; the product adds them up in its highest byte
            found += (total * ones) >> np.uint64(56)
    count = np.int64(found)
    for flag in flags.view(np.uint8)[whole << 6 : counted]:
        count += flag
    return int(count)
