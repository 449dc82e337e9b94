"""From the tangent vectors of all levels to one vector a patch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bytropix.nesting.maps import linear


class ConcatTangent(nn.Module):
    """Linear map of the concatenated vectors."""

    def __init__(self, dims: Sequence[int], width: int) -> None:
        super().__init__()
        self.out = linear(sum(dims), width)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return (B, P, M) from the vectors (B, P, D) of each level."""
        out: Tensor = self.out(torch.cat(list(levels), dim=-1))
        return out


class LevelAttention(nn.Module):
    """Each patch weighs its levels by a score that it computes from each of them."""

    def __init__(self, dims: Sequence[int], width: int) -> None:
        super().__init__()
        self.values = nn.ModuleList(linear(dim, width) for dim in dims)
        self.scores = nn.ModuleList(linear(dim, 1) for dim in dims)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return (B, P, M) from the vectors (B, P, D) of each level."""
        values = torch.stack([value(v) for value, v in zip(self.values, levels, strict=True)], dim=-2)
        scores = torch.stack([score(v) for score, v in zip(self.scores, levels, strict=True)], dim=-2)
        return (scores.softmax(-2) * values).sum(-2)


class GatedSum(nn.Module):
    """Sum of the mapped vectors, each feature gated by its own level."""

    def __init__(self, dims: Sequence[int], width: int) -> None:
        super().__init__()
        self.values = nn.ModuleList(linear(dim, width) for dim in dims)
        self.gates = nn.ModuleList(linear(dim, width) for dim in dims)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return (B, P, M) from the vectors (B, P, D) of each level."""
        parts = zip(self.values, self.gates, levels, strict=True)
        return torch.stack([value(v) * gate(v).sigmoid() for value, gate, v in parts]).sum(0)


AGGREGATIONS: dict[str, type[ConcatTangent] | type[LevelAttention] | type[GatedSum]] = {
    "concat_tangent": ConcatTangent,
    "attention": LevelAttention,
    "gated": GatedSum,
}
