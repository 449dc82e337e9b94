"""An endless, resumable stream of shuffled training batches.

    position -> places of a few batches (closed form) -> gather, in a thread -> queue -> ByteBatch -> position moves on

The only state is the number of windows delivered so far. A batch may span the border of two epochs: the last short
batch of an epoch is filled up with the first windows of the next, so every batch has the same shape and every window
is delivered exactly once an epoch.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from bytropix.datasets.gather import CACHE_BYTES, Gatherer
from bytropix.datasets.order import WindowOrder
from bytropix.datasets.prefetch import ordered_prefetch
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, StoreError

_CHUNK_BYTES = 4 << 20  # gathered at a time: handing a result from thread to thread costs as much as gathering 256 KiB
_CHUNK_BATCHES = 32  # thousands of tiny batches made ahead would keep a training waiting at its start and end
_CHUNKS_AHEAD = 8  # with fewer, threads stand still where the consumer is late by one slice of the scheduler
_THREADS = 2
_EIGHT_COPIES = 0x0101010101010101
_BIT_OF_COPY = 0x8040201008040201 - (1 << 64)  # as a signed word


@dataclass(frozen=True, slots=True)
class ByteBatch:
    """One training batch.

    Patch starts travel packed, an eighth of their size as flags; `starts` unpacks them where the batch is.

    Attributes:
        bytes: u8 [batch, context + 1].
        bits: u8 [batch, 8 * ceil((context + 1) / 64)]; bit j of a row, lowest first, is set where a patch opens with
            its byte j. Bit 0 is always set; those behind the row are not.
        patches: The largest number of patches that open in the first `context` columns of a row.
    """

    bytes: Tensor
    bits: Tensor
    patches: int

    @property
    def starts(self) -> Tensor:
        """The bits as flags, bool [batch, context + 1], unpacked at each call."""
        return unpack_starts(self.bits, self.bytes.shape[1])

    def to(self, device: torch.device | str) -> "ByteBatch":
        """Return the batch on a device; from pinned memory, the copy does not wait."""
        move = partial(Tensor.to, device=device, non_blocking=True)
        return ByteBatch(move(self.bytes), move(self.bits), self.patches)

    def pin_memory(self) -> "ByteBatch":
        """Return a copy in pinned memory, as a `DataLoader` asks for."""
        return ByteBatch(self.bytes.pin_memory(), self.bits.pin_memory(), self.patches)


def unpack_starts(bits: Tensor, width: int) -> Tensor:
    """Return the first `width` bits of each row of u8 [rows, n], lowest first, as bool [rows, width]."""
    # A product puts eight copies of a byte side by side, the mask keeps bit j of copy j: few wide steps, no table.
    spread = (bits.long() * _EIGHT_COPIES).bitwise_and_(_BIT_OF_COPY)
    return spread.view(torch.uint8).bool()[:, :width]


class ByteStream(IterableDataset[ByteBatch]):
    """The windows of a split in shuffled order, a batch at a time, epoch after epoch.

    The sequence of windows depends on the store, split, context and seed alone. In a torch `DataLoader` (with
    `batch_size=None`) worker k of n delivers batches k, k + n, ..., which the loader deals back into the same
    sequence. Such workers are copies: they begin at the position this stream has when the loader starts them and
    leave it there, so behind `num_workers > 0` call `skip` with the batches taken before `state_dict`.

    Memory, whatever the store's size: about 45 MiB of batches made ahead (more where a single batch exceeds 4 MiB), and
    for a compressed store up to 9/8 of `cache_bytes`. Each worker of a loader has its own.

    Args:
        store: An open store.
        split: Name of the split.
        context: Bytes a model sees; a window has one more.
        batch: Windows in a batch.
        seed: Names the order.
        cache_bytes: Decoded text of a compressed store to keep. An epoch that fits is decoded once; a larger one is
            decoded each time, from 80 MiB on each block once an epoch.

    Raises:
        ConfigError: batch is below 1, or the context is longer than every part of the split.
        StoreError: The store has no such split.
    """

    def __init__(
        self,
        store: Store,
        *,
        split: str = "train",
        context: int,
        batch: int,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__()
        if batch < 1:
            raise ConfigError(f"batch must be at least 1 window, got {batch}")
        self.split = split
        self.context = context
        self.batch = batch
        self.cache_bytes = cache_bytes
        self._store = store
        self._parts = store.parts(split)
        if not self._parts:
            raise StoreError(
                f"{store.url}: split {split!r} holds no bytes (splits: {', '.join(store.splits)}); "
                "choose another split or ingest more"
            )
        self._position = 0
        self._use_seed(seed)
        self._gather = Gatherer(self._parts, cache_bytes=cache_bytes)

    @property
    def windows(self) -> int:
        """Windows in an epoch."""
        return self._order.windows

    @property
    def skipped_parts(self) -> int:
        """Parts shorter than a window, of which nothing is read."""
        return self._order.skipped_parts

    def __iter__(self) -> Iterator[ByteBatch]:
        """Yield batches from the current position on, without end."""
        worker = get_worker_info()
        lane, lanes = (0, 1) if worker is None else (worker.id, worker.num_workers)
        tasks = self._tasks(self._position + lane * self.batch, lanes * self.batch)
        with closing(ordered_prefetch(self._chunk, tasks, threads=_THREADS, ahead=_CHUNKS_AHEAD)) as chunks:
            for chunk in chunks:
                for following, batch in chunk:
                    self._position = following
                    yield batch

    def skip(self, batches: int) -> None:
        """Move on by some batches, such as those that a loader's workers delivered; iterate anew afterwards."""
        self._position += batches * self.batch

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands after the last batch delivered; whatever was prefetched does not count.

        Returns:
            `epoch`, `position` (windows delivered in that epoch), `seed`, and what these numbers are about: the
            store's `fingerprint`, the `split` and the `context`.
        """
        epoch, position = divmod(self._position, self.windows)
        return {
            "epoch": epoch,
            "position": position,
            "seed": self._order.seed,
            **self._subject(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly behind the last batch delivered when `state` was taken; iterate anew afterwards.

        Raises:
            StoreError: The state is of another store, split or context, or no state at all.
        """
        try:
            epoch, position, seed = (int(state[name]) for name in ("epoch", "position", "seed"))
            there = {name: state[name] for name in self._subject()}
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self._store.url}: not the state of a byte stream: {state!r}") from error
        for name, here in self._subject().items():
            if there[name] != here:
                raise StoreError(
                    f"{self._store.url}: the {name} of this stream is {here}, the state to resume from has "
                    f"{there[name]}; use the {name} that it was taken with, or start a new run"
                )
        if epoch < 0 or not 0 <= position < self.windows:
            raise StoreError(
                f"{self._store.url}: the state to resume from is damaged: position {position} of epoch {epoch}, where "
                f"an epoch has {self.windows} windows; resume from another checkpoint"
            )
        self._use_seed(seed)
        self._position = epoch * self.windows + position

    def _subject(self) -> dict[str, Any]:
        """Return what a position means nothing without."""
        return {"fingerprint": self._store.fingerprint, "split": self.split, "context": self.context}

    def _use_seed(self, seed: int) -> None:
        sizes = [part.n_bytes for part in self._parts]
        self._order = WindowOrder(sizes, context=self.context, seed=seed, split=self.split)

    def _tasks(self, first: int, stride: int) -> Iterator[tuple[int, int, int]]:
        """Yield chunks of batches at first, first + stride, ...; the first chunk is one batch, which comes soon."""
        yield first, 1, stride
        batches = min(max(1, _CHUNK_BYTES // (self.batch * (self.context + 1))), _CHUNK_BATCHES)
        for start in count(first + stride, batches * stride):
            yield start, batches, stride

    def _chunk(self, task: tuple[int, int, int]) -> list[tuple[int, ByteBatch]]:
        """Gather batches at first, first + stride, ...; returns each with the position behind it."""
        first, batches, stride = task
        positions = first + stride * np.arange(batches)
        places = self._order.places((positions[:, None] + np.arange(self.batch)).ravel())
        width = self.context + 1
        lengths = np.full(batches * self.batch, width, dtype=np.int64)
        rows = self._gather(places, lengths, width=width, counted=self.context)
        # A tensor a batch, not slices of one: those would be saved with all of its memory.
        text = map(torch.from_numpy, rows.bytes.reshape(batches, self.batch, -1))
        bits = map(torch.from_numpy, rows.bits.reshape(batches, self.batch, -1))
        patches = rows.patches.reshape(batches, self.batch).max(axis=1).tolist()
        return list(zip((positions + self.batch).tolist(), map(ByteBatch, text, bits, patches), strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the store's path and a state; the store is opened again there."""
        return _reopen, (
            self._store.url,
            self.split,
            self.context,
            self.batch,
            self.cache_bytes,
            self.state_dict(),
        )


def _reopen(url: str, split: str, context: int, batch: int, cache_bytes: int, state: Mapping[str, Any]) -> ByteStream:
    stream = ByteStream(Store.open(url), split=split, context=context, batch=batch, cache_bytes=cache_bytes)
    stream.load_state_dict(state)
    return stream
