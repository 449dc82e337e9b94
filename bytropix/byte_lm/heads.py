"""From byte states to log-probabilities of the next byte.

    state (D) -> two_stage: 16 logits of the high nibble + 16 x 16 logits of the low nibble given it
              -> flat: 256 logits

Both heads are normalized distributions in float32: they sum to one over the 256 bytes.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(Protocol):
    """What a head offers."""

    def __call__(self, state: Tensor) -> Tensor:
        """Return log-probabilities (..., 256) in nats."""
        ...

    def nats(self, state: Tensor, target: Tensor) -> Tensor:
        """Return -log p of the target bytes, in nats, without building all 256 log-probabilities."""
        ...


class TwoStageHead(nn.Module):
    """log p(16 k + r) = log softmax(class)_k + log softmax(rest of class k)_r, by one matrix product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, 16 + 256)
        nn.init.normal_(self.logits.weight, std=0.02)
        nn.init.zeros_(self.logits.bias)

    def forward(self, state: Tensor) -> Tensor:
        """Return log-probabilities (..., 256) in nats."""
        high, low = self._split(state)
        return (F.log_softmax(high, -1)[..., None] + F.log_softmax(low, -1)).flatten(-2)

    def nats(self, state: Tensor, target: Tensor) -> Tensor:
        """Return -log p of the target bytes (...), in nats."""
        high, low = self._split(state)
        target = target.long()
        nibble = target // 16
        own = low.gather(-2, nibble[..., None, None].expand(*nibble.shape, 1, 16)).squeeze(-2)
        classes = F.cross_entropy(high.flatten(0, -2), nibble.flatten(), reduction="none")
        rest = F.cross_entropy(own.flatten(0, -2), (target % 16).flatten(), reduction="none")
        return (classes + rest).view(target.shape)

    def _split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the high nibble (..., 16) and of the low nibbles (..., 16, 16), in float32."""
        logits = self.logits(state).to(torch.promote_types(state.dtype, torch.float32))
        return logits[..., :16], logits[..., 16:].unflatten(-1, (16, 16))


class FlatHead(nn.Module):
    """One softmax over the 256 bytes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, 256)
        nn.init.normal_(self.logits.weight, std=0.02)
        nn.init.zeros_(self.logits.bias)

    def forward(self, state: Tensor) -> Tensor:
        """Return log-probabilities (..., 256) in nats."""
        return F.log_softmax(self._logits(state), -1)

    def nats(self, state: Tensor, target: Tensor) -> Tensor:
        """Return -log p of the target bytes (...), in nats."""
        logits = self._logits(state).flatten(0, -2)
        return F.cross_entropy(logits, target.long().flatten(), reduction="none").view(target.shape)

    def _logits(self, state: Tensor) -> Tensor:
        logits: Tensor = self.logits(state)
        return logits.to(torch.promote_types(state.dtype, torch.float32))


HEADS: dict[str, type[TwoStageHead] | type[FlatHead]] = {"two_stage": TwoStageHead, "flat": FlatHead}
