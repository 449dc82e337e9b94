"""WebDataset tars read sequentially, batch by batch, from pipes and URLs: no store, no index and no disk are needed.

    sources, dealt to ranks and workers -> samples, checked, in order -> one row of bytes -> windows -> ByteBatch

The tars of a store are parts that a `ByteStream` reads in shuffled order, at any place. This is for those that come
once, one byte after another. The order is that of the samples: shuffle when the tars are written, or deal many of them.
"""

import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.store.tar_samples import read_samples
from bytropix.datasets.store.tar_source import TarSource, source_name
from bytropix.errors import ConfigError, StoreError


class TarStream(IterableDataset[ByteBatch]):
    """The bytes of tars, in order, as the windows of one row of bytes; the last one is short.

    Each source is read by one rank, and there by one worker of a `DataLoader` (with `batch_size=None`), dealt in turn:
    rank r of R reads sources r, r + R, ... So ranks have batches of their own, and not equally many of them. Each
    iteration is one pass; what can be opened again is read again by the next one.

    Nothing is kept but the sample that is being cut and the batch that is being filled. To resume, what was delivered
    is read once more and skipped, which takes as long as reading takes; standard input and open files must be given
    from their beginning for that.

    Args:
        sources: Paths, URLs, "-" (standard input), open binary files, or "pipe:COMMAND ARGS", whose output is read.
        context: Bytes a model sees; a window has one more.
        batch: Windows in a batch of this rank; the last batch of a pass is shorter.
        rank: Which of the ranks this is.
        ranks: How many there are.

    Raises:
        ConfigError: context or batch is below 1, or a rank would have no source. While reading: a command that is none.
        StoreError: While reading: a source is damaged, cut short or cannot be read, or its command failed.
    """

    def __init__(
        self,
        sources: TarSource | Sequence[TarSource],
        *,
        context: int,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        super().__init__()
        listed = list(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]
        if min(context, batch) < 1:
            raise ConfigError(f"context and batch must be at least 1, got {context} and {batch}")
        if not 0 <= rank < ranks:
            raise ConfigError(f"rank {rank} is none of {ranks} ranks")
        if len(listed) < ranks:
            raise ConfigError(f"{len(listed)} sources for {ranks} ranks: each rank needs one of its own")
        self.context, self.batch, self.rank, self.ranks = context, batch, rank, ranks
        self._sources = listed[rank::ranks]
        self._delivered = 0  # bytes
        self._crcs = (0, 0)  # of what was delivered: its bytes, its starts
        self._of = ""  # what a loaded state is about
        self._ended = False

    def __iter__(self) -> Iterator[ByteBatch]:
        """Yield the batches from where the stream stands to the end of the last source."""
        if self._ended:
            self._delivered, self._crcs, self._ended = 0, (0, 0), False
        if self._of not in ("", self._subject()):
            raise StoreError(
                "the state to resume from is of other sources, ranks or workers of a loader; use what it was taken with"
            )
        rows = _Rows(self.batch, self.context + 1)
        with closing(self._pieces()) as pieces:
            for text, starts in pieces:
                for filled in rows.fill(text, starts):
                    yield self._deliver(*filled)
        if rows.filled:
            yield self._deliver(*rows.take())
        self._ended = True

    def state_dict(self) -> dict[str, Any]:
        """Return how many bytes were delivered, their checksums, and which sources they are from."""
        return {"bytes": self._delivered, "crcs": list(self._crcs), "sources": self._subject()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue behind the last batch delivered when `state` was taken; iterate anew afterwards.

        What is skipped on the way must be what was delivered, or iterating raises StoreError. The batch may be another;
        with another context, windows of its width go on from the same byte.

        Raises:
            StoreError: No state of a `TarStream`.
        """
        try:
            bytes_crc, starts_crc = (int(crc) for crc in state["crcs"])
            delivered, subject = int(state["bytes"]), str(state["sources"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"not the state of a stream of tars: {state!r}") from error
        self._delivered, self._crcs, self._of, self._ended = delivered, (bytes_crc, starts_crc), subject, False

    def _dealt(self) -> list[TarSource]:
        """Return the sources that are read here, where "here" may be a worker of a loader."""
        worker = get_worker_info()
        return self._sources if worker is None else self._sources[worker.id :: worker.num_workers]

    def _subject(self) -> str:
        """Return what a position means nothing without."""
        return sha256("\n".join(map(source_name, self._dealt())).encode()).hexdigest()[:16]

    def _pieces(self) -> Generator[tuple[NDArray[np.uint8], NDArray[np.bool_]], None, None]:
        """Give bytes and starts of samples, without those that were delivered before."""
        skip, crcs = self._delivered, (0, 0)
        for source in self._dealt():
            with closing(read_samples(source)) as samples:
                for sample in samples:
                    cut = min(skip, len(sample.text))
                    if skip:
                        skip -= cut
                        crcs = _continued(crcs, sample.text[:cut], sample.starts[:cut])
                        if not skip and crcs != self._crcs:
                            raise StoreError(
                                f"{source_name(source)}: the first {self._delivered:,} bytes of these sources are not "
                                "those that were delivered before; restore them, or start a new run"
                            )
                    if cut < len(sample.text):
                        yield sample.text[cut:], sample.starts[cut:]
        if skip:
            raise StoreError(
                f"the sources end {skip:,} bytes before the place to resume from; restore them, or start a new run"
            )

    def _deliver(self, text: NDArray[np.uint8], starts: NDArray[np.bool_], n_bytes: int) -> ByteBatch:
        """Return rows as a batch, and take note that they were delivered."""
        rows, width = text.shape
        position = self._delivered // width
        self._crcs = _continued(self._crcs, text.ravel()[:n_bytes], starts.ravel()[:n_bytes])
        self._delivered += n_bytes
        starts[:, 0] = True
        bits = np.zeros((rows, 8 * -(-width // 64)), np.uint8)
        bits[:, : -(-width // 8)] = np.packbits(starts, axis=1, bitorder="little")
        lengths = np.minimum(width, n_bytes - width * np.arange(rows, dtype=np.int64))
        return ByteBatch(
            bytes=torch.from_numpy(text),
            bits=torch.from_numpy(bits),
            patches=int(starts[:, : self.context].sum(axis=1).max()),
            lengths=torch.from_numpy(lengths),
            documents=None,
            n_bytes=n_bytes,
            position=position,
        )


def _continued(crcs: tuple[int, int], text: NDArray[np.uint8], starts: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the checksums of what came before with this behind it."""
    return zlib.crc32(text.data, crcs[0]), zlib.crc32(starts.view(np.uint8).data, crcs[1])


class _Rows:
    """A batch that is being filled.

    Attributes:
        filled: Bytes in it.
    """

    def __init__(self, batch: int, width: int) -> None:
        self._shape = batch, width
        self._begin()

    def _begin(self) -> None:
        self.filled = 0
        self._text = np.zeros(self._shape, np.uint8)
        self._starts = np.zeros(self._shape, np.bool_)

    def fill(
        self, text: NDArray[np.uint8], starts: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_], int]]:
        """Lay bytes behind those that are there; give each batch that gets full."""
        place = 0
        while place < len(text):
            end = min(self._text.size, self.filled + len(text) - place)
            stop = place + end - self.filled
            self._text.reshape(-1)[self.filled : end] = text[place:stop]
            self._starts.reshape(-1)[self.filled : end] = starts[place:stop]
            self.filled, place = end, stop
            if end == self._text.size:
                yield self.take()

    def take(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
        """Return bytes and starts of the rows that hold something, and how many bytes that is; begin a new batch."""
        rows, filled = -(-self.filled // self._shape[1]), self.filled
        found = self._text[:rows], self._starts[:rows], filled
        self._begin()
        return found
