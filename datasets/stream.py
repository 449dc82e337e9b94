"""A resumable stream of shuffled training batches.

    position -> runs of a few batches (closed form) -> gather, in a thread -> queue -> ByteBatch -> position moves on

The only state is the number of windows delivered so far, by all ranks together. A batch may span the border of two
epochs: unless told otherwise the last short batch of an epoch is filled up with the first windows of the next, so that
every batch has the same shape and every byte is delivered exactly once an epoch.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.batches import Batches, LastBatch, check_whole
from bytropix.datasets.corpus import Corpus, Pack
from bytropix.datasets.gather import CACHE_BYTES, Gatherer, Rows
from bytropix.datasets.mixture import Mixture
from bytropix.datasets.order import Order
from bytropix.datasets.quarantine import Checks, Quarantine
from bytropix.datasets.resumable import ResumableStream
from bytropix.datasets.state import StreamState, StreamWarning, read_state
from bytropix.datasets.store import Store
from bytropix.datasets.windows import Runs
from bytropix.errors import StoreError


class ByteStream(ResumableStream[ByteBatch]):
    """The windows of a split in shuffled order, a batch at a time, epoch after epoch.

    The sequence of global batches depends on the store, split, context, pack and seed alone. Rank r of R delivers rows
    r, r + R, ... of each. In a torch `DataLoader` (with `batch_size=None`) worker k of n delivers batches k, k + n and
    so on, which the loader deals back into the same sequence. Such workers are copies: they begin at the position this
    stream has when the loader starts them and leave it there, so behind `num_workers > 0` call `skip` with the batches
    taken before `state_dict`, or let torchdata's `StatefulDataLoader` collect the workers' states.

    Memory, whatever the store's size: about 90 MiB of batches made ahead (more where a batch exceeds 16 MiB), and for
    stores that are compressed or remote up to 9/8 of `cache_bytes`. Each worker of a loader has its own.

    Args:
        source: An open store, or a mixture of several: an endless stream, whose stores have epochs of their own.
        split: Name of the split.
        context: Bytes a model sees; a window has one more.
        batch: Windows in a global batch, of all ranks together.
        seed: Names the order.
        rank: Which rank this is.
        ranks: How many there are; they must divide `batch`.
        last: What becomes of the short batch at an epoch's end, see `Batches`.
        epochs: Epochs to deliver, counted from the stream's very beginning; `None` for no end.
        pack: How the split is cut into windows: "bytes" every `context` + 1 bytes, "documents" so that a document that
            fits in a window is never split, several to a window (bytropix.datasets.packing).
        checks: Each block is checked once, when it is first touched. "raise": damage is an error. "quarantine": rows
            that touch a damaged block come empty (length 0) and are counted. "off": mapped blocks are not checked, but
            those of parts below 1 MiB are.
        budget: Most damaged blocks that quarantine may leave out; one more is an error.
        cache_bytes: Decoded text of compressed or remote parts to keep. An epoch that fits is decoded once; a larger
            one is decoded each time, from 96 MiB for one rank on each block once an epoch.
        prefetch: Whether batches are made ahead, in threads.
        pinned: Whether batches lie in pinned memory, from which a GPU copies without waiting.

    Raises:
        ConfigError: A setting is out of its range, or the ranks do not divide the batch.
        StoreError: The store has no such split.
    """

    def __init__(
        self,
        source: Store | Mixture,
        *,
        split: str = "train",
        context: int,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        last: LastBatch = "fill",
        epochs: int | None = None,
        pack: Pack = "bytes",
        checks: Checks = "raise",
        budget: int = 0,
        cache_bytes: int = CACHE_BYTES,
        prefetch: bool = True,
        pinned: bool = False,
    ) -> None:
        made_with = {name: value for name, value in locals().items() if name not in ("self", "__class__", "source")}
        check_whole(seed=seed)
        self.split, self.context, self.batch, self.pack = split, context, batch, pack
        self.cache_bytes = cache_bytes
        self._corpus = Corpus.open(source, split=split, context=context, pack=pack)
        batches = Batches(windows=self._corpus.windows, batch=batch, last=last, epochs=epochs, rank=rank, ranks=ranks)
        super().__init__(source, batches, made_with, quarantine=Quarantine(checks, budget), prefetch=prefetch)
        self._rows = Gatherer(
            self._corpus.parts,
            self._corpus.sizes,
            cache_bytes=cache_bytes,
            quarantine=self._quarantine,
            pinned=pinned,
            remote=self._corpus.remote,
        )
        self._use_seed(int(seed))

    @property
    def windows(self) -> int:
        """Windows in an epoch; 0 of a mixture, which has none."""
        return self._corpus.windows

    @property
    def order(self) -> Order:
        """Which bytes come at which position; that of a mixture tells shares and epochs of its stores."""
        return self._order

    @property
    def n_bytes(self) -> int:
        """Bytes of the split, each of them delivered once an epoch."""
        return self._corpus.n_bytes

    @property
    def position(self) -> int:
        """Windows that all ranks together have been given: epoch * windows + place in the epoch."""
        return self._position

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands after the last batch delivered; whatever was prefetched does not count.

        Returns:
            Plain data of at most 256 bytes as JSON: `epoch`, `position` (windows delivered in that epoch, by all
            ranks), `seed`, and what these are about: the store's `fingerprint`, `split`, `context`, `pack` and `order`.
            It is the same on every rank, and good for any number of ranks.
        """
        return self._state().plain()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly behind the last batch delivered when `state` was taken; iterate anew afterwards.

        Batch size, ranks and workers may be others than they were. So may the context: windows are then cut anew, which
        a `StreamWarning` tells.

        Raises:
            StoreError: The state is of another store, split or cut, or no state at all.
        """
        found = read_state(state, self._state(), fingerprint=self._corpus.fingerprint, place=self._corpus.url)
        moved, notice = found.under(self._state(), self.windows, place=self._corpus.url)
        if notice:
            warnings.warn(f"{self._corpus.url}: {notice}", StreamWarning, stacklevel=2)
        self._use_seed(found.seed)
        self._moved(moved.epoch * self.windows + moved.position, found.lead)

    def _state(self) -> StreamState:
        epoch, position = divmod(self._position, self.windows) if self.windows else (0, self._position)
        return StreamState(
            epoch=epoch,
            position=position,
            seed=self._seed,
            fingerprint=self._corpus.fingerprint(self._position),
            split=self.split,
            context=self.context,
            pack=self.pack,
            lead=self._told_lead,
        )

    def _use_seed(self, seed: int) -> None:
        self._seed = seed
        self._order = self._corpus.order(seed)

    @property
    def _batch_bytes(self) -> int:
        row_bytes = (self.context + 1) * (3 if self.pack == "documents" else 1)  # their numbers take two bytes each
        return self._batches.rows * row_bytes

    def _ask_ahead(self, position: int, residue: int) -> None:
        """Let remote parts fetch what the round at hand needs, all of it at once."""
        if self._corpus.remote:
            self._rows.expect(self._order.at_hand(position, residue=residue, ranks=self._batches.ranks))

    def _gather(self, firsts: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[ByteBatch]:
        positions, counts = self._batches.rows_of(firsts, sizes)
        if self._corpus.remote:
            self._rows.expect(self._order.coming(positions))
        runs = self._order.runs(positions)
        if self._batches.last == "pad":
            runs = _padded(runs, counts, self._batches.rows)
            counts = np.full_like(counts, self._batches.rows)
        rows = self._rows(runs, width=self.context + 1, counted=self.context, documents=self.pack == "documents")
        if rows.lost and not self._quarantine.found:
            raise StoreError(
                f"{self._corpus.url}: {rows.lost} rows came without their bytes, though nothing was found to be "
                "damaged; this is a fault of the program: report it"
            )
        return _batches_of(rows, firsts, counts)


def _batches_of(rows: Rows, firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> list[ByteBatch]:
    """Return rows as batches of so many rows each; a batch costs a handful of objects and no loop over its rows."""
    split = counts.tolist()
    begins = np.cumsum(counts) - counts
    summed = np.concatenate(([0], np.cumsum(rows.lengths)))
    most = np.maximum.reduceat(np.append(rows.patches, 1), begins)
    documents = [None] * len(split) if rows.documents is None else rows.documents.split_with_sizes(split)
    fields = (
        rows.bytes.split_with_sizes(split),
        rows.bits.split_with_sizes(split),
        np.where(counts, most, 1).tolist(),
        torch.from_numpy(rows.lengths).split_with_sizes(split),
        documents,
        (summed[begins + counts] - summed[begins]).tolist(),
        firsts.tolist(),
    )
    return list(map(ByteBatch, *fields))


def _padded(runs: Runs, counts: NDArray[np.int64], rows: int) -> Runs:
    """Return runs with empty rows behind those of each batch, up to `rows`."""
    short = np.flatnonzero(counts < rows)
    at = np.cumsum(counts)[short]
    ends = np.repeat(at, (rows - counts)[short])
    return Runs(np.insert(runs.first, ends, runs.first[ends]), runs.parts, runs.starts, runs.stops)
