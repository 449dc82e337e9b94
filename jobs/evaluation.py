"""Bits per byte, by rules that leave nothing out.

    val documents -> overlapping windows -> nats of every byte, each scored once -> sum / (ln 2 x bytes)

No smoothing, no dropped bytes, dropout off, float32 log-softmax; sums are added, never means of means. The least
context of a byte is its place in its document or context - stride, whichever is smaller.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytropix.datasets.store import Store
from bytropix.datasets.validation import ValidationWindows, windows_of
from bytropix.errors import StoreError
from bytropix.jobs.recipe import ByteModel
from bytropix.patching import Patcher
from bytropix.pipelines.documents import document_ends

Progress = Callable[[int], object]


def ignore(count: int) -> None:
    """Tell nobody about progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A model's figure on the bytes of a split."""

    nats: float
    """Sum of -ln p over the bytes."""
    n_bytes: int
    """Bytes scored, each once."""
    context: int
    """Bytes of a window."""
    stride: int
    """Bytes by which a window moves on; a later window scores its last `stride` bytes."""

    @property
    def bits_per_byte(self) -> float:
        """Mean information of a byte under the model, in bits."""
        return self.nats / (math.log(2) * self.n_bytes)


@torch.no_grad()
def bits_per_byte(
    model: ByteModel,
    store: Store,
    *,
    split: str,
    context: int,
    stride: int | None = None,
    batch: int = 16,
    at_most: int = 0,
    patcher: Patcher | None = None,
    progress: Progress = ignore,
) -> Evaluation:
    """Score a split of a store.

    Args:
        model: Put in evaluation mode for the time of the call.
        store: An open store.
        split: Its split, usually "val".
        context: Bytes of a window.
        stride: See `Evaluation`; half the context unless given.
        batch: Windows scored at a time.
        at_most: Stop after the batch that reaches this many bytes; 0 scores all.
        patcher: Cuts the documents as the model's own store was cut; not needed for that store.
        progress: Called with the number of bytes just scored.

    Raises:
        ConfigError: The stride is not in 1..context.
        StoreError: The split holds no bytes.
    """
    was_training = model.training
    model.eval()
    windows = ValidationWindows(store, split=split, context=context, stride=stride, batch=batch, patcher=patcher)
    total, count = 0.0, 0
    for rows in windows:
        scored_BT = _scored(rows.lengths, rows.score_from, rows.bytes.shape[1])
        total += float(_nats(model, rows.bytes, rows.starts, rows.patches)[scored_BT].double().sum())
        read = int(scored_BT.sum())
        progress(read)
        count += read
        if at_most and count >= at_most:
            break
    model.train(was_training)
    if not count:
        raise StoreError(f"{store.url}: split '{split}' holds no bytes; ingest with a larger --val-fraction")
    return Evaluation(nats=total, n_bytes=count, context=context, stride=windows.stride)


def file_nats(
    model: ByteModel,
    patcher: Patcher,
    data: bytes,
    *,
    document_bytes: int,
    context: int,
    stride: int | None = None,
    batch: int = 16,
    progress: Progress = ignore,
) -> NDArray[np.float32]:
    """Return -ln p (n,) of every byte of a file that is cut into documents as ingestion cuts it.

    Args:
        model: In evaluation mode.
        patcher: The patcher of its store.
        data: All bytes of the file.
        document_bytes: As in the store's ingestion.
        context: Bytes of a window.
        stride: See `Evaluation`; half the context unless given.
        batch: Windows scored at a time.
        progress: Called with the number of bytes just scored.
    """
    pieces = []
    begin = 0
    for end in document_ends(data, document_bytes):
        document = np.frombuffer(data[begin:end], np.uint8)
        pieces.append(document_nats(model, patcher, document, context=context, stride=stride, batch=batch))
        progress(end - begin)
        begin = end
    return np.concatenate(pieces)


@torch.no_grad()
def document_nats(
    model: ByteModel,
    patcher: Patcher,
    document: NDArray[np.uint8],
    *,
    context: int,
    stride: int | None = None,
    batch: int = 16,
) -> NDArray[np.float32]:
    """Return -ln p (n,) of every byte of one document, cut into patches from its first byte on."""
    starts = patcher(document)[1]
    nats = np.zeros(len(document), np.float32)
    windows = np.array(windows_of(len(document), context, stride), np.int64)
    for first in range(0, len(windows), batch):
        begins, ends, scored = windows[first : first + batch].T
        width = int((ends - begins).max())
        values, marks = np.zeros((len(begins), width), np.uint8), np.zeros((len(begins), width), np.bool_)
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            values[row, : end - begin], marks[row, : end - begin] = document[begin:end], starts[begin:end]
        marks[:, 0] = True
        rows_BT = _nats(model, torch.from_numpy(values), torch.from_numpy(marks), int(marks.sum(1).max()))
        for row, (begin, end, score_from) in enumerate(zip(begins, ends, scored, strict=True)):
            nats[score_from:end] = rows_BT[row, score_from - begin : end - begin].numpy()
    return nats


def _scored(lengths: Tensor, score_from: Tensor, width: int) -> Tensor:
    """Return True (B, T) where a row scores a byte."""
    steps_T = torch.arange(width)
    return (steps_T >= score_from[:, None]) & (steps_T < lengths[:, None])


def _nats(model: ByteModel, values: Tensor, starts: Tensor, patches: int) -> Tensor:
    """Return the nats (B, T) of a batch on the CPU."""
    device = next(model.parameters()).device
    return model.nats(values.to(device), starts.to(device), patches).float().cpu()
