"""Limits that every rule obeys: whole characters, a least and a greatest length.

    wanted (a rule's wish for byte j) -> starts_here(wish, length, pending, limits) -> starts[j]
    byte j -> next_pending -> how many continuation bytes are still promised

Nothing here looks at byte j to decide about byte j. That a character is not over is known from its lead byte,
which promises how many continuation bytes follow, so the rule stays a function of the past alone.

The state of a document under way is a small int64 array, all zero at a document's start:
`[length of the open patch, pending continuation bytes, two slots that belong to the rule]`.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.patching.table import Integer

Flag = bool | np.bool_  # as numba has it, and as numpy has it

LENGTH, PENDING, RULE_A, RULE_B = range(4)

# A valid character has at most three continuation bytes: so far may a patch outgrow its greatest length.
LONGEST_REST = 3


def _promised() -> NDArray[np.uint8]:
    """Return how many continuation bytes each byte promises: UTF-8 lead bytes one to three, others none."""
    promised = np.zeros(256, dtype=np.uint8)
    promised[0xC2:0xE0] = 1
    promised[0xE0:0xF0] = 2
    promised[0xF0:0xF5] = 3
    return promised


PROMISED = _promised()


def fresh_state() -> NDArray[np.int64]:
    """Return the state at a document's start."""
    return np.zeros(4, dtype=np.int64)


@numba.njit(cache=True, nogil=True)
def next_pending(pending: Integer, byte: Integer) -> Integer:
    """Return how many continuation bytes are promised after `byte`, `pending` being promised before it.

    A broken promise is forgotten.
    """
    if pending == 0 or (byte & 0xC0) != 0x80:
        return np.int64(PROMISED[byte])
    return pending - 1


@numba.njit(cache=True, nogil=True)
def starts_here(wanted: Flag, length: Integer, pending: Integer, minimum: int, maximum: int) -> Flag:
    """Decide whether a patch starts before the next byte.

    Args:
        wanted: The rule's wish.
        length: Bytes in the open patch; 0 at a document's start, where a patch always starts.
        pending: Continuation bytes still promised; a patch waits for them, but not past `maximum + 3`: in
            broken data a run of lead bytes promises forever.
        minimum: Least length of a patch in bytes.
        maximum: Greatest length of a patch in bytes.
    """
    if pending == 0:  # without short circuits: one hard branch a byte instead of four
        return (length == 0) | (length >= maximum) | (wanted & (length >= minimum))
    return length >= maximum + LONGEST_REST


@numba.njit(cache=True, nogil=True)
def mark_wanted(
    data: NDArray[np.uint8],
    wanted: NDArray[np.bool_],
    ends: NDArray[np.int64],
    minimum: int,
    maximum: int,
    state: NDArray[np.int64],
    starts: NDArray[np.bool_],
) -> None:
    """Write into `starts` where the wishes of a rule without memory become patch starts.

    Args:
        data: Bytes of all documents, one after the other.
        wanted: The rule's wish for each byte.
        ends: End of each document in `data`; the first may continue a document under way, the last may go on.
        minimum: Least length of a patch in bytes.
        maximum: Greatest length of a patch in bytes.
        state: State before the first byte; holds the state after the last byte on return.
        starts: Output, one flag per byte.
    """
    length, pending = state[LENGTH], state[PENDING]
    begin = 0
    for number in range(ends.size):
        if number > 0:
            length, pending = 0, 0
        for j in range(begin, ends[number]):
            start = starts_here(wanted[j], length, pending, minimum, maximum)
            starts[j] = start
            length = 1 if start else length + 1
            pending = next_pending(pending, data[j])
        begin = ends[number]
    state[LENGTH], state[PENDING] = length, pending
