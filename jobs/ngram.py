"""The n-gram model that every neural figure is printed beside.

    train bytes -> counts of all 1..5-grams (sorted keys) -> interpolated probabilities -> nats of the val bytes

Witten and Bell's interpolation (1991, method C), the last order falling back to 1/256. It is static: fitted on the
train split, as the model beside it is, and not changed while it scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import Part

ORDER = 4
FITTED_BYTES = 32 << 20  # the counts of more would not fit the memory of a small machine

Keys = NDArray[np.uint64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Order:
    """Counts of one order: keys are the context's bytes and the byte after them, oldest first."""

    keys: Keys
    counts: Counts
    contexts: Keys
    totals: Counts
    distinct: Counts


class NgramModel:
    """Interpolated byte probabilities given the `ORDER` bytes before.

    Attributes:
        fitted_bytes: Bytes it was fitted on.
    """

    def __init__(self, orders: list[_Order], fitted_bytes: int) -> None:
        self._orders, self.fitted_bytes = orders, fitted_bytes

    @classmethod
    def fit(cls, parts: Sequence[Part], at_most: int = FITTED_BYTES) -> Self:
        """Count the documents of parts, an equal share of bytes from each where all are too many."""
        size = sum(part.n_bytes for part in parts)
        taken = [part.n_bytes if size <= at_most else part.n_bytes * at_most // size for part in parts]
        read = [(part.read("bytes", 0, count), part.doc_ends) for part, count in zip(parts, taken, strict=True)]
        data = np.concatenate([values for values, _ in read]) if read else np.empty(0, np.uint8)
        begins = np.concatenate([[0], np.cumsum(taken)[:-1]]) if read else np.empty(0, np.int64)
        ends = [ends[ends < len(values)] + begin for (values, ends), begin in zip(read, begins, strict=True)]
        place = _places(len(data), np.concatenate([*ends, begins]) if read else begins)
        return cls([_count(_keys(data, order)[place >= order]) for order in range(ORDER + 1)], len(data))

    def nats(self, data: NDArray[np.uint8], doc_ends: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return -ln p (n,) of every byte of documents laid end to end, each from earlier bytes of its document."""
        place = _places(len(data), doc_ends)
        chance = np.full(len(data), 1 / 256)
        for order, counted in enumerate(self._orders):
            keys = _keys(data, order)
            total, distinct = _find(counted.contexts, keys >> np.uint64(8), counted.totals, counted.distinct)
            (count,) = _find(counted.keys, keys, counted.counts)
            known = (total > 0) & (place >= order)
            mixed = (count + distinct * chance) / np.maximum(total + distinct, 1)
            chance = np.where(known, mixed, chance)
        nats: NDArray[np.float64] = -np.log(chance)
        return nats

    def bits_per_byte(self, parts: Sequence[Part]) -> float:
        """Return the mean bits of a byte of parts."""
        nats = sum(float(self.nats(part.read("bytes", 0, part.n_bytes), part.doc_ends).sum()) for part in parts)
        return nats / (math.log(2) * sum(part.n_bytes for part in parts))


def _places(length: int, borders: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each byte how many bytes of its document come before it; documents begin at 0 and at `borders`."""
    begins = np.zeros(length, np.int64)
    inner = borders[borders < length]
    begins[inner] = inner
    places: NDArray[np.int64] = np.arange(length) - np.maximum.accumulate(begins)
    return places


def _keys(data: NDArray[np.uint8], order: int) -> Keys:
    """Return for each byte the number made of the `order` bytes before it and the byte itself."""
    keys = data.astype(np.uint64)
    for back in range(1, order + 1):
        keys[back:] |= data[:-back].astype(np.uint64) << np.uint64(8 * back)
    return keys


def _count(keys: Keys) -> _Order:
    """Count keys, and for each context its occurrences and the distinct bytes after it."""
    unique, counts = np.unique(keys, return_counts=True)
    contexts, first, distinct = np.unique(unique >> np.uint64(8), return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first) if len(first) else counts
    return _Order(unique, counts, contexts, totals, distinct)


def _find(known: Keys, asked: Keys, *columns: Counts) -> list[Counts]:
    """Return the rows of `columns` of the asked keys, 0 where a key is unknown."""
    if not len(known):
        return [np.zeros(len(asked), np.int64) for _ in columns]
    rows = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    found = known[rows] == asked
    return [np.where(found, column[rows], 0) for column in columns]
