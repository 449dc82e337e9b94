"""The way from one level to the next.

    v -> rotation R -> point x_R -> distances and directions to the boundary points -> map to the next level's dim

The boundary points are not rotated: x_R is compared with points that stay, so the rotation changes what is measured and
cannot be absorbed by the linear layer behind it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytropix.geometry import ROTATIONS
from bytropix.nesting.config import LevelConfig
from bytropix.nesting.level import DEPTH_LIMIT, Frame, Inflow
from bytropix.nesting.maps import TRANSFORMS


@dataclass(frozen=True, slots=True)
class Passage:
    """What a transition does with every vector alike: a function of the parameters alone."""

    matrix: Tensor | None
    """The rotation."""
    landmark_E: Tensor | None
    """Descriptor of the level, mapped to the next."""


class Transition(nn.Module):
    """Rotation, measurement and map from the level `config` to a level of dimension `dim`."""

    def __init__(self, config: LevelConfig, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.kind = config.relative
        self.rotation = ROTATIONS[config.rotation](config.dim, config.rotation_init)
        self.map = TRANSFORMS[config.transform](config.dim, dim, config.transform_hidden, dropout)

    def passage(self, descriptor_D: Tensor | None) -> Passage:
        """Return the present rotation, and the landmark that the level's descriptor, if it has one, becomes."""
        matrix = self.rotation.matrix()
        if descriptor_D is None:
            return Passage(matrix, None)
        return Passage(matrix, self.map(self.rotation(descriptor_D * descriptor_D.shape[0] ** 0.5, matrix)))

    def forward(self, frame: Frame, passage: Passage, v_BPD: Tensor) -> Inflow:
        """Return what the next level receives.

        Args:
            frame: Space, temperature and boundary points of the level.
            passage: What `passage` returned.
            v_BPD: What the level returned.
        """
        v_BPD = self.rotation(v_BPD, passage.matrix)
        relative_BPE = scaled_BPK = None
        if frame.boundary_KD.shape[0]:
            # The points are the same for all rows, so the batch is one long row N: one matrix product, not B.
            x_1ND = frame.space.enter(v_BPD, DEPTH_LIMIT).flatten(0, 1)[None]
            points_1KD = frame.boundary_KD[None]
            distances_1NK = frame.space.distances(x_1ND, points_1KD)
            scaled_1NK = distances_1NK / frame.sigma
            scaled_BPK = scaled_1NK.reshape(*v_BPD.shape[:2], scaled_1NK.shape[-1])
            if self.kind != "none":
                relative_1ND = frame.space.relative(self._weights(scaled_1NK), x_1ND, points_1KD, distances_1NK)
                relative_BPE = self.map(relative_1ND.reshape(v_BPD.shape))
        return Inflow(self.map(v_BPD), relative_BPE, scaled_BPK)

    def _weights(self, scaled: Tensor) -> Tensor:
        """Return the weight of each boundary point in the aggregate, for distances (..., K)."""
        if self.kind == "softmax":
            return (-scaled).softmax(-1)
        ones = torch.ones_like(scaled)
        return ones if self.kind == "sum" else ones / scaled.shape[-1]
