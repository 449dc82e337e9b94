"""What a video run looks like on val clips: errors, and pictures of them.

FrameAutoencoder, clips -> reconstructed -> eval/loss, eval/psnr_db, reconstruction (picture)
VideoModel, clips -> noised by fixed keys -> eval/loss
           first of them -> sampled -> eval/psnr_db of the first predicted frame, beside that of the last given one;
                                       prediction (animation), regions (picture)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bytropix.datasets.clip_batch import TENSORS, ClipBatch
from bytropix.gaad.config import rectangle_count
from bytropix.jobs.video_metrics import psnr
from bytropix.jobs.video_pictures import animation, compared, mapped, still, two_rows
from bytropix.jobs.video_recipe import VideoTrainConfig
from bytropix.jobs.video_totals import decibels
from bytropix.video.autoencoder import FrameAutoencoder
from bytropix.video.autoencoder_loss import AutoencoderLoss
from bytropix.video.diffusion import DiffusionLoss
from bytropix.video.model import VideoModel
from bytropix.video.noise import clip_keys

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

SEED = 0  # of the noise: all runs, at all steps, are measured with the same


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        scalars: By tag.
        pictures: For TensorBoard.
        words: The most telling of it, for the progress bar.
    """

    scalars: dict[str, float]
    words: str
    pictures: list["Summary"] = field(default_factory=list)


@torch.no_grad()
def look_at_reconstructions(model: FrameAutoencoder, clips: ClipBatch, train: VideoTrainConfig) -> Look:
    """Reconstruct clips; the first one is shown.

    Args:
        model: In evaluation mode.
        clips: On the CPU, none of them empty.
        train: How many clips are taken at a time.
    """
    device = model.latent_mean_C.device
    losses = AutoencoderLoss(model)
    found = [losses(part.to(device).frames) for part in pieces(clips, train.batch)]
    loss, error = (float(torch.cat(part).mean()) for part in zip(*found, strict=True))
    first = clips.frames[:1].to(device)
    height, width = first.shape[2:4]
    again = model.decode_frames(model.encode_frames(first), (height, width))
    picture = two_rows(clips.frames[0].numpy(), again[0].cpu().numpy())
    scalars = {"eval/loss": loss, "eval/psnr_db": decibels(error)}
    return Look(scalars, f"val {decibels(error):.1f} dB", [still("reconstruction", picture)])


@torch.no_grad()
def look_at_predictions(model: VideoModel, clips: ClipBatch, train: VideoTrainConfig) -> Look:
    """Measure the loss on clips with fixed noise, and predict and show the first of them.

    Args:
        model: In evaluation mode.
        clips: On the CPU, none of them empty.
        train: How many clips are taken at a time, and how the first ones are predicted.
    """
    device = model.residual_scale_C.device
    losses = DiffusionLoss(model).to(device)
    total = 0.0
    for number, some in enumerate(pieces(clips, train.batch)):
        part = some.to(device)
        rows = number * train.batch + torch.arange(len(part.frames), device=device)
        loss_B, _ = losses(part.frames, part.regions, part.motion, clip_keys(SEED, rows), part.filled)
        total += float(loss_B.sum())
    loss = total / len(clips.frames)
    scalars, words = {"eval/loss": loss}, f"val {loss:.4f}"
    if not train.sample_clips:
        return Look(scalars, words)
    shown = next(pieces(clips, train.sample_clips))
    given = model.config.given_frames
    predicted = predict(model, shown.to(device), train).cpu()
    truth, last = shown.frames[:, given], shown.frames[:, given - 1]
    of_model, of_last = (float(psnr(frames, truth).mean()) for frames in (predicted[:, 0], last))
    scalars |= {"eval/psnr_db": of_model, "eval/copy_last_psnr_db": of_last}
    pictures = [
        animation(f"prediction/{number}", compared(clip, made))
        for number, (clip, made) in enumerate(zip(shown.frames.numpy(), predicted.numpy(), strict=True))
    ]
    boxes = shown.regions[0, :given].numpy(), shown.motion[0, :given].numpy()
    rectangles = rectangle_count(model.config.regions.decomposition, model.config.regions.regions)
    pictures.append(still("regions", mapped(shown.frames[0, :given].numpy(), *boxes, rectangles)))
    return Look(scalars, f"{words}, {of_model:.1f} dB ({of_last:.1f} copied)", pictures)


def predict(model: VideoModel, clips: ClipBatch, train: VideoTrainConfig) -> Tensor:
    """Return the P frames u8 [B, P, H, W, 3] that a model makes of the first F of clips on its device."""
    from bytropix.video.rollout import following, roll_out  # the library of samplers takes seconds to import
    from bytropix.video.sampling import SamplingConfig

    given = slice(model.config.given_frames)
    shown = following(clips.frames[:, given], clips.regions[:, given], clips.motion[:, given])
    steps = min(train.sample_steps, model.config.diffusion.timesteps)
    config = SamplingConfig(steps=steps, guidance=train.sample_guidance, seed=SEED)
    return next(roll_out(model, shown, model.config.predicted_frames, config))


def pieces(clips: ClipBatch, rows: int) -> Iterator[ClipBatch]:
    """Yield clips, none of which is empty, at most so many at a time."""
    for first in range(0, clips.rows, rows):
        some = {name: getattr(clips, name)[first : first + rows] for name in TENSORS}
        yield replace(clips, **some, clips=len(some["video"]))
