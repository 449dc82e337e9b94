"""The way from one level to the next.

    v -> rotation R -> point x_R -> distances and directions to the boundary points -> map to the next level's dim

The boundary points are not rotated: x_R is compared with points that stay, so the rotation changes what is measured and
cannot be absorbed by the linear layer behind it.
"""

import torch
from torch import Tensor, nn

from bytropix.geometry import ROTATIONS
from bytropix.nesting.level import Inflow, Level
from bytropix.nesting.maps import TRANSFORMS


class Transition(nn.Module):
    """Rotation, measurement and map from `level` to a level of dimension `dim`."""

    def __init__(self, level: Level, dim: int, *, dropout: float) -> None:
        super().__init__()
        config = level.config
        self.kind = config.relative
        self.rotation = ROTATIONS[config.rotation](config.dim)
        self.map = TRANSFORMS[config.transform](config.dim, dim, config.transform_hidden, dropout)

    def forward(self, level: Level, v_BPD: Tensor) -> Inflow:
        """Return what the next level receives."""
        config = level.config
        space = level.space()
        v_BPD = self.rotation(v_BPD)
        relative_BPE = scaled_BPK = None
        if config.boundary_points:
            x_BPD = level.enter(space, v_BPD)
            points_1KD = level.boundary_points(space)
            distances_BPK = space.distances(x_BPD, points_1KD)
            scaled_BPK = distances_BPK / level.sigma()
            if self.kind != "none":
                relative = space.relative(self._weights(scaled_BPK), x_BPD, points_1KD, distances_BPK)
                relative_BPE = self.map(relative * config.dim**0.5)
        landmark_E = None
        if level.descriptor_D is not None:
            landmark_E = self.map(self.rotation(level.descriptor_D * config.dim**0.5)[None])[0]
        return Inflow(self.map(v_BPD), relative_BPE, scaled_BPK, landmark_E)

    def _weights(self, scaled_BPK: Tensor) -> Tensor:
        """Return the weight of each boundary point in the aggregate."""
        if self.kind == "softmax":
            return (-scaled_BPK).softmax(-1)
        ones = torch.ones_like(scaled_BPK)
        return ones if self.kind == "sum" else ones / scaled_BPK.shape[-1]
