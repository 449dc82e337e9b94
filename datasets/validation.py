"""Windows that score every byte of a split exactly once.

    documents -> windows (start, stop, score_from) -> runs of rows sorted by length -> batches, padded with zeros

A document's first window scores all of its bytes. Each later window begins `stride` bytes further on and scores only
what no window before it has scored. So the byte at position i of a document is predicted from at least
min(i, context - stride) bytes, never from another document, and from the same bytes wherever the document ends: a
reader that takes bytes one at a time slides its window in the same way.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytropix.datasets.gather import Gatherer
from bytropix.datasets.store import Store
from bytropix.datasets.windows import Runs
from bytropix.errors import ConfigError
from bytropix.patching import Patcher

_BATCHES_SORTED = 64  # rows sorted by length at a time: little padding, and still about the store's order


@dataclass(frozen=True, slots=True)
class ValidationBatch:
    """Rows to score.

    Attributes:
        bytes: u8 [rows, context], zeros behind a row's length.
        starts: bool [rows, context], set where a patch opens; column 0 is always set.
        lengths: i64 [rows], bytes of each row, 1 to context.
        score_from: i64 [rows]; row r scores the bytes score_from[r] to lengths[r].
        patches: The largest number of patches in a row.
    """

    bytes: Tensor
    starts: Tensor
    lengths: Tensor
    score_from: Tensor
    patches: int


class ValidationWindows:
    """The windows of a split in the store's order; each iteration yields the same batches.

    Args:
        store: An open store.
        split: Name of the split.
        context: Most bytes in a row.
        stride: Bytes that a window scores unless it is a document's first or last; half the context by default.
        batch: Most rows in a batch; a part's last batch may have fewer.
        patcher: Cuts the documents anew; without one they are cut as they are stored.

    Raises:
        ConfigError: context or batch is below 1, or stride outside 1..context.

    Attributes:
        n_bytes: Bytes of the split, all of which are scored.
    """

    def __init__(
        self,
        store: Store,
        *,
        split: str = "val",
        context: int,
        stride: int | None = None,
        batch: int,
        patcher: Patcher | None = None,
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batch must be at least 1 row, got {batch}")
        self.context = context
        self.stride = checked_stride(context, stride)
        self.batch = batch
        self._patcher = patcher
        self._parts = store.parts(split)
        self._gather = Gatherer(self._parts, np.array([part.n_bytes for part in self._parts], dtype=np.int64))
        self.n_bytes = sum(part.n_bytes for part in self._parts)

    def __iter__(self) -> Iterator[ValidationBatch]:
        """Yield batches until every byte has been scored."""
        run = _BATCHES_SORTED * self.batch
        for index, part in enumerate(self._parts):
            ends = np.asarray(part.doc_ends, dtype=np.int64)
            cut = None if self._patcher is None else self._patcher.patch(part.read("bytes", 0, part.n_bytes), ends)[1]
            windows = _windows(ends, self.context, self.stride)
            for first in range(0, len(windows), run):
                rows = windows[first : first + run]
                rows = rows[np.argsort(rows[:, 0] - rows[:, 1], kind="stable")]
                for start in range(0, len(rows), self.batch):
                    yield self._batch(index, rows[start : start + self.batch], cut)

    def _batch(self, part: int, windows: NDArray[np.int64], cut: NDArray[np.bool_] | None) -> ValidationBatch:
        """Return a batch; `cut` holds the part's patch starts where they are not the stored ones."""
        starts, stops, score_from = windows.T
        lengths = stops - starts
        parts = np.full(len(windows), part, dtype=np.int64)
        runs = Runs.single(parts, np.ascontiguousarray(starts), np.ascontiguousarray(stops))
        rows = self._gather(runs, width=self.context, counted=self.context)
        flags = rows.starts if cut is None else _flags(cut, starts, stops, self.context)
        return ValidationBatch(
            bytes=rows.bytes,
            starts=torch.from_numpy(flags),
            lengths=torch.from_numpy(lengths),
            score_from=torch.from_numpy(score_from - starts),
            patches=int(flags.sum(1).max()),
        )


def _flags(
    cut: NDArray[np.bool_], starts: NDArray[np.int64], stops: NDArray[np.int64], width: int
) -> NDArray[np.bool_]:
    """Return the patch starts of windows, bool [rows, width], from those of a part, the first of each set."""
    flags = np.zeros((len(starts), width), np.bool_)
    for row, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        flags[row, : stop - start] = cut[start:stop]
    flags[:, 0] = True
    return flags


def windows_of(length: int, context: int, stride: int | None = None) -> list[tuple[int, int, int]]:
    """Return the windows (start, stop, score_from) of one document; all three count from its beginning.

    Args:
        length: Bytes of the document, 0 or more.
        context: Most bytes in a window.
        stride: As in `ValidationWindows`.

    Raises:
        ConfigError: context is below 1, or stride outside 1..context.
    """
    windows = _windows(np.array([length], dtype=np.int64), context, checked_stride(context, stride))
    return [(start, stop, score_from) for start, stop, score_from in windows.tolist()]


def checked_stride(context: int, stride: int | None) -> int:
    """Return the stride to use: `stride`, or half the context.

    Raises:
        ConfigError: context is below 1, or stride outside 1..context.
    """
    if context < 1:
        raise ConfigError(f"context must be at least 1 byte, got {context}")
    found = max(1, context // 2) if stride is None else stride
    if not 1 <= found <= context:
        raise ConfigError(f"stride must be in 1..context ({context}), got {found}: larger ones would skip bytes")
    return found


@numba.njit(nogil=True, cache=True)
def _windows(doc_ends: NDArray[np.int64], context: int, stride: int) -> NDArray[np.int64]:
    """Return i64 [windows, 3], the start, stop and score_from of all documents, in bytes into the part."""
    count = 0
    begin = 0
    for end in doc_ends:
        if end > begin:
            count += 1 + max(0, -(-(end - begin - context) // stride))
        begin = end
    windows = np.empty((count, 3), dtype=np.int64)
    row = 0
    begin = 0
    for end in doc_ends:
        scored = begin
        while scored < end:
            stop = min(end, scored + (context if scored == begin else stride))
            windows[row, 0] = begin if scored == begin else scored + stride - context
            windows[row, 1] = stop
            windows[row, 2] = scored
            scored = stop
            row += 1
        begin = end
    return windows
