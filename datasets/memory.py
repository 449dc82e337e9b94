"""The compiled steps of a gather: ask for memory ahead, copy bytes by address, move a bit string into place.

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
def append_bits(packed: NDArray[np.uint64], shift: int, count: int, row: NDArray[np.uint64], place: int) -> None:
    """Write bits `shift`, `shift` + 1, ... of `packed` (lowest bit first) to bits `place`, `place` + 1, ... of a row.

    Args:
        packed: u64 [k + 1] of a little-endian bit string; the last word only feeds the shift.
        shift: 0 to 63.
        count: Bits to write, 1 to 64 k.
        row: u64, whose bits from `place` on are 0.
        place: Any bit of the row such that `count` more fit.
    """
    down, up = np.uint64(shift), np.uint64(63 - shift)
    left, right = np.uint64(place & 63), np.uint64(63 - (place & 63))
    one = np.uint64(1)
    words, target = (count + 63) >> 6, place >> 6
    last = _lowest(count & 63) if count & 63 else ~np.uint64(0)
    if not left:  # nearly always, and simple enough for the compiler to do several words at once
        for i in range(words):
            row[target + i] = (packed[i] >> down) | ((packed[i + 1] << one) << up)
        row[target + words - 1] &= last
        return
    for i in range(words):
        word = (packed[i] >> down) | ((packed[i + 1] << one) << up)
        if i + 1 == words:
            word &= last
        row[target + i] |= word << left
        above = (word >> one) >> right
        if above:
            row[target + i + 1] |= above


@numba.njit(nogil=True, cache=True)
def count_bits(row: NDArray[np.uint64], counted: int) -> int:
    """Return the number of ones among the first `counted` bits of a row."""
    whole = counted >> 6
    found = np.uint64(0)
    for word in row[:whole]:
        found += _ones(word)
    if whole < row.size:
        found += _ones(row[whole] & _lowest(counted & 63))
    return int(found)


@numba.njit(nogil=True, cache=True)
def _lowest(count: int) -> np.uint64:
    """Return a word whose `count` lowest bits are set, 0 to 63."""
    return (np.uint64(1) << np.uint64(count)) - np.uint64(1)


@numba.njit(nogil=True, cache=True)
def _ones(word: np.uint64) -> np.uint64:
    """Count the bits that are set: in pairs, in fours, in bytes, and the bytes by a product."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)
