"""The tokens of a frame as one vector: by a learned query, their mean, or their maximum.

tokens [N, R, D], valid [N, R] -> what counts -> [N, D], zeros where nothing does
"""

import torch
from torch import Tensor, nn

from bytropix.video.config import Pooling


class AttentionPool(nn.Module):
    """Weighted mean; weights are the softmax of scores that a learned query gives.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_D = nn.Parameter(torch.randn(width) / width**0.5)

    def forward(self, tokens_NRD: Tensor, valid_NR: Tensor) -> Tensor:
        """Return [N, D] of tokens, of which those not valid have no weight."""
        scores = (tokens_NRD @ self.query_D.to(tokens_NRD.dtype)).float()
        least = torch.finfo(scores.dtype).min  # finite: a row without valid tokens is no NaN, and is set to zero below
        weights = scores.masked_fill(~valid_NR, least).softmax(-1) * valid_NR
        return (weights[:, None].to(tokens_NRD.dtype) @ tokens_NRD).squeeze(1)


class MeanPool(nn.Module):
    """Mean.

    Args:
        width: D; nothing is learned.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, tokens_NRD: Tensor, valid_NR: Tensor) -> Tensor:
        """Return [N, D], the mean of the valid tokens."""
        weights = valid_NR / valid_NR.sum(-1, keepdim=True).clamp_min(1)
        return (weights[:, None].to(tokens_NRD.dtype) @ tokens_NRD).squeeze(1)


class MaxPool(nn.Module):
    """Maximum of each feature.

    Args:
        width: D; nothing is learned.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, tokens_NRD: Tensor, valid_NR: Tensor) -> Tensor:
        """Return [N, D], the greatest value of each feature among the valid tokens."""
        least = torch.finfo(tokens_NRD.dtype).min
        greatest = tokens_NRD.masked_fill(~valid_NR[..., None], least).amax(1)
        return greatest.masked_fill(~valid_NR.any(-1, keepdim=True), 0.0)


POOLINGS: dict[Pooling, type[AttentionPool] | type[MeanPool] | type[MaxPool]] = {
    "attention": AttentionPool,
    "mean": MeanPool,
    "max": MaxPool,
}
