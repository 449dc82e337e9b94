"""The denoiser: a diffusion transformer over the latent grids of all target frames at once.

    noisy latents of P target frames -> cells in patches -> linear --\
    latents of F given frames, the same for each target -> linear ----> + position -> blocks -> linear -> output
    timestep, place of the target, places of the given -> two layers -> modulation of every block /

Given frames lie as channels under the noisy ones: what stood at a cell before is at hand at that cell. Positions are
computed, so a grid may have any size; one that does not divide into patches is padded, and the output is cropped.

Shapes: B batch, P target frames, F given frames, C channels of a latent, h x w its grid, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bytropix.video.blocks import Block, modulated, small_linear
from bytropix.video.config import DenoiserConfig, TimeEmbedding
from bytropix.video.context import ContextTokens
from bytropix.video.time_embedding import Waves, grid_waves

TIME_FEATURES, PLACE_FEATURES = 256, 64
_PLACES = 1000  # frames that the waves of places tell apart


class Denoiser(nn.Module):
    """Predicts what the noise of a timestep hides.

    Args:
        config: Sizes.
        channels: C.
        given_frames: F.
        timesteps: T.
        time_embedding: Frequencies of the timesteps' waves.
        context_width: Width of the context's tokens; `None` for a denoiser that sees latents alone.
    """

    def __init__(
        self,
        config: DenoiserConfig,
        *,
        channels: int,
        given_frames: int,
        timesteps: int,
        time_embedding: TimeEmbedding = "sinusoidal",
        context_width: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        width, cells = config.width, config.patch**2
        self.noisy_entry = nn.Linear(cells * channels, width)
        self.given_entry = nn.Linear(cells * channels * given_frames, width)
        self.time, self.place = Waves(TIME_FEATURES, timesteps, time_embedding), Waves(PLACE_FEATURES, _PLACES)
        self.condition = nn.Sequential(
            nn.Linear(TIME_FEATURES + (1 + given_frames) * PLACE_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.place_entry = nn.Linear(PLACE_FEATURES, width, bias=False)
        self.blocks = nn.ModuleList(Block(config, context_width) for _ in range(config.depth))
        self.modulation = small_linear(width, 2 * width)
        self.exit = small_linear(width, cells * channels)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        places: Tensor,
        given: Tensor,
        given_places: Tensor,
        context: ContextTokens | None = None,
    ) -> Tensor:
        """Return the prediction [B, P, C, h, w].

        Args:
            x: Noisy latents [B, P, C, h, w].
            t: i64 [B].
            places: Places of the target frames, i64 [B, P].
            given: Latents [B, F, C, h, w] of the given frames.
            given_places: i64 [B, F].
            context: What cross-attention reads, of a denoiser that has it.
        """
        height, width = x.shape[-2:]
        noisy, under = self._patches(x), self._patches(given.flatten(1, 2)[:, None])
        place = self.place(places)
        position = grid_waves(noisy.shape[2], noisy.shape[3], self.config.width, x.device)
        tokens = (
            self.noisy_entry(noisy) + self.given_entry(under) + self.place_entry(place)[:, :, None, None] + position
        )
        condition = F.silu(self.condition(self._known(t, place, given_places)))
        for block in self.blocks:
            if self.config.checkpointing and self.training:
                tokens = checkpoint(block, tokens, condition, context, use_reentrant=False)
            else:
                tokens = block(tokens, condition, context)
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        maps = self._maps(self.exit(modulated(tokens, shift, scale)))
        return maps[..., :height, :width]

    def _known(self, t: Tensor, place: Tensor, given_places: Tensor) -> Tensor:
        """Return [B, P, features] of what modulates a frame: the timestep, its place and those of the given frames."""
        shared = torch.cat([self.time(t), self.place(given_places).flatten(1)], dim=-1)
        return torch.cat([shared[:, None].expand(-1, place.shape[1], -1), place], dim=-1)

    def _patches(self, x: Tensor) -> Tensor:
        """Return [B, P, h / patch, w / patch, C * patch * patch] of maps [B, P, C, h, w], padded by their border."""
        side = self.config.patch
        down, across = -x.shape[-2] % side, -x.shape[-1] % side
        if down or across:
            x = F.pad(x, (0, across, 0, down, 0, 0), mode="replicate")
        rows, columns = x.shape[-2] // side, x.shape[-1] // side
        return x.reshape(*x.shape[:3], rows, side, columns, side).permute(0, 1, 3, 5, 2, 4, 6).flatten(-3)

    def _maps(self, patches: Tensor) -> Tensor:
        """Return maps [B, P, C, h, w] of patches [B, P, h / patch, w / patch, C * patch * patch]."""
        side = self.config.patch
        x = patches.reshape(*patches.shape[:-1], -1, side, side).permute(0, 1, 4, 2, 5, 3, 6)
        return x.flatten(-2).flatten(-3, -2)
