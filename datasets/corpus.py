"""What a stream reads: the parts of a store's split, or of several stores, in one order.

Store | Mixture -> splits -> parts, end to end -> cut of each split -> order of each -> one order
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.order import Order, WindowOrder
from bytropix.datasets.store import Store
from bytropix.datasets.store.part import Part
from bytropix.datasets.windows import Cut, RowCut
from bytropix.errors import ConfigError, StoreError

Pack = Literal["bytes"]


def cut_rows(parts: Sequence[Part], sizes: NDArray[np.int64], width: int) -> Cut:
    """Return windows of equal width over the bytes of a split."""
    return RowCut(sizes, width)


CUTS = {"bytes": cut_rows}
"""How a split is cut into windows, by name."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """One split of a store, or the same split of several.

    Attributes:
        stores: The stores.
        split: Name of the split.
        width: Bytes of a window.
        pack: How the split is cut, a name in `CUTS`.
        parts: All parts, store after store.
        sizes: i64 [parts], bytes of each.
        cuts: The windows of each store.
    """

    stores: tuple[Store, ...]
    split: str
    width: int
    pack: Pack
    parts: Sequence[Part]
    sizes: NDArray[np.int64]
    cuts: tuple[Cut, ...]

    @classmethod
    def open(cls, store: Store, *, split: str, context: int, pack: Pack) -> "Corpus":
        """Find the parts and cut them.

        Raises:
            ConfigError: The context is below 1, or `pack` is no name in `CUTS`.
            StoreError: A store has no such split.
        """
        if context < 1:
            raise ConfigError(f"context must be at least 1 byte, got {context}")
        if pack not in CUTS:
            raise ConfigError(f"pack must be one of {', '.join(CUTS)}, got {pack!r}")
        stores = (store,)
        found = [_parts(one, split) for one in stores]
        sizes = [np.array([part.n_bytes for part in parts], dtype=np.int64) for parts in found]
        cuts = [CUTS[pack](parts, size, context + 1) for parts, size in zip(found, sizes, strict=True)]
        parts = tuple(chain.from_iterable(found))
        return cls(stores, split, context + 1, pack, parts, np.concatenate(sizes), tuple(cuts))

    def order(self, seed: int) -> Order:
        """Return the order that a seed names."""
        return WindowOrder(self.cuts[0], seed=seed)

    @property
    def windows(self) -> int:
        """Windows in an epoch; 0 where there are no epochs."""
        return self.cuts[0].windows

    @property
    def n_bytes(self) -> int:
        """Bytes of all parts."""
        return int(self.sizes.sum())

    @property
    def fingerprint(self) -> str:
        """What two corpora share that deliver the same bytes, in hex."""
        return self.stores[0].fingerprint

    @property
    def remote(self) -> bool:
        """Whether some of it comes over a network."""
        return any(store.storage.local is None for store in self.stores)

    @property
    def url(self) -> str:
        """Where it lies."""
        return ", ".join(store.url for store in self.stores)


def _parts(store: Store, split: str) -> Sequence[Part]:
    """Return the parts of a split."""
    parts = store.parts(split)
    if not parts:
        raise StoreError(
            f"{store.url}: split {split!r} holds no bytes (splits: {', '.join(store.splits)}); "
            "choose another split or ingest more"
        )
    return parts
