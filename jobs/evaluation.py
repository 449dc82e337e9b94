"""Bits per byte, by rules that leave nothing out.

    val documents -> overlapping windows -> nats of every byte, each scored once -> sum / (ln 2 x bytes)

No smoothing, no dropped bytes, dropout off, float32 log-softmax; sums are added, never means of means. The least
context of a byte is its place in its document or context - stride, whichever is smaller.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytropix.byte_lm import ByteTransformer, WuBuByteLM
from bytropix.datasets.store import Store
from bytropix.datasets.validation import ValidationWindows, windows_of
from bytropix.errors import StoreError
from bytropix.patching import Patcher


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
    model: WuBuByteLM | ByteTransformer,
    store: Store,
    *,
    split: str,
    context: int,
    stride: int | None = None,
    batch: int = 16,
    at_most: int = 0,
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

    Raises:
        StoreError: The split holds no bytes.
    """
    was_training = model.training
    model.eval()
    stride = stride or max(1, context // 2)
    total, count = 0.0, 0
    for rows in ValidationWindows(store, split=split, context=context, stride=stride, batch=batch):
        nats_BT = _nats(model, rows.bytes, rows.starts, rows.patches)
        steps_T = torch.arange(nats_BT.shape[1])
        scored_BT = (steps_T >= rows.score_from[:, None]) & (steps_T < rows.lengths[:, None])
        total += float(nats_BT[scored_BT].double().sum())
        count += int(scored_BT.sum())
        if at_most and count >= at_most:
            break
    model.train(was_training)
    if not count:
        raise StoreError(f"{store.path}: split '{split}' holds no bytes; ingest with a larger --val-fraction")
    return Evaluation(nats=total, n_bytes=count, context=context, stride=stride)


@torch.no_grad()
def document_nats(
    model: WuBuByteLM | ByteTransformer, patcher: Patcher, document: bytes, *, context: int, stride: int
) -> NDArray[np.float32]:
    """Return the nats (n,) of every byte of one document, patched from its first byte."""
    model.eval()
    values = np.frombuffer(document, np.uint8)
    starts = patcher(values)[1]
    nats = np.zeros(len(values), np.float32)
    for begin, end, score_from in windows_of(len(values), context, stride):
        window = torch.from_numpy(values[begin:end].copy())[None]
        marks = torch.from_numpy(starts[begin:end].copy())[None]
        marks[:, 0] = True
        row = _nats(model, window, marks, int(marks.sum()))[0]
        nats[begin + score_from : end] = row[score_from:].numpy()
    return nats


def _nats(model: WuBuByteLM | ByteTransformer, values: Tensor, starts: Tensor, patches: int) -> Tensor:
    """Return the nats (B, T) of a batch on the CPU."""
    device = next(model.parameters()).device
    return model.nats(values.to(device), starts.to(device), patches).float().cpu()
