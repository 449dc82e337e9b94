"""A resumable stream of shuffled training batches.

    position -> runs of a few batches (closed form) -> gather, in a thread -> queue -> ByteBatch -> position moves on

The only state is the number of windows delivered so far, by all ranks together. A batch may span the border of two
epochs: unless told otherwise the last short batch of an epoch is filled up with the first windows of the next, so that
every batch has the same shape and every byte is delivered exactly once an epoch.
"""

import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.batches import Batches, LastBatch
from bytropix.datasets.corpus import Corpus, Pack
from bytropix.datasets.gather import CACHE_BYTES, Gatherer, Rows
from bytropix.datasets.mixture import Mixture
from bytropix.datasets.order import Order
from bytropix.datasets.prefetch import ordered_prefetch
from bytropix.datasets.quarantine import Checks, Damage, Quarantine
from bytropix.datasets.state import StreamState, StreamWarning, read_state
from bytropix.datasets.store import Store
from bytropix.datasets.windows import Runs
from bytropix.errors import ConfigError, StoreError

_CHUNK_BYTES = 16 << 20  # gathered at a time: what a chunk costs besides copying is as much as gathering a megabyte
_CHUNK_BATCHES = 128  # thousands of tiny batches made ahead would keep a training waiting at its start and end
_CHUNKS_AHEAD = 3  # with fewer, threads stand still where the consumer is late
_THREADS = 2


class ByteStream(IterableDataset[ByteBatch]):
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
        super().__init__()
        self._made_with = {
            name: value for name, value in locals().items() if name not in ("self", "__class__", "source")
        }
        self.split, self.context, self.batch, self.pack = split, context, batch, pack
        self.cache_bytes = cache_bytes
        self._source = source
        self._corpus = Corpus.open(source, split=split, context=context, pack=pack)
        self._batches = Batches(
            windows=self._corpus.windows, batch=batch, last=last, epochs=epochs, rank=rank, ranks=ranks
        )
        self._quarantine = Quarantine(checks, budget)
        self._gather = Gatherer(
            self._corpus.parts,
            self._corpus.sizes,
            cache_bytes=cache_bytes,
            quarantine=self._quarantine,
            pinned=pinned,
            remote=self._corpus.remote,
        )
        self._prefetch = prefetch
        self._position = 0
        self._lead: int | None = None  # of a loader's worker: batches between the position and its next one, if known
        self._reads = False
        self._process = os.getpid()
        self._use_seed(seed)

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

    @property
    def quarantined(self) -> list[Damage]:
        """The damage that was left out so far, by this process."""
        return list(self._quarantine.found)

    def __iter__(self) -> Iterator[ByteBatch]:
        """Yield batches from the current position on.

        Raises:
            StoreError: Something read is damaged, or an epoch ended without every byte having been accounted for.
        """
        worker = get_worker_info()
        lane, lanes = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            self._settle()
        first = lane if self._lead is None else self._lead
        tasks = self._tasks(self._position, first, lanes)
        self._ask_ahead(self._position, first)
        if self._prefetch:
            chunks = ordered_prefetch(self._chunk, tasks, threads=_THREADS, ahead=_CHUNKS_AHEAD)
        else:
            chunks = (self._chunk(task) for task in tasks)
        with closing(chunks):
            for chunk in chunks:
                if not chunk:
                    return
                for following, batch in chunk:
                    self._position = following
                    self._lead = None if worker is None else lanes - 1
                    yield batch

    def _settle(self) -> None:
        """Make a loader's worker ready to read.

        Raises:
            ConfigError: It has read before, and went further than what its loader delivered.
        """
        if os.getpid() != self._process:  # forked: threads of the first process may have been at work on what is here
            self.__dict__ = pickle.loads(pickle.dumps(self)).__dict__
        if self._reads:
            raise ConfigError(
                "persistent_workers: a worker has read ahead of what was delivered, and cannot begin anew; make the "
                "loader without them, or go on with the iterator that there is"
            )
        self._reads = True

    def skip(self, batches: int) -> None:
        """Move on by some batches, such as those that a loader's workers delivered; iterate anew afterwards.

        Raises:
            ConfigError: `batches` is negative.
        """
        if batches < 0:
            raise ConfigError(f"a stream cannot go back: skip {batches} batches")
        if batches:
            first, sizes = self._batches.at(self._position, np.array([batches - 1]))
            self._position = int(first[0] + sizes[0])

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
        self._position = moved.epoch * self.windows + moved.position
        self._lead = found.lead
        self._reads = False

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
            lead=self._lead if get_worker_info() is not None else None,
        )

    def _use_seed(self, seed: int) -> None:
        self._seed = seed
        self._order = self._corpus.order(seed)

    def _tasks(self, start: int, first: int, stride: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the numbers, from `start` on, of the batches first, first + stride, ... in chunks.

        The first chunk is one batch, which comes soon.
        """
        yield start, np.array([first])
        row_bytes = (self.context + 1) * (3 if self.pack == "documents" else 1)  # their numbers take two bytes each
        batches = min(max(1, _CHUNK_BYTES // (self._batches.rows * row_bytes)), _CHUNK_BATCHES)
        for number in count(first + stride, batches * stride):
            yield start, number + stride * np.arange(batches)

    def _ask_ahead(self, start: int, number: int) -> None:
        """Let remote parts fetch what the round at hand needs, all of it at once."""
        if self._corpus.remote:
            first, _ = self._batches.at(start, np.array([number]))
            residue = int(first[0] + self._batches.rank) % self._batches.ranks
            self._gather.expect(self._order.at_hand(int(first[0]), residue=residue, ranks=self._batches.ranks))

    def _chunk(self, task: tuple[int, NDArray[np.int64]]) -> list[tuple[int, ByteBatch]]:
        """Gather batches; returns each with the position behind it, none if the stream has ended."""
        start, numbers = task
        firsts, sizes = self._batches.at(start, numbers)
        if not sizes.all():  # behind the end
            firsts, sizes = firsts[sizes > 0], sizes[sizes > 0]
        if not firsts.size:
            return []
        positions, counts = self._batches.rows_of(firsts, sizes)
        if self._corpus.remote:
            self._gather.expect(self._order.coming(positions))
        runs = self._order.runs(positions)
        if self._batches.last == "pad":
            runs = _padded(runs, counts, self._batches.rows)
            counts = np.full_like(counts, self._batches.rows)
        rows = self._gather(runs, width=self.context + 1, counted=self.context, documents=self.pack == "documents")
        if rows.lost and not self._quarantine.found:
            raise StoreError(
                f"{self._corpus.url}: {rows.lost} rows came without their bytes, though nothing was found to be "
                "damaged; this is a fault of the program: report it"
            )
        return list(zip((firsts + sizes).tolist(), _batches_of(rows, firsts, counts), strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the store's place, the settings and a state; the store is opened again there."""
        source = self._source.url if isinstance(self._source, Store) else self._source
        return _reopen, (source, self._made_with, self.state_dict())


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


def _reopen(source: str | Mixture, settings: dict[str, Any], state: Mapping[str, Any]) -> ByteStream:
    stream = ByteStream(Store.open(source) if isinstance(source, str) else source, **settings)
    stream.load_state_dict(state)
    return stream
