"""The `entropy` rule: patches of about equal information, cut where a surprise is likely.

    entropy[j] -> cost of byte j -> information in the open patch --- over the budget ----> start
    entropy[j] against the document's running mean, once a share of the budget is used ---> start

A global threshold (the rule of the Byte Latent Transformer) leaves scripts of several bytes per character,
DNA and binary data with patches of the greatest length or of one byte. A budget of information, with a toll
on every byte, gives every kind of data patches of a like length; the peak keeps most cuts at the first letter
of a word. The constants were chosen on 766 files of text, markup, code, binary data and DNA at a mean of 6
bytes, where the mean of every single file lay between 3.4 and 10.5. The toll bounds the mean from above: where
every byte is certain, a patch ends after budget / toll bytes, about 11.

Every comparison is strict, so that a tie starts no patch, on any machine: all state is integer.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.patching.config import PatchConfig
from bytropix.patching.limits import LENGTH, LONGEST_REST, PENDING, RULE_A, RULE_B, Flag, next_pending, starts_here
from bytropix.patching.table import LARGEST, QUANTA_PER_BIT, Integer, Measure

# The running mean forgets with weight 1/128 per character; it starts at 2 bits, which text soon corrects.
MEAN_SHIFT = 7
MEAN_START = (2 * QUANTA_PER_BIT) << MEAN_SHIFT


class EntropyRule:
    """Start at a relative peak of the whole-character entropy, or when the budget of bits is used up.

    The level is the budget in 1/32 bit.
    """

    measure: Measure = "character"

    def levels(self, config: PatchConfig) -> tuple[int, int]:
        """Return the least budget (every character starts) and one so large that only `max_patch` cuts."""
        dearest = LARGEST + config.toll_bits * QUANTA_PER_BIT
        return -1, dearest * (config.max_patch + LONGEST_REST) * 100 // max(config.share_percent, 1)

    def mark(
        self,
        data: NDArray[np.uint8],
        entropy: NDArray[np.uint8],
        ends: NDArray[np.int64],
        *,
        level: int,
        config: PatchConfig,
        state: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Return the patch starts; see `Rule.mark`."""
        starts = np.empty(data.size, dtype=np.bool_)
        limits = (config.min_patch, config.max_patch)
        shape = (config.peak_percent, config.share_percent, config.toll_bits)
        _mark(data, entropy, ends, level, shape, limits, state, starts)
        return starts


@numba.njit(cache=True, nogil=True)
def _mark(
    data: NDArray[np.uint8],
    entropy: NDArray[np.uint8],
    ends: NDArray[np.int64],
    budget: int,
    shape: tuple[int, int, int],
    limits: tuple[int, int],
    state: NDArray[np.int64],
    starts: NDArray[np.bool_],
) -> None:
    peak_percent, share_percent, toll_bits = shape
    minimum, maximum = limits
    share = budget * share_percent // 100
    toll = toll_bits * QUANTA_PER_BIT
    # Both sides of the peak test in units of (1/32 bit) * 2^MEAN_SHIFT / 100.
    peak_scale = 100 << MEAN_SHIFT
    length, pending = state[LENGTH], state[PENDING]
    used, mean = state[RULE_A], state[RULE_B]
    begin = 0
    for number in range(ends.size):
        if number > 0:
            length, pending = 0, 0
        if length == 0:
            mean = MEAN_START
        for j in range(begin, ends[number]):
            cost: Integer = toll
            wanted: Flag = False
            if pending == 0:  # the entropy of a character is paid at its first byte
                value = np.int64(entropy[j])
                cost += value
                peak = (used > share) & (value * peak_scale > peak_percent * mean)
                wanted = peak | (used + cost > budget)
                mean += value - (mean >> MEAN_SHIFT)
            start = starts_here(wanted, length, pending, minimum, maximum)
            starts[j] = start
            length = 1 if start else length + 1
            used = cost if start else used + cost
            pending = next_pending(pending, data[j])
        begin = ends[number]
    state[LENGTH], state[PENDING] = length, pending
    state[RULE_A], state[RULE_B] = used, mean
