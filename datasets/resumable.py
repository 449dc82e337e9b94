"""What every resumable stream has in common: a position, batches made ahead of it, the lanes of a loader's workers.

    position -> numbers of the next batches -> chunks of a few, made in threads -> queue -> batch -> position moves on

The only state is the number of rows delivered so far, by all ranks together. What a row is, a stream knows for itself.
"""

import os
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from bytropix.datasets.batches import Batches
from bytropix.datasets.mixture import Mixture
from bytropix.datasets.prefetch import ordered_prefetch
from bytropix.datasets.quarantine import Damage, Quarantine
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError

_CHUNK_BYTES = 16 << 20  # gathered at a time: what a chunk costs besides copying is as much as gathering a megabyte
_CHUNK_BATCHES = 128  # thousands of tiny batches made ahead would keep a training waiting at its start and end
_CHUNKS_AHEAD = 3  # with fewer, threads stand still where the consumer is late

Batch = TypeVar("Batch")


class ResumableStream(IterableDataset[Batch], ABC, Generic[Batch]):
    """Batches from a position on, the same ones for any ranks, threads and workers of a loader.

    Args:
        source: What is read; opened again by its place in another process.
        batches: Which rows make up which batch.
        made_with: The other settings of the stream, by name, with which another process makes it anew.
        quarantine: What to do about damage.
        prefetch: Whether batches are made ahead, in threads.
    """

    _threads = 2

    def __init__(
        self,
        source: Store | Mixture,
        batches: Batches,
        made_with: Mapping[str, Any],
        *,
        quarantine: Quarantine,
        prefetch: bool,
    ) -> None:
        super().__init__()
        self._source, self._batches, self._quarantine, self._prefetch = source, batches, quarantine, prefetch
        self._made_with = dict(made_with)
        self._position = 0
        self._lead: int | None = None  # of a loader's worker: batches between the position and its next one, if known
        self._reads = False
        self._process = os.getpid()

    @property
    def quarantined(self) -> list[Damage]:
        """The damage that was left out so far, by this process."""
        return list(self._quarantine.found)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as plain data."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a stream stood; iterate anew afterwards."""

    @property
    @abstractmethod
    def _batch_bytes(self) -> int:
        """Bytes of one rank's batch."""

    @abstractmethod
    def _gather(self, firsts: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[Batch]:
        """Return batches, given their first positions and rows, of all ranks; called from several threads."""

    @abstractmethod
    def _ask_ahead(self, position: int, residue: int) -> None:
        """Let remote parts fetch what positions p % ranks = `residue` need soon from `position` on."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches from the current position on.

        Raises:
            StoreError: Something read is damaged, or an epoch ended without every row having been accounted for.
        """
        worker = get_worker_info()
        lane, lanes = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            self._settle()
        number = lane if self._lead is None else self._lead
        tasks = self._tasks(self._position, number, lanes)
        first, _ = self._batches.at(self._position, np.array([number]))
        self._ask_ahead(int(first[0]), int(first[0] + self._batches.rank) % self._batches.ranks)
        if self._prefetch:
            chunks = ordered_prefetch(
                self._chunk, tasks, threads=self._threads, ahead=max(_CHUNKS_AHEAD, self._threads)
            )
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

    def _moved(self, position: int, lead: int | None) -> None:
        """Stand at a position of an earlier stream."""
        self._position, self._lead, self._reads = position, lead, False

    @property
    def _told_lead(self) -> int | None:
        """The lead that a state carries: that of a loader's worker."""
        return self._lead if get_worker_info() is not None else None

    def _tasks(self, start: int, first: int, stride: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the numbers, from `start` on, of the batches first, first + stride, ... in chunks.

        The first chunk is one batch, which comes soon.
        """
        yield start, np.array([first])
        batches = min(max(1, _CHUNK_BYTES // self._batch_bytes), _CHUNK_BATCHES)
        for number in count(first + stride, batches * stride):
            yield start, number + stride * np.arange(batches)

    def _chunk(self, task: tuple[int, NDArray[np.int64]]) -> list[tuple[int, Batch]]:
        """Gather batches; returns each with the position behind it, none if the stream has ended."""
        start, numbers = task
        firsts, sizes = self._batches.at(start, numbers)
        if not sizes.all():  # behind the end
            firsts, sizes = firsts[sizes > 0], sizes[sizes > 0]
        if not firsts.size:
            return []
        return list(zip((firsts + sizes).tolist(), self._gather(firsts, sizes), strict=True))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Travel to another process as the store's place, the settings and a state; the store is opened again there."""
        source = self._source.url if isinstance(self._source, Store) else self._source
        return partial(_reopen, type(self)), (source, self._made_with, self.state_dict())


def _reopen(
    stream: Callable[..., Any], source: str | Mixture, settings: dict[str, Any], state: Mapping[str, Any]
) -> Any:
    opened = stream(Store.open(source) if isinstance(source, str) else source, **settings)
    opened.load_state_dict(state)
    return opened
