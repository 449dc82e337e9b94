"""One level of the nesting: what happens inside one ball.

    v (+ relative vectors and distances of the level before) -> combiner -> norm limit -> enter the ball
        -> translate by the descriptor
        -> attend, by distance over sigma, to patches it may see, boundary points and the landmark: gyromidpoint m
        -> x (+) m -> leave the ball -> tangent flow -> v of this level

Shapes: B batch, P patches, K keys, D dim of the level. Tangent vectors are kept at norms near sqrt(D) outside and near
1 inside, where the ball is neither flat nor saturated.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytropix.geometry import SPACES, PositiveParameter, Space
from bytropix.nesting.config import LevelConfig
from bytropix.nesting.maps import FLOWS, combiner

DEPTH_LIMIT = 2.5  # of s sqrt(c) |v|; float32 keeps five digits of the distance to the rim this far out


@dataclass(frozen=True, slots=True)
class Inflow:
    """What a level receives from the one before; the first level receives the vectors alone."""

    v_BPD: Tensor
    """Tangent vectors."""
    relative_BPD: Tensor | None = None
    """Aggregated tangent vectors from each patch to the boundary points of the level before, mapped here."""
    distances_BPK: Tensor | None = None
    """Distances to those boundary points, over their sigma."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a level and the transition behind it measure with: a function of the parameters alone.

    It is made once for a pass, and once for all patches that are read one by one.
    """

    space: Space
    """The ball; its scale takes tangent vectors of norms near sqrt(D) to norms near s."""
    sigma: Tensor
    """The temperature of distances."""
    boundary_KD: Tensor
    """The boundary points, none if the level has none."""
    fixed_KD: Tensor
    """What every patch may attend to: the boundary points and the landmark."""
    descriptor_D: Tensor | None
    """The point that translates patches here."""


class Level(nn.Module):
    """One ball with its boundary points, descriptor, attention and flow.

    Args:
        config: The level.
        before: The level before, `None` for the first.
        space: Name in SPACES.
        dropout: Share of features dropped in training.
        curvature_factor: What the learned curvature is multiplied by.
    """

    def __init__(
        self,
        config: LevelConfig,
        before: LevelConfig | None,
        *,
        space: str,
        dropout: float,
        curvature_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.config = config
        self._curvature_factor = curvature_factor
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

    def whole_curvature(self) -> Tensor:
        """Return c: the learned number times the level's factor."""
        c: Tensor = self.curvature() * self._curvature_factor
        return c

    def frame(self, landmark_D: Tensor | None) -> Frame:
        """Return the present space, temperature and points.

        Args:
            landmark_D: Descriptor of the level before, mapped here, if it has one.
        """
        root = self.config.dim**0.5
        space = self._space(self.whole_curvature(), self.scale() / root)
        sigma = torch.ones_like(space.c) if self.spread is None else self.spread()
        boundary_KD = fixed_KD = space.c.new_zeros(0, self.config.dim)
        if self.boundary_KD is not None:
            boundary_KD = fixed_KD = space.enter(self.boundary_KD * root, DEPTH_LIMIT)
        if landmark_D is not None:
            fixed_KD = torch.cat([boundary_KD, space.enter(landmark_D, DEPTH_LIMIT)[None]])
        descriptor_D = None if self.descriptor_D is None else space.enter(self.descriptor_D * root, DEPTH_LIMIT)
        return Frame(space, sigma, boundary_KD, fixed_KD, descriptor_D)

    def forward(
        self, frame: Frame, inflow: Inflow, past_BQD: Tensor | None, visible_BPP: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the level's tangent vectors (B, P, D) and the points (B, Q + P, D) that later patches attend to.

        Args:
            frame: What `frame` returned.
            inflow: The new patches.
            past_BQD: The points of earlier patches, `None` at the start of a window.
            visible_BPP: True where a new patch may see another, in place of all before; without `past_BQD`.
        """
        space = frame.space
        pieces = [inflow.v_BPD, inflow.relative_BPD, inflow.distances_BPK]
        combined = self.combiner(torch.cat([piece for piece in pieces if piece is not None], dim=-1))
        x_BPD = space.enter(inflow.v_BPD + combined, DEPTH_LIMIT)
        if frame.descriptor_D is not None:
            x_BPD = space.add(frame.descriptor_D, x_BPD)
        patches_BQD = x_BPD if past_BQD is None else torch.cat([past_BQD, x_BPD], dim=1)
        middle_BPD = self._attend(frame, x_BPD, patches_BQD, visible_BPP)
        v_BPD = space.leave(space.add(x_BPD, middle_BPD))
        if self.flow is not None:
            v_BPD = v_BPD + self.config.flow_scale * self.flow(v_BPD)
        return v_BPD, patches_BQD

    def _attend(self, frame: Frame, x_BPD: Tensor, patches_BQD: Tensor, visible_BPP: Tensor | None) -> Tensor:
        """Return the midpoint (B, P, D) of what each patch attends to: softmax over -distance / sigma."""
        batch, count, dim = x_BPD.shape
        space = frame.space
        keys_BKD = frame.fixed_KD.expand(batch, -1, dim)
        if self.config.mixing:
            keys_BKD = torch.cat([keys_BKD, patches_BQD], dim=1)
        scores = space.distances(x_BPD, keys_BKD, -1 / frame.sigma)
        if self.config.mixing and visible_BPP is not None:
            fixed = frame.fixed_KD.shape[0]
            scores = scores.masked_fill(F.pad(~visible_BPP, (fixed, 0)), -torch.inf)
        elif self.config.mixing and count > 1:
            unseen = torch.full((count, scores.shape[-1]), -torch.inf, dtype=scores.dtype, device=scores.device)
            scores = scores + unseen.triu(scores.shape[-1] - count + 1)
        return space.midpoints(scores.softmax(-1), keys_BKD)
