"""Fit an entropy table on a sample of documents, in integers.

    sample -> counts by the last 0, 1, 2 bytes -> H0, H1, H2 (each smoothed with the order below)
                                               -> expected rest of a character -> H0..H2 of characters
    sample -> 28-bit keys (slot of the last 3 bytes, byte) -> grouped by slot -> H3, smoothed with H2

Smoothing has Witten and Bell's weights (1991, method C): H = (n H_own + T H_lower) / (n + T), with n the
occurrences of the context and T the number of distinct bytes seen after it. Entropies are in Q16 bits until
the table is quantized.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.patching.limits import LONGEST_REST, PROMISED
from bytropix.patching.table import (
    BACK_OFF,
    SLOT_BITS,
    EntropyTable,
    Integer,
    Measure,
    context_slot,
    log2_q16,
    quantize,
)

Counts = NDArray[np.uint32] | NDArray[np.int64]

# Fewer occurrences than this say less than the two nearest bytes do.
LEAST_OCCURRENCES = 4

# Order 3 is counted by groups of slots, so that the counts of a group (2 MiB) stay in the cache
# and the whole costs 4 bytes per byte of the sample where a full table would cost 1 GiB.
_GROUP_BITS = 11
_GROUPS = 1 << (SLOT_BITS - _GROUP_BITS)


def fit_table(data: NDArray[np.uint8], ends: NDArray[np.int64], measure: Measure) -> EntropyTable:
    """Return the entropy table of a sample.

    Args:
        data: Bytes of all documents, one after the other, fewer than 2^31.
        ends: End of each document in `data`, ascending.
        measure: Entropy of the next "byte", or of the whole next "character" where one begins.
    """
    counts0 = np.zeros((1, 256), dtype=np.int64)
    counts1 = np.zeros((1 << 8, 256), dtype=np.int64)
    counts2 = np.zeros((1 << 16, 256), dtype=np.uint32)
    _count(data, ends, counts0, counts1, counts2)
    nothing = np.zeros(1, dtype=np.int64)
    plain0 = _entropies(counts0, nothing)
    plain1 = _entropies(counts1, plain0)
    plain2 = _entropies(counts2, plain1)
    rests2 = np.zeros((LONGEST_REST + 1, 1 << 16), dtype=np.int64)
    if measure == "character":
        rests1 = np.zeros((LONGEST_REST + 1, 1 << 8), dtype=np.int64)
        _expect_rests(counts1, plain1, np.zeros((LONGEST_REST + 1, 1), dtype=np.int64), rests1)
        _expect_rests(counts2, plain2, rests1, rests2)
    begun1 = _expect_begun(counts1, rests2, nothing)
    begun2 = _expect_begun(counts2, rests2, begun1)
    occurrences1 = counts1.sum(axis=1)
    begun0 = (begun1 * occurrences1).sum(keepdims=True) // max(occurrences1.sum(), 1)
    del counts2
    return EntropyTable(
        order0=_quantize_all(plain0 + begun0),
        order1=_quantize_all(plain1 + begun1),
        order2=_quantize_all(plain2 + begun2),
        order3=_fit_order3(data, ends, plain2 + begun2, rests2),
        measure=measure,
    )


def _fit_order3(
    data: NDArray[np.uint8], ends: NDArray[np.int64], whole2: NDArray[np.int64], rests2: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the order-3 entropies, `BACK_OFF` where a slot has too few occurrences."""
    sums = np.zeros((1 << SLOT_BITS, 2), dtype=np.int64)
    group_ends = np.zeros(_GROUPS, dtype=np.int64)
    _sum_order3(data, ends, whole2, rests2, sums, group_ends)
    group_ends = np.cumsum(group_ends)
    keys = np.empty(group_ends[-1], dtype=np.uint32)
    _group_keys(data, ends, np.concatenate(([0], group_ends[:-1])), keys)
    order3 = np.full(1 << SLOT_BITS, BACK_OFF, dtype=np.uint8)
    _count_groups(keys, group_ends, sums, order3)
    return order3


@numba.njit(cache=True, nogil=True)
def _count(
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    counts0: NDArray[np.int64],
    counts1: NDArray[np.int64],
    counts2: NDArray[np.uint32],
) -> None:
    """Count each byte by itself, after the last one, and after the last two bytes of its document."""
    begin = 0
    for end in ends:
        if begin < end:
            counts0[0, data[begin]] += 1
        if begin + 1 < end:
            counts1[data[begin], data[begin + 1]] += 1
        for j in range(begin + 2, end):
            counts2[(np.int64(data[j - 2]) << 8) | data[j - 1], data[j]] += 1
        begin = end
    for context in range(1 << 16):
        for symbol in range(256):
            counts1[context & 255, symbol] += counts2[context, symbol]
    for context in range(1 << 8):
        for symbol in range(256):
            counts0[0, symbol] += counts1[context, symbol]


@numba.njit(cache=True, nogil=True)
def _row(counts: Counts) -> tuple[Integer, Integer, Integer]:
    """Return occurrences, distinct symbols and n * H in Q16 bits of one row of counts."""
    occurrences = distinct = logs = np.int64(0)
    for count in counts:
        if count > 0:
            occurrences += np.int64(count)
            distinct += 1
            logs += np.int64(count) * log2_q16(np.int64(count))
    if occurrences == 0:
        return occurrences, distinct, logs
    return occurrences, distinct, occurrences * log2_q16(occurrences) - logs


@numba.njit(cache=True, nogil=True)
def _entropies(counts: Counts, lower: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the smoothed entropy of each context in Q16 bits; `lower` holds the shorter contexts."""
    result = np.empty(counts.shape[0], dtype=np.int64)
    for context in range(counts.shape[0]):
        shorter = lower[context & (lower.size - 1)]
        occurrences, distinct, weighted = _row(counts[context])
        result[context] = (weighted + distinct * shorter) // max(occurrences + distinct, 1)
        if occurrences == 0:
            result[context] = shorter
    return result


@numba.njit(cache=True, nogil=True)
def _expect_rests(counts: Counts, plain: NDArray[np.int64], lower: NDArray[np.int64], rests: NDArray[np.int64]) -> None:
    """Fill `rests[r, context]`: entropy of the next r continuation bytes, Q16 bits, weighted by their chance.

    K_r(a, b) = P(continuation | a, b) H(a, b) + sum over continuation bytes c of P(c | a, b) K_{r-1}(b, c),
    smoothed with `lower`, the same of the shorter contexts.
    """
    contexts = counts.shape[0]
    for rest in range(1, LONGEST_REST + 1):
        for context in range(contexts):
            occurrences = distinct = continued = later = np.int64(0)
            for symbol in range(256):
                count = np.int64(counts[context, symbol])
                if count > 0:
                    occurrences += count
                    distinct += 1
                    if 0x80 <= symbol < 0xC0:
                        continued += count
                        later += count * rests[rest - 1, ((context << 8) | symbol) & (contexts - 1)]
            shorter = lower[rest, context & (lower.shape[1] - 1)]
            if occurrences == 0:
                rests[rest, context] = shorter
            else:
                known = plain[context] * continued + later
                rests[rest, context] = (known + distinct * shorter) // (occurrences + distinct)


@numba.njit(cache=True, nogil=True)
def _expect_begun(counts: Counts, rests2: NDArray[np.int64], lower: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each context the expected entropy of the rest of the character that the next byte begins."""
    result = np.empty(counts.shape[0], dtype=np.int64)
    for context in range(counts.shape[0]):
        occurrences = distinct = begun = np.int64(0)
        for symbol in range(256):
            count = np.int64(counts[context, symbol])
            if count > 0:
                occurrences += count
                distinct += 1
                begun += count * rests2[PROMISED[symbol], ((context << 8) | symbol) & 0xFFFF]
        shorter = lower[context & (lower.size - 1)]
        result[context] = (begun + distinct * shorter) // max(occurrences + distinct, 1)
        if occurrences == 0:
            result[context] = shorter
    return result


@numba.njit(cache=True, nogil=True)
def _quantize_all(entropies_q16: NDArray[np.int64]) -> NDArray[np.uint8]:
    result = np.empty(entropies_q16.size, dtype=np.uint8)
    for index in range(entropies_q16.size):
        result[index] = quantize(entropies_q16[index])
    return result


@numba.njit(cache=True, nogil=True)
def _sum_order3(
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    whole2: NDArray[np.int64],
    rests2: NDArray[np.int64],
    sums: NDArray[np.int64],
    group_sizes: NDArray[np.int64],
) -> None:
    """Sum over the occurrences of each slot the order-2 entropy and the rest of the character begun.

    Contexts that share a slot differ in both, so the sums are taken per occurrence and not per context.
    """
    begin = 0
    for end in ends:
        for j in range(begin + 3, end):
            slot = context_slot(data[j - 3], data[j - 2], data[j - 1])
            last = np.int64(data[j - 1])
            sums[slot, 0] += whole2[(np.int64(data[j - 2]) << 8) | last]
            rest = PROMISED[data[j]]
            if rest > 0:
                sums[slot, 1] += rests2[rest, (last << 8) | data[j]]
            group_sizes[slot >> _GROUP_BITS] += 1
        begin = end


@numba.njit(cache=True, nogil=True)
def _group_keys(
    data: NDArray[np.uint8], ends: NDArray[np.int64], cursors: NDArray[np.int64], keys: NDArray[np.uint32]
) -> None:
    """Write every (slot, byte) as `slot << 8 | byte` into its group; `cursors` are the groups' begins."""
    begin = 0
    for end in ends:
        for j in range(begin + 3, end):
            slot = context_slot(data[j - 3], data[j - 2], data[j - 1])
            group = slot >> _GROUP_BITS
            keys[cursors[group]] = (slot << 8) | data[j]
            cursors[group] += 1
        begin = end


@numba.njit(cache=True, nogil=True)
def _count_groups(
    keys: NDArray[np.uint32],
    group_ends: NDArray[np.int64],
    sums: NDArray[np.int64],
    order3: NDArray[np.uint8],
) -> None:
    """Count the keys group by group and write the entropy of each slot that occurs often enough."""
    slots = 1 << _GROUP_BITS
    counts = np.zeros((slots, 256), dtype=np.uint32)
    totals = np.zeros(slots, dtype=np.int64)
    begin = 0
    for group in range(group_ends.size):
        end = group_ends[group]
        for j in range(begin, end):
            slot = (keys[j] >> 8) & (slots - 1)
            counts[slot, keys[j] & 255] += 1
            totals[slot] += 1
        for slot in range(slots if begin < end else 0):
            if totals[slot] >= LEAST_OCCURRENCES:
                occurrences, distinct, weighted = _row(counts[slot])
                index = (group << _GROUP_BITS) | slot
                shorter = distinct * (sums[index, 0] // occurrences)
                whole = (weighted + sums[index, 1] + shorter) // (occurrences + distinct)
                order3[index] = quantize(whole)
            if totals[slot] > 0:
                counts[slot] = 0
                totals[slot] = 0
        begin = end
