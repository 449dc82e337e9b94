"""What a step of a video run minimizes: the sum of the losses of this rank's clips, and tallies of them.

ClipBatch ------------> AutoencoderTotal -> sum of losses, (sum of squared errors, clips)
ClipBatch, positions -> DiffusionTotal ---> sum of losses, (sum of squared errors, clips) of each eighth of the
                                            timesteps: noise is keyed by a clip's position in the stream
"""

import math

import torch
from torch import Tensor, nn

from bytropix.datasets.clip_batch import ClipBatch
from bytropix.video.autoencoder import FrameAutoencoder
from bytropix.video.autoencoder_loss import AutoencoderLoss
from bytropix.video.diffusion import BUCKETS, DiffusionLoss
from bytropix.video.model import VideoModel
from bytropix.video.noise import clip_keys

NO_ERROR = 1e-10  # a mean squared error of 100 dB


class AutoencoderTotal(nn.Module):
    """The sum of the reconstruction losses of a batch.

    Args:
        model: What is trained.
    """

    def __init__(self, model: FrameAutoencoder) -> None:
        super().__init__()
        self.losses = AutoencoderLoss(model)

    def forward(self, batch: ClipBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum over clips, of no dimensions, and (sum of squared errors, clips), f32 [1, 2]."""
        loss_B, error_B = self.losses(batch.frames)
        filled_B = batch.filled
        tally = torch.stack([torch.where(filled_B, error_B, 0).sum(), filled_B.sum()])
        return torch.where(filled_B, loss_B, 0).sum(), tally[None].detach()


class DiffusionTotal(nn.Module):
    """The sum of the diffusion losses of a batch, and of the reconstruction losses where the autoencoder learns too.

    Args:
        model: What is trained.
        seed: Of the noise.
    """

    def __init__(self, model: VideoModel, seed: int) -> None:
        super().__init__()
        self.losses = DiffusionLoss(model)
        self._seed = seed

    def forward(self, batch: ClipBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum over clips, of no dimensions, and (sum of squared errors, clips), f32 [BUCKETS, 2].

        Args:
            batch: Rows of clips.
            positions: i64 [B], of each clip in the stream.
        """
        keys_B = clip_keys(self._seed, positions)
        loss_B, tallies = self.losses(batch.frames, batch.regions, batch.motion, keys_B, batch.filled)
        return loss_B.sum(), tallies


def decibels(squared_error: float) -> float:
    """Return the peak signal-to-noise ratio of a mean squared error of values in 0..1; 100 without error."""
    return -10 * math.log10(max(squared_error, NO_ERROR))


def reconstruction_scalars(tallies: Tensor) -> dict[str, float]:
    """Return what the tallies of `AutoencoderTotal`, added up, say, by tag."""
    ((squared_error, clips),) = tallies.tolist()
    return {"train/psnr_db": decibels(squared_error / clips)} if clips else {}


def timestep_scalars(tallies: Tensor) -> dict[str, float]:
    """Return what the tallies of `DiffusionTotal`, added up, say, by tag: a bucket without a clip says nothing."""
    rows = enumerate(tallies.tolist(), 1)
    return {f"loss_by_timestep/{number}_of_{BUCKETS}": error / clips for number, (error, clips) in rows if clips}
