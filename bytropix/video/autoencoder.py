"""The frame autoencoder: frames to a grid of latents and back, fully convolutional, for frames of any size.

    u8 frames -> -1..1 -> padded to the stride -> linear: one product per cell ------------------+-> latents
                                               -> branch: by 4, blocks, by 2, blocks, ... -------+   [N, C, h, w]
    latents -> linear: one product per cell ------------------------+-> cropped -> -1..1 -> u8 frames
            -> branch: blocks, by 2, ..., blocks, sub-pixels by 4 --+

The linear paths begin as the lowest frequencies of a cosine transform, brightness before colour; the
branches begin at zero and learn what that leaves. From there a model is trained in seconds that takes minutes from
nothing. Nothing is computed at full size but the pixels themselves. Sizes grow by sub-pixel convolutions (Shi et al.
2016) that begin as nearest-neighbour ones (Aitken et al. 2017), which leave no checkerboards.

Cell (i, j) of a grid stands for the pixels of rows i s to (i + 1) s and columns j s to (j + 1) s, s the stride; a
frame is padded below and on the right, so h and w are rounded up.

Latents are trained to be near unit size and are then measured once (`measure_latents`): what the diffusion sees has a
mean of 0 and a deviation of 1 in each channel.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bytropix.errors import RunError
from bytropix.video.config import AutoencoderConfig

GROUPS = 8  # of channels, that are normalized together
COLOUR_SIZES = (1.0, 0.4, 0.3)  # brightness, red - blue, green - magenta
LEAST_STD = 1e-4  # of a latent channel; below, it says nothing


class Block(nn.Module):
    """Two convolutions beside the identity; at first the identity alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(norm(channels), nn.SiLU(), zeroed(nn.Conv2d(channels, channels, 3, padding=1))),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, channels, h, w] of the same."""
        out: Tensor = x + self.layers(x)
        return out


class FrameAutoencoder(nn.Module):
    """Frames to latents and back.

    Args:
        config: Its sizes.

    Attributes:
        latent_mean_C: Mean of each latent channel, 0 until it is measured.
        latent_std_C: Its standard deviation, 1 until it is measured.
    """

    latent_mean_C: Tensor
    latent_std_C: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        to_cells, from_cells = linear_paths(config)
        self.encoder = TwoPaths(to_cells, encoder_branch(config))
        self.decoder = TwoPaths(nn.Sequential(from_cells, nn.PixelShuffle(config.stride)), decoder_branch(config))
        self.register_buffer("latent_mean_C", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std_C", torch.ones(config.latent_channels))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the latent grid of frames of a size."""
        return -(-height // self.config.stride), -(-width // self.config.stride)

    def encode(self, x: Tensor) -> Tensor:
        """Return the raw latents [N, C, h, w] of frames [N, 3, H, W] in -1..1."""
        height, width = x.shape[-2:]
        h, w = self.grid(height, width)
        below, right = h * self.config.stride - height, w * self.config.stride - width
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        z: Tensor = self.encoder(x.contiguous(memory_format=torch.channels_last))
        return z

    def decode(self, z: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return frames [N, 3, H, W], about -1..1, of raw latents [N, C, h, w].

        Args:
            z: Raw latents.
            size: H and W; by default all that the grid covers.

        Raises:
            ValueError: The grid is not that of frames of this size.
        """
        x: Tensor = self.decoder(z.contiguous(memory_format=torch.channels_last))
        if size is None:
            return x
        if self.grid(*size) != tuple(z.shape[-2:]):
            raise ValueError(f"a latent grid of {list(z.shape[-2:])} is not that of frames of {list(size)}")
        return x[..., : size[0], : size[1]]

    def normalize(self, z: Tensor) -> Tensor:
        """Return raw latents [..., C, h, w] less the mean, over the deviation of their channel."""
        return (z - self.latent_mean_C[:, None, None]) / self.latent_std_C[:, None, None]

    def restore(self, z: Tensor) -> Tensor:
        """Return raw latents [..., C, h, w] of normalized ones."""
        return z * self.latent_std_C[:, None, None] + self.latent_mean_C[:, None, None]

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Return the normalized latents [B, T, C, h, w] of u8 frames [B, T, H, W, 3]."""
        z = self.encode(to_signed(frames.flatten(0, 1)))
        return self.normalize(z).reshape(*frames.shape[:2], *z.shape[1:])

    def decode_frames(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Return u8 frames [B, T, H, W, 3] of normalized latents [B, T, C, h, w]; `size` is H and W."""
        x = self.decode(self.restore(latents).flatten(0, 1), size)
        return to_pixels(x).reshape(*latents.shape[:2], *size, 3)


class TwoPaths(nn.Module):
    """The sum of a linear path and a branch."""

    def __init__(self, linear: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.linear, self.branch = linear, branch

    def forward(self, x: Tensor) -> Tensor:
        """Return what both make of it."""
        out: Tensor = self.linear(x) + self.branch(x)
        return out


def norm(channels: int) -> nn.GroupNorm:
    """Return a normalization over the frame and over groups of channels."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def stage_widths(config: AutoencoderConfig) -> list[int]:
    """Return the channels at a quarter of the size, at an eighth, and so on to the latent grid."""
    return [config.width * 2**stage for stage in range(config.stride.bit_length() - 2)]


def encoder_branch(config: AutoencoderConfig) -> nn.Sequential:
    """Return the branch from frames to latents, zero at first."""
    widths = stage_widths(config)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 8, stride=4, padding=2)]
    for before, channels in zip([None, *widths], widths, strict=False):
        if before is not None:
            layers.append(nn.Conv2d(before, channels, 4, stride=2, padding=1))
        layers.extend(Block(channels) for _ in range(config.blocks))
    last = zeroed(nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1))
    return nn.Sequential(*layers, norm(widths[-1]), nn.SiLU(), last)


def decoder_branch(config: AutoencoderConfig) -> nn.Sequential:
    """Return the branch from latents to frames, zero at first."""
    widths = stage_widths(config)
    layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)]
    for channels, after in zip(widths[::-1], [*widths[-2::-1], None], strict=True):
        layers.extend(Block(channels) for _ in range(config.blocks))
        layers.extend((norm(channels), nn.SiLU()))
        if after is not None:
            layers.extend((doubling(channels, after), nn.PixelShuffle(2)))
    return nn.Sequential(*layers, zeroed(nn.Conv2d(widths[0], 3 * 4 * 4, 3, padding=1)), nn.PixelShuffle(4))


def zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution whose weights and offsets are set to zero."""
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


def doubling(channels: int, after: int) -> nn.Conv2d:
    """Return the convolution before a pixel shuffle by 2, whose four pixels of a cell are at first the same."""
    convolution = nn.Conv2d(channels, 4 * after, 3, padding=1)
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.copy_(parameter[:after].repeat_interleave(4, dim=0))
    return convolution


def linear_paths(config: AutoencoderConfig) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Return the products that make a cell's latents of its pixels and back: at first a cosine transform, cut off."""
    basis, sizes = cosine_basis(config.stride, config.latent_channels)
    to_cells = zeroed(nn.Conv2d(3, config.latent_channels, config.stride, stride=config.stride))
    from_cells = zeroed(nn.Conv2d(config.latent_channels, 3 * config.stride**2, 1))
    columns = sizes[:, None, None, None]
    with torch.no_grad():
        to_cells.weight.copy_(torch.from_numpy(basis / columns))
        from_cells.weight.copy_(torch.from_numpy((basis * columns).reshape(len(basis), -1).T[:, :, None, None]))
    return to_cells, from_cells


def cosine_basis(stride: int, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the waves of a cell that say most of natural pictures, f64 [C, 3, s, s], orthonormal, most first.

    Args:
        stride: Pixels of a cell, down and across, s.
        channels: How many, C; past the 3 s^2 that there are, waves are zero.

    Returns:
        The waves, and about how large their coefficients are for pixels in -1..1, f64 [C]: less by frequency, and for
        differences of colours less than for brightness.
    """
    colours = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]])
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    n = np.arange(stride)
    waves = np.cos(np.pi * n[:, None] * (n + 0.5) / stride)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    shares = np.array(COLOUR_SIZES)[:, None, None] / (1 + 2 * np.hypot(n[:, None], n))
    order = np.argsort(-shares, axis=None, kind="stable")[:channels]
    basis, sizes = np.zeros((channels, 3, stride, stride)), np.ones(channels)
    all_waves = np.einsum("kc,uy,vx->kuvcyx", colours, waves, waves)
    basis[: len(order)] = all_waves.reshape(-1, 3, stride, stride)[order]
    sizes[: len(order)] = 0.7 * stride * shares.ravel()[order]
    return basis, sizes


def to_signed(frames: Tensor) -> Tensor:
    """Return f32 [N, 3, H, W] in -1..1, channels last in memory, of u8 frames [N, H, W, 3]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Return u8 frames [N, H, W, 3] of [N, 3, H, W] in -1..1, rounded, cut off outside."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def measure_latents(autoencoder: FrameAutoencoder, frames: Iterable[Tensor]) -> int:
    """Set the mean and deviation of each latent channel from frames; return the number of frames.

    Args:
        autoencoder: Trained; it is left in the mode it was in.
        frames: u8 [..., H, W, 3], of any sizes. A thousand frames of many clips are enough.

    Raises:
        RunError: There are no frames, or a channel is constant or not finite.
    """
    device = autoencoder.latent_mean_C.device
    sums = torch.zeros(2, autoencoder.config.latent_channels, dtype=torch.float64, device=device)
    count = cells = 0
    for some in frames:
        z = autoencoder.encode(to_signed(some.to(device).reshape(-1, *some.shape[-3:]))).double()
        sums += torch.stack([z.sum((0, 2, 3)), z.square().sum((0, 2, 3))])
        count += len(z)
        cells += z[:, 0].numel()
    if not count:
        raise RunError("there are no frames to measure the autoencoder's latents on")
    mean, square = sums / cells
    std = (square - mean.square()).clamp(min=0).sqrt()
    dead = (~(std > LEAST_STD)).nonzero().flatten().tolist()
    if dead:
        raise RunError(
            f"latent channel {dead[0]} of the autoencoder is the same in all of {count} frames, or not finite: train "
            "it longer, at a lower learning rate or with a greater autoencoder.latent_penalty"
        )
    autoencoder.latent_mean_C.copy_(mean)
    autoencoder.latent_std_C.copy_(std)
    return count
