"""One level of the nesting: what happens inside one ball.

    v (+ relative vectors and distances of the level before) -> combiner -> norm limit -> enter the ball
        -> translate by the descriptor
        -> attend, by distance over sigma, to earlier patches, boundary points and the landmark: gyromidpoint m
        -> x (+) m -> leave the ball -> tangent flow -> v of this level

Shapes: B batch, P patches, K keys, D dim of the level. Tangent vectors are kept at norms near sqrt(D) outside and near
1 inside, where the ball is neither flat nor saturated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytropix.geometry import SPACES, PositiveParameter, Space, smooth_limit
from bytropix.nesting.config import LevelConfig
from bytropix.nesting.maps import FLOWS, combiner

NORM_LIMIT = 2.5  # tangent norm at curvature 1 and scale 1; float32 keeps five digits of a point this far out


@dataclass(frozen=True, slots=True)
class Inflow:
    """What a level receives from the one before; the first level receives the vectors alone."""

    v_BPD: Tensor
    """Tangent vectors."""
    relative_BPD: Tensor | None = None
    """Aggregated tangent vectors from each patch to the boundary points of the level before, mapped here."""
    distances_BPK: Tensor | None = None
    """Distances to those boundary points, over their sigma."""
    landmark_D: Tensor | None = None
    """Descriptor of the level before, mapped here."""


class Level(nn.Module):
    """One ball with its boundary points, descriptor, attention and flow.

    Args:
        config: The level.
        before: The level before, `None` for the first.
        space: Name in SPACES.
        dropout: Share of features dropped in training.
    """

    def __init__(self, config: LevelConfig, before: LevelConfig | None, *, space: str, dropout: float) -> None:
        super().__init__()
        self.config = config
        self._space = SPACES[space]
        dim = config.dim
        inputs = dim
        if before is not None:
            inputs += (before.relative != "none") * dim + before.boundary_points
        self.combiner = combiner(inputs, config.combiner_hidden, dim, dropout)
        self.curvature = PositiveParameter(
            config.curvature,
            least=config.curvature_min,
            learn=config.learn_curvature and space == "hyperbolic",
        )
        self.scale = PositiveParameter(config.scale, least=config.scale_min, learn=config.learn_scale)
        self.spread: PositiveParameter | None = None
        if config.use_spread:
            self.spread = PositiveParameter(config.spread, least=config.spread_min, learn=config.learn_spread)
        points = config.boundary_points
        self.boundary_KD = nn.Parameter(config.boundary_init * torch.randn(points, dim)) if points else None
        self.descriptor_D = nn.Parameter(config.descriptor_init * torch.randn(dim)) if config.descriptor else None
        self.flow = None if config.flow == "none" else FLOWS[config.flow](dim, config.flow_ratio, dropout)

    def space(self) -> Space:
        """Return the space of this level with its present curvature and scale."""
        return self._space(self.curvature(), self.scale())

    def sigma(self) -> Tensor | float:
        """Return the temperature of distances."""
        return 1.0 if self.spread is None else self.spread()

    def enter(self, space: Space, v: Tensor) -> Tensor:
        """Return tangent vectors (..., D) of norms near sqrt(D) as points."""
        return space.enter(smooth_limit(v * self.config.dim**-0.5, NORM_LIMIT))

    def boundary_points(self, space: Space) -> Tensor:
        """Return the boundary points (1, K, D), none if the level has none."""
        if self.boundary_KD is None:
            return self.curvature.free.new_zeros(1, 0, self.config.dim)
        return self.enter(space, self.boundary_KD * self.config.dim**0.5)[None]

    def forward(self, inflow: Inflow, past_BQD: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the level's tangent vectors (B, P, D) and the points (B, Q + P, D) that later patches attend to.

        Args:
            inflow: The new patches.
            past_BQD: The points of earlier patches, `None` at the start of a window.
        """
        space = self.space()
        pieces = [inflow.v_BPD, inflow.relative_BPD, inflow.distances_BPK]
        combined = self.combiner(torch.cat([piece for piece in pieces if piece is not None], dim=-1))
        x_BPD = self.enter(space, inflow.v_BPD + combined)
        if self.descriptor_D is not None:
            x_BPD = space.add(self.enter(space, self.descriptor_D * self.config.dim**0.5), x_BPD)
        patches_BQD = x_BPD if past_BQD is None else torch.cat([past_BQD, x_BPD], dim=1)
        middle_BPD = self._attend(space, x_BPD, patches_BQD, inflow.landmark_D)
        v_BPD = space.leave(space.add(x_BPD, middle_BPD)) * self.config.dim**0.5
        if self.flow is not None:
            v_BPD = v_BPD + self.config.flow_scale * self.flow(v_BPD)
        return v_BPD, patches_BQD

    def _attend(self, space: Space, x_BPD: Tensor, patches_BQD: Tensor, landmark_D: Tensor | None) -> Tensor:
        """Return the midpoint (B, P, D) of what each patch attends to: softmax over -distance / sigma."""
        batch, count, dim = x_BPD.shape
        fixed = [self.boundary_points(space)]
        if landmark_D is not None:
            fixed.append(self.enter(space, landmark_D)[None, None])
        fixed_BKD = torch.cat(fixed, dim=1).expand(batch, -1, dim)
        if not self.config.mixing:
            weights = (-space.distances(x_BPD, fixed_BKD) / self.sigma()).softmax(-1)
            return space.midpoints(weights, fixed_BKD)
        keys_BKD = torch.cat([fixed_BKD, patches_BQD], dim=1)
        scores = -space.distances(x_BPD, keys_BKD) / self.sigma()
        newest = keys_BKD.shape[1] - count
        seen = torch.ones(count, keys_BKD.shape[1], dtype=torch.bool, device=x_BPD.device).tril(newest)
        return space.midpoints(scores.masked_fill(~seen, -torch.inf).softmax(-1), keys_BKD)
