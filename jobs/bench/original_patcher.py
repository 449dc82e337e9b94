"""The patcher that Babylon patching replaces, written again after its description, for the bench alone.

    bytes -> decoded text (broken UTF-8 replaced) -> scan by character -> words and single delimiters
          -> each encoded again, with the entropy of its own byte histogram

It reads 8-bit values, where the original read the memory of 64-bit ones and so saw seven NUL bytes after every
byte. That makes it faster and its patches sensible, so a comparison with it flatters the original. Faults of its
design remain: a patch ends where the byte after it shows the end, broken UTF-8 is lost, a patch may be as long as
the text, and the entropy decides nothing.
"""

import string
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

DELIMITERS = frozenset(string.whitespace + string.punctuation)
CACHE_ENTRIES = 50_000
CACHE_KEPT = CACHE_ENTRIES * 8 // 10
_LOG_FLOOR = 1e-7

Patch = tuple[NDArray[np.uint8], float]


class OriginalPatcher:
    """Cuts text into words and delimiters and tells the entropy of each."""

    def __init__(self) -> None:
        self._entropies: OrderedDict[bytes, float] = OrderedDict()

    def __call__(self, document: bytes) -> list[Patch]:
        """Return the patches of a document: bytes u8[n] and the entropy of their histogram, in bits."""
        patches: list[Patch] = []
        for piece in split_words(document.decode("utf-8", errors="replace")):
            patch = np.frombuffer(piece.encode(), dtype=np.uint8)
            patches.append((patch, self._entropy(patch)))
        return patches

    def _entropy(self, patch: NDArray[np.uint8]) -> float:
        """Return the entropy of a patch from the cache, whose oldest fifth goes when it is full."""
        key = patch.tobytes()
        if key not in self._entropies:
            self._entropies[key] = histogram_entropy_bits(patch)
            if len(self._entropies) > CACHE_ENTRIES:
                while len(self._entropies) > CACHE_KEPT:
                    self._entropies.popitem(last=False)
        return self._entropies[key]


def split_words(text: str) -> list[str]:
    """Return the words of a text and its delimiters, each delimiter by itself, in order."""
    pieces: list[str] = []
    word: list[str] = []
    for character in text:
        if character in DELIMITERS:
            if word:
                pieces.append("".join(word))
                word = []
            pieces.append(character)
        else:
            word.append(character)
    if word:
        pieces.append("".join(word))
    return pieces


def histogram_entropy_bits(patch: NDArray[np.uint8]) -> float:
    """Return the Shannon entropy of the byte histogram of a patch, in bits, at least 0."""
    shares = np.bincount(patch, minlength=256) / patch.size
    shares = shares[shares > 0]
    return max(0.0, float(-(shares * np.log2(shares + _LOG_FLOOR)).sum()))
