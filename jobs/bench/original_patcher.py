"""The patcher that Babylon patching replaces, written again after its description, for the bench alone.

    window (a tensor) -> its memory as text (broken UTF-8 replaced) -> scan by character -> words and single delimiters
                      -> a tensor for each, with the entropy of its own byte histogram

Its trainer hands it windows of int64, whose raw memory holds seven NUL bytes after every byte; handed uint8, it is
about twice as fast and its patches are sensible. Faults of its design remain: a patch ends where the byte after it
shows the end, broken UTF-8 is lost, a patch may be as long as the text, and the entropy decides nothing.
"""

import string
from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DELIMITERS = frozenset(string.whitespace + string.punctuation)
CACHE_ENTRIES = 50_000
CACHE_KEPT = CACHE_ENTRIES * 8 // 10
_LOG_FLOOR = 1e-7

Patch = tuple[Tensor, float]


class OriginalPatcher:
    """Cuts text into words and delimiters and tells the entropy of each."""

    def __init__(self) -> None:
        self._entropies: OrderedDict[bytes, float] = OrderedDict()

    def __call__(self, window: Tensor) -> list[Patch]:
        """Return the patches of a window: bytes u8 (n,) and the entropy of their histogram, in bits."""
        text = window.cpu().numpy().tobytes().decode("utf-8", errors="replace")
        patches: list[Patch] = []
        for piece in split_words(text):
            patch = torch.tensor(list(piece.encode()), dtype=torch.uint8, device=window.device)
            patches.append((patch, self._entropy(patch)))
        return patches

    def _entropy(self, tensor: Tensor) -> float:
        """Return the entropy of a patch from the cache, whose oldest fifth goes when it is full."""
        patch = tensor.cpu().numpy()
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
