"""The way from one level to the next.

    v -> rotation R -> point x_R -> distances and directions to the boundary points -> map to the next level's dim

The boundary points are not rotated: x_R is compared with points that stay, so the rotation changes what is measured and
cannot be absorbed by the linear layer behind it.
"""

import torch
from torch import Tensor, nn

from bytropix.geometry import ROTATIONS
from bytropix.nesting.config import LevelConfig
from bytropix.nesting.level import DEPTH_LIMIT, Frame, Inflow
from bytropix.nesting.maps import TRANSFORMS


class Transition(nn.Module):
    """Rotation, measurement and map from the level `config` to a level of dimension `dim`."""

    def __init__(self, config: LevelConfig, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.kind = config.relative
        self.rotation = ROTATIONS[config.rotation](config.dim)
        self.map = TRANSFORMS[config.transform](config.dim, dim, config.transform_hidden, dropout)

    def forward(self, frame: Frame, descriptor_D: Tensor | None, v_BPD: Tensor) -> Inflow:
        """Return what the next level receives.

        Args:
            frame: Space, temperature and boundary points of the level.
            descriptor_D: Descriptor of the level, if it has one.
            v_BPD: What the level returned.
        """
        v_BPD = self.rotation(v_BPD)
        relative_BPE = scaled_BPK = None
        if frame.boundary_KD.shape[0]:
            x_BPD = frame.space.enter(v_BPD, DEPTH_LIMIT)
            points_BKD = frame.boundary_KD.expand(x_BPD.shape[0], -1, -1)
            distances_BPK = frame.space.distances(x_BPD, points_BKD)
            scaled_BPK = distances_BPK / frame.sigma
            if self.kind != "none":
                weights_BPK = self._weights(scaled_BPK)
                relative_BPE = self.map(frame.space.relative(weights_BPK, x_BPD, points_BKD, distances_BPK))
        landmark_E = None
        if descriptor_D is not None:
            landmark_E = self.map(self.rotation(descriptor_D * descriptor_D.shape[0] ** 0.5))
        return Inflow(self.map(v_BPD), relative_BPE, scaled_BPK, landmark_E)

    def _weights(self, scaled_BPK: Tensor) -> Tensor:
        """Return the weight of each boundary point in the aggregate."""
        if self.kind == "softmax":
            return (-scaled_BPK).softmax(-1)
        ones = torch.ones_like(scaled_BPK)
        return ones if self.kind == "sum" else ones / scaled_BPK.shape[-1]
