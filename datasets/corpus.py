"""What a stream reads: the parts of a store's split, or of several stores, in one order.

Store | Mixture -> splits -> parts, end to end -> cut of each split -> order of each -> one order
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.mixture import Mixture, Phase, fingerprint_at
from bytropix.datasets.mixture_order import MixtureOrder, source_seed
from bytropix.datasets.order import Order, WindowOrder
from bytropix.datasets.packing import DocumentCut
from bytropix.datasets.store import Parts, Store
from bytropix.datasets.store.part import Part
from bytropix.datasets.windows import Cut, RowCut
from bytropix.errors import ConfigError, StoreError

Pack = Literal["bytes", "documents"]


def cut_rows(parts: Sequence[Part], sizes: NDArray[np.int64], width: int) -> Cut:
    """Return windows of equal width over the bytes of a split."""
    return RowCut(sizes, width)


def cut_documents(parts: Sequence[Part], sizes: NDArray[np.int64], width: int) -> Cut:
    """Return windows of whole documents."""
    return DocumentCut(parts, width)


CUTS = {"bytes": cut_rows, "documents": cut_documents}
"""How a split is cut into windows, by name."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """One split of a store, or the same split of every store of a mixture.

    Attributes:
        source: The store or mixture.
        split: Name of the split.
        width: Bytes of a window.
        pack: How the split is cut, a name in `CUTS`.
        parts: All parts, store after store.
        sizes: i64 [parts], bytes of each.
        first_parts: Where each store's parts begin.
        cuts: The windows of each store.
    """

    source: Store | Mixture
    split: str
    width: int
    pack: Pack
    parts: Sequence[Part]
    sizes: NDArray[np.int64]
    first_parts: tuple[int, ...]
    cuts: tuple[Cut, ...]

    @classmethod
    def open(cls, source: Store | Mixture, *, split: str, context: int, pack: Pack) -> "Corpus":
        """Find the parts and cut them.

        Raises:
            ConfigError: The context is below 1, or `pack` is no name in `CUTS`.
            StoreError: A store has no such split.
        """
        if context < 1:
            raise ConfigError(f"context must be at least 1 byte, got {context}")
        if pack not in CUTS:
            raise ConfigError(f"pack must be one of {', '.join(CUTS)}, got {pack!r}")
        found = [_parts(store, split) for store in _stores(source)]
        sizes = [parts.sizes for parts in found]
        cuts = tuple(CUTS[pack](parts, size, context + 1) for parts, size in zip(found, sizes, strict=True))
        firsts = (0, *accumulate(len(parts) for parts in found))
        return cls(source, split, context + 1, pack, EndToEnd(found), np.concatenate(sizes), firsts[:-1], cuts)

    def order(self, seed: int) -> Order:
        """Return the order that a seed names."""
        if isinstance(self.source, Store):
            return WindowOrder(self.cuts[0], seed=seed)
        orders = [WindowOrder(cut, seed=source_seed(seed, index)) for index, cut in enumerate(self.cuts)]
        return MixtureOrder(self.phases, orders, self.first_parts, seed=seed)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The shares of a mixture's stores over time; none of a single store."""
        if isinstance(self.source, Store):
            return ()
        ends = (*self.first_parts[1:], self.sizes.size)
        sizes = [int(self.sizes[first:end].sum()) for first, end in zip(self.first_parts, ends, strict=True)]
        return self.source.phases(sizes)

    @property
    def windows(self) -> int:
        """Windows in an epoch; 0 of a mixture, whose stores have epochs of their own."""
        return self.cuts[0].windows if isinstance(self.source, Store) else 0

    @property
    def n_bytes(self) -> int:
        """Bytes of all parts."""
        return int(self.sizes.sum())

    def fingerprint(self, position: int) -> str:
        """Return what two corpora share that deliver the same bytes up to a position, in hex."""
        if isinstance(self.source, Store):
            return self.source.fingerprint
        return fingerprint_at(position, self.source.stores, self.phases)

    @property
    def remote(self) -> bool:
        """Whether some of it comes over a network."""
        return any(store.storage.local is None for store in _stores(self.source))

    @property
    def url(self) -> str:
        """Where it lies."""
        return ", ".join(store.url for store in _stores(self.source))


class EndToEnd(Sequence[Part]):
    """Lists of parts as one, none of which is opened before it is asked for."""

    def __init__(self, lists: Sequence[Sequence[Part]]) -> None:
        self._lists = lists
        self._ends = list(accumulate(len(parts) for parts in lists))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Part: ...

    @overload
    def __getitem__(self, index: slice) -> list[Part]: ...

    def __getitem__(self, index: int | slice) -> Part | list[Part]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = bisect_right(self._ends, index)
        return self._lists[number][index - (self._ends[number - 1] if number else 0)]


def _stores(source: Store | Mixture) -> tuple[Store, ...]:
    """Return the stores of a source."""
    return (source,) if isinstance(source, Store) else source.stores


def _parts(store: Store, split: str) -> Parts[Part]:
    """Return the parts of a split."""
    parts = store.parts(split)
    if not parts:
        raise StoreError(
            f"{store.url}: split {split!r} holds no bytes (splits: {', '.join(store.splits)}); "
            "choose another split or ingest more"
        )
    return parts
