"""What the parts themselves tell, beyond the manifest, in memory and time that no store outgrows.

every part, or a drawn sample -> doc_ends -> documents by length
stretches drawn over all bytes -> entropy, starts -> bytes by entropy, mean entropy by place in the patch
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np

from bytropix.datasets.store import Part, PartRecord, Store, open_part, part_bytes
from bytropix.patching import QUANTA_PER_BIT

PARTS = 256  # whose documents are measured, of a store with more
DOCUMENTS = 4_000_000
STRETCHES = 64  # that entropies are read from, of at most this many parts:
STRETCHED_PARTS = 16
STRETCH_BYTES = 1 << 18
PLACES = 16


@dataclass(frozen=True, slots=True)
class Lengths:
    """Documents by length."""

    doublings: list[int]
    """How many have 2^k to 2^(k + 1) - 1 bytes."""
    documents: int
    median: float
    """Bytes."""
    longest: int
    """Bytes."""
    parts: int
    """Parts that were read."""
    of_parts: int
    """Parts there are."""


@dataclass(frozen=True, slots=True)
class Entropies:
    """Entropy of the bytes."""

    quanta: list[int]
    """How many bytes have 0, 1 ... 255 quanta of 1/32 bit."""
    by_place: list[float]
    """Mean bits at the first, second ... byte of a patch, as far as there are any."""
    n_bytes: int
    """Bytes that were read."""

    @property
    def mean_bits(self) -> float:
        """Mean over the bytes that were read."""
        return sum(value * count for value, count in enumerate(self.quanta)) / QUANTA_PER_BIT / max(self.n_bytes, 1)


def document_lengths(store: Store, seed: int) -> Lengths:
    """Return documents by length, from all parts if they are few, otherwise from parts that `seed` draws."""
    parts = store.manifest.parts
    drawn = parts if len(parts) <= PARTS else random.Random(seed).sample(parts, PARTS)
    lengths = [np.empty(0, np.int64)]
    documents = 0
    for record in drawn:
        lengths.append(np.diff(open_part(store.storage, record).doc_ends, prepend=0))
        documents += len(lengths[-1])
        if documents >= DOCUMENTS:
            break
    every = np.concatenate(lengths)
    # frexp gives the exponent exactly, which a rounded logarithm of 2^k - 1 does not.
    doublings = np.bincount(np.frexp(np.maximum(every, 1).astype(np.float64))[1] - 1)
    return Lengths(
        doublings=doublings.tolist(),
        documents=len(every),
        median=float(np.median(every)) if len(every) else 0.0,
        longest=int(every.max(initial=0)),
        parts=len(lengths) - 1,
        of_parts=len(parts),
    )


def entropies(store: Store, seed: int) -> Entropies:
    """Return the entropy of all bytes if they are few, otherwise of stretches that `seed` draws."""
    quanta = np.zeros(256, np.int64)
    sums, counts = np.zeros(PLACES), np.zeros(PLACES, np.int64)
    n_bytes = 0
    for part, begin, end in _stretches(store, seed):
        entropy = part.read("entropy", begin, end)
        starts = np.unpackbits(part.read("starts", begin // 8, (end + 7) // 8), bitorder="little")[: end - begin]
        quanta += np.bincount(entropy, minlength=256)
        n_bytes += len(entropy)
        index = np.arange(len(entropy))
        place = index - np.maximum.accumulate(np.where(starts, index, -1))
        # Before the first start of a stretch the place in the patch is not known.
        known = (np.cumsum(starts, dtype=np.int64) > 0) & (place < PLACES)
        sums += np.bincount(place[known], weights=entropy[known], minlength=PLACES)
        counts += np.bincount(place[known], minlength=PLACES)
    # Where one patch in a thousand or fewer is so long, the mean says nothing.
    often = counts > counts[0] / 1000
    filled = int(np.argmin(often)) if not often.all() else PLACES
    means = sums[:filled] / counts[:filled] / QUANTA_PER_BIT
    return Entropies(quanta=quanta.tolist(), by_place=means.tolist(), n_bytes=n_bytes)


def _stretches(store: Store, seed: int) -> Iterator[tuple[Part, int, int]]:
    """Give the stretches to read, as part, begin and end; they begin at whole bytes of `starts`.

    Each part is opened for itself and let go, so that no more than one is mapped or fetched.
    """
    generator = random.Random(seed)
    parts = store.manifest.parts
    if len(parts) > STRETCHED_PARTS and sum(-(-part_bytes(parts) // STRETCH_BYTES)) > STRETCHES:
        parts = [parts[place] for place in sorted(generator.sample(range(len(parts)), STRETCHED_PARTS))]
    every = [(place, number) for place, part in enumerate(parts) for number in range(_count(part))]
    drawn = every if len(every) <= STRETCHES else sorted(generator.sample(every, STRETCHES))
    for place, group in groupby(drawn, key=itemgetter(0)):
        part = open_part(store.storage, parts[place])
        for _, number in group:
            yield part, number * STRETCH_BYTES, min((number + 1) * STRETCH_BYTES, part.n_bytes)


def _count(part: PartRecord) -> int:
    """Return how many stretches a part has."""
    return -(-part.n_bytes // STRETCH_BYTES)


def in_groups(counts: list[int], edges: list[int]) -> list[int]:
    """Return the sums of `counts` between successive edges."""
    return [sum(counts[low:high]) for low, high in pairwise(edges)]
