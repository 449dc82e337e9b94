"""What the frame autoencoder is trained on.

    frames -> latents -> frames   mean |difference|, of pixels and of what neighbours differ by
                      -> mean and variance of each channel over a clip: penalty

Each clip has a loss of its own, so a step's loss is the same however its clips are spread over ranks.
"""

import torch
from torch import Tensor, nn

from bytropix.video.autoencoder import FrameAutoencoder, to_signed

EDGES = 0.5  # weight of the differences between neighbours beside that of pixels
LEAST_VARIANCE = 1e-2  # a still, even clip need not have more


class AutoencoderLoss(nn.Module):
    """The loss of clips.

    Args:
        autoencoder: What is trained.
    """

    def __init__(self, autoencoder: FrameAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each clip and its squared error, both f32 [B].

        Args:
            frames: u8 [B, T, H, W, 3].

        Returns:
            The squared error is the mean over pixels whose range is 0..1, so PSNR is -10 log10 of it, in dB. It has no
            gradient.
        """
        clips = frames.shape[:2]
        x = to_signed(frames.flatten(0, 1))
        z = self.autoencoder.encode(x)
        difference = self.autoencoder.decode(z, (x.shape[-2], x.shape[-1])).float() - x
        difference = difference.reshape(*clips, *x.shape[1:])
        loss = difference.abs().mean((1, 2, 3, 4)) + EDGES * edges(difference)
        loss = loss + self.autoencoder.config.latent_penalty * latent_penalty(z.float().reshape(*clips, *z.shape[1:]))
        return loss, difference.detach().square().mean((1, 2, 3, 4)) / 4


def edges(difference: Tensor) -> Tensor:
    """Return what neighbours, across and down, differ by in [B, T, 3, H, W], absolute mean, [B]."""
    total = difference.new_zeros(len(difference))
    for axis in (-1, -2):
        if difference.shape[axis] > 1:
            total = total + difference.diff(dim=axis).abs().mean((1, 2, 3, 4)) / 2
    return total


def latent_penalty(z: Tensor) -> Tensor:
    """Return how far each clip's latent channels are from a mean of 0 and a variance of 1, [B].

    It is twice the divergence of such normal distributions, mu^2 + var - log var - 1, the mean over channels: without
    it latents may grow without end, or shrink to nothing behind a decoder that grows.

    Args:
        z: Raw latents [B, T, C, h, w].
    """
    var, mean = torch.var_mean(z, dim=(1, 3, 4), correction=0)
    return (mean.square() + var - (var + LEAST_VARIANCE).log() - 1).mean(1)
