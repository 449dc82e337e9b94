"""The `words` rule: a patch is a word with the delimiters after it.

    byte -> class (word, punctuation, whitespace) -> a start after every delimiter whose class is new

The end of a run of delimiters shows only in the byte after it, which a rule that sees earlier bytes alone may
not look at. Starting *at* the delimiter, the other way out, is one of the worst rules there are: it puts the
uncertain byte, the first of a word, second. So a patch starts after the first byte of each run of punctuation
and of each run of whitespace: "end, next" is cut "end,| |next". The start after the comma is the price of not
looking ahead; every word of plain prose begins a patch. The rest of a run stays with what follows.
"""

import string

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.patching.config import PatchConfig
from bytropix.patching.limits import LENGTH, RULE_A, RULE_B, mark_wanted
from bytropix.patching.table import Measure

WORD, PUNCTUATION, WHITESPACE = range(3)


def _classes() -> NDArray[np.uint8]:
    """Return the class of each byte value: the 38 ASCII delimiters are special, all else is word."""
    classes = np.full(256, WORD, dtype=np.uint8)
    classes[list(string.punctuation.encode())] = PUNCTUATION
    classes[list(string.whitespace.encode())] = WHITESPACE
    return classes


_CLASSES = _classes()


class WordsRule:
    """Start after a delimiter (6 ASCII whitespace, 32 punctuation) of another class than the byte before it.

    It has no level: the mean patch length is the language's.
    """

    measure: Measure = "byte"

    def levels(self, config: PatchConfig) -> tuple[int, int]:
        """Return the one level there is; the rule does not read it."""
        return 0, 0

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
        wanted = np.empty(data.size, dtype=np.bool_)
        _want(data, ends, state, wanted)
        mark_wanted(data, wanted, ends, config.min_patch, config.max_patch, state, starts)
        return starts


@numba.njit(cache=True, nogil=True)
def _want(
    data: NDArray[np.uint8], ends: NDArray[np.int64], state: NDArray[np.int64], wanted: NDArray[np.bool_]
) -> None:
    """Wish for a start after each delimiter of a new class; the state holds the last two classes."""
    before, last = state[RULE_A], state[RULE_B]
    begin = 0
    for number in range(ends.size):
        if number > 0 or state[LENGTH] == 0:
            before, last = WORD, WORD
        for j in range(begin, ends[number]):
            wanted[j] = last not in (WORD, before)
            before, last = last, np.int64(_CLASSES[data[j]])
        begin = ends[number]
    state[RULE_A], state[RULE_B] = before, last
