"""What the given frames say to the denoiser: regions, motion and time, each through a nested hyperbolic stack.

    latents -> feature map -> region tokens, frame by frame -> WuBu-S -> tokens, pooled s_f  \
                           -> motion tokens, pair by pair   -> WuBu-M -> tokens, pooled m_f   > all tokens, one width,
               [s_f ; m_f] + place of the frame             -> WuBu-T -> tokens ctx_f        /  + type + place -> norm

In S the regions of a frame all see each other, in M the motion regions of a pair; in T a frame sees those before it, or
all. Padding boxes are seen by none, neither is a frame that has no region at all; such tokens are finite and not
visible. Each stack can be off, and takes its tokens and all that leads to it away.

Shapes: B clips, F given frames, N = B F frames or B (F - 1) pairs, C latent channels, Z features, h x w latent grid,
R regions, M motion regions, K = F R + (F - 1) M + F tokens, D width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytropix.nesting import NestedStack
from bytropix.nesting.maps import linear
from bytropix.video.config import StackConfig, VideoModelConfig
from bytropix.video.motion import MotionEncoder
from bytropix.video.pooling import POOLINGS
from bytropix.video.regions import FeatureMap, RegionEncoder
from bytropix.video.time_embedding import Waves

PLACE_FEATURES = 32
_PLACES = 256  # frames whose places the slowest wave tells apart


@dataclass(frozen=True, slots=True)
class ContextTokens:
    """What the denoiser attends to."""

    tokens: Tensor
    """[B, K, D]."""
    visible: Tensor
    """bool [B, K]; it may be False for all tokens of a clip."""
    features: Tensor | None = None
    """Feature maps of the given frames, [B, F, Z, h, w]."""
    motion: Tensor | None = None
    """What WuBu-M made of the motion regions between frames f - 1 and f, at f - 1: [B, F - 1, M, width of M]."""
    motion_valid: Tensor | None = None
    """bool [B, F - 1, M]."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """What one stack made of its tokens."""

    tokens: Tensor
    """[B, F or F - 1, any, width of the stack]."""
    valid: Tensor
    """bool [B, F or F - 1, any]."""
    pooled: Tensor | None = None
    """[B, F, width of the stack], where WuBu-T asks for it."""


class TokenStack(nn.Module):
    """The tokens of a frame, all of which see each other, through a stack; then one vector of them.

    Args:
        inputs: Width of the tokens.
        config: The stack.
        pooled: Whether anybody asks for the one vector.
    """

    def __init__(self, inputs: int, config: StackConfig, *, pooled: bool) -> None:
        super().__init__()
        self.stack = NestedStack(inputs, config.output, config.nesting)
        self.pool = POOLINGS[config.pooling](config.output) if pooled else None

    def forward(self, tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the tokens [N, R, D] behind the stack, and one vector [N, D] of the valid ones, zeros without any."""
        mixed = self.stack(tokens, visible_BPP=visible_and_self(valid[:, None].expand(-1, valid.shape[1], -1)))
        return mixed, None if self.pool is None else self.pool(mixed, valid)


def visible_and_self(visible_BPP: Tensor) -> Tensor:
    """Return a mask that also shows each token itself: one that nothing sees and that sees nothing stays finite."""
    return visible_BPP | torch.eye(visible_BPP.shape[-1], dtype=torch.bool, device=visible_BPP.device)


class ContextEncoder(nn.Module):
    """Regions, motion and time of the given frames.

    Args:
        config: The model; its `context` must be on.
    """

    def __init__(self, config: VideoModelConfig) -> None:
        super().__init__()
        context = self.config = config.context
        self.stride = config.autoencoder.stride
        self.features = FeatureMap(config.autoencoder.latent_channels, context.features)
        widths: dict[str, int] = {}
        if context.spatial.on:
            self.region_encoder = RegionEncoder(context, config.regions)
            self.spatial = TokenStack(context.region_width, context.spatial, pooled=context.temporal.on)
            widths["S"] = context.spatial.output
        if context.motion.on:
            self.motion_encoder = MotionEncoder(context)
            self.motion = TokenStack(context.region_width, context.motion, pooled=context.temporal.on)
            widths["M"] = context.motion.output
        if context.temporal.on:
            width = sum(widths.values())
            self.pooled_norm, self.pooled_place = nn.LayerNorm(width), linear(PLACE_FEATURES, width)
            self.temporal = NestedStack(width, context.temporal.output, context.temporal.nesting)
            widths["T"] = context.temporal.output
        self.exits = nn.ModuleDict({name: linear(width, context.width) for name, width in widths.items()})
        self.types = nn.ParameterDict({name: nn.Parameter(0.5 * torch.randn(context.width)) for name in widths})
        self.waves, self.place = Waves(PLACE_FEATURES, _PLACES), linear(PLACE_FEATURES, context.width)
        self.norm = nn.LayerNorm(context.width)

    def forward(
        self, latents: Tensor, regions: Tensor, motion: Tensor, places: Tensor, image_size: tuple[int, int]
    ) -> ContextTokens:
        """Return the tokens of the given frames.

        Args:
            latents: [B, F, C, h, w], normalized.
            regions: f32 [B, F, R, 4], boxes in pixels; R may be any.
            motion: f32 [B, F, M, 4], boxes in pixels, of what differs from the frame before; M may be any.
            places: i64 [B, F], where in the window the frames are, rising.
            image_size: Height and width of the frames.
        """
        features = self.features(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        covered = (latents.shape[3] * self.stride, latents.shape[4] * self.stride)
        waves = self.waves(places)
        mixed: dict[str, Mixed] = {}
        if self.config.spatial.on:
            mixed["S"] = self._regions(features, regions, image_size, covered)
        if self.config.motion.on:
            mixed["M"] = self._motion(features, motion, image_size, covered)
        if self.config.temporal.on:
            mixed["T"] = self._time(list(mixed.values()), waves)
        tokens = torch.cat([self._placed(name, part.tokens, waves) for name, part in mixed.items()], dim=1)
        visible = torch.cat([part.valid.flatten(1) for part in mixed.values()], dim=1)
        moved, moved_valid = (mixed["M"].tokens, mixed["M"].valid) if "M" in mixed else (None, None)
        return ContextTokens(self.norm(tokens), visible, features, moved, moved_valid)

    def stacks(self) -> dict[str, NestedStack]:
        """Return the stacks that are on, by the names S, M and T."""
        found: dict[str, NestedStack] = {}
        if self.config.spatial.on:
            found["S"] = self.spatial.stack
        if self.config.motion.on:
            found["M"] = self.motion.stack
        if self.config.temporal.on:
            found["T"] = self.temporal
        return found

    def scalars(self) -> dict[str, Tensor]:
        """Return the present curvature, scale and spread of each level, as levels/S/0/curvature."""
        return {
            tag.replace("levels/", f"levels/{name}/"): value
            for name, stack in self.stacks().items()
            for tag, value in stack.scalars().items()
        }

    def _regions(self, features: Tensor, boxes: Tensor, image_size: tuple[int, int], covered: tuple[int, int]) -> Mixed:
        """Return what WuBu-S makes of the regions of each frame."""
        flat, frames = features.flatten(0, 1), features.shape[:2]
        tokens, valid = self.region_encoder(flat, boxes.flatten(0, 1), image_size=image_size, covered=covered)
        mixed, vector = self.spatial(tokens, valid)
        pooled = None if vector is None else vector.unflatten(0, frames)
        return Mixed(mixed.unflatten(0, frames), valid.unflatten(0, frames), pooled)

    def _motion(self, features: Tensor, boxes: Tensor, image_size: tuple[int, int], covered: tuple[int, int]) -> Mixed:
        """Return what WuBu-M makes of the motion regions of each pair; nothing moves before the first frame."""
        pairs = (features.shape[0], features.shape[1] - 1)
        tokens, valid = self.motion_encoder(features, boxes, image_size=image_size, covered=covered)
        mixed, vector = self.motion(tokens, valid)
        pooled = None if vector is None else F.pad(vector.unflatten(0, pairs), (0, 0, 1, 0))
        return Mixed(mixed.unflatten(0, pairs), valid.unflatten(0, pairs), pooled)

    def _time(self, mixed: list[Mixed], waves: Tensor) -> Mixed:
        """Return what WuBu-T makes of the frames; one without any region or motion is seen by none."""
        pooled_BFD = torch.cat([part.pooled for part in mixed if part.pooled is not None], dim=-1)
        frames = pooled_BFD.shape[1]
        something = [F.pad(part.valid.any(-1), (frames - part.valid.shape[1], 0)) for part in mixed]
        seen_BF = torch.stack(something).any(0)
        visible_BFF = seen_BF[:, None].expand(-1, frames, -1)
        if self.config.time_mixing == "causal":
            visible_BFF = visible_BFF.tril()
        h_BFD = self.pooled_norm(pooled_BFD) + self.pooled_place(waves)
        mixed_BFD = self.temporal(h_BFD, visible_BPP=visible_and_self(visible_BFF))
        return Mixed(mixed_BFD[:, :, None], seen_BF[:, :, None])

    def _placed(self, name: str, tokens: Tensor, waves: Tensor) -> Tensor:
        """Return the tokens [B, F or F - 1, any, width] of a stack with their type and place, [B, n, D]."""
        place = self.place(waves[:, waves.shape[1] - tokens.shape[1] :])
        placed: Tensor = self.exits[name](tokens) + self.types[name] + place[:, :, None]
        return placed.flatten(1, 2)
