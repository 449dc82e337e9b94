"""Whether a video model can learn eight clips by heart: pure noise and the given frames, and out come the next ones.

eight videos -> store -> ClipStream -> a clip of each -> autoencoder, then diffusion, on these clips alone
             -> noise never seen in training -> denoised -> PSNR, beside that of the last given frame copied

Whole latents are diffused, not what they differ by from the last given frame, so nothing of a picture is given to the
target frames but through the model. Without a folder of videos, the clips are made.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from bytropix.datasets.clip_batch import TENSORS, ClipBatch
from bytropix.datasets.clip_stream import ClipStream
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target, torch_threads
from bytropix.jobs.bench.small_context import small_context
from bytropix.jobs.training_films import make_training_films
from bytropix.jobs.video_clips import store_regions
from bytropix.jobs.video_metrics import psnr
from bytropix.optim import OptimConfig, learning_rate, make_adamw
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.video.autoencoder import measure_latents
from bytropix.video.autoencoder_loss import AutoencoderLoss
from bytropix.video.config import (
    AutoencoderConfig,
    DenoiserConfig,
    DiffusionConfig,
    VideoModelConfig,
)
from bytropix.video.diffusion import DiffusionLoss
from bytropix.video.model import VideoModel, predict_places
from bytropix.video.noise import clip_keys
from bytropix.video.rollout import following, sample
from bytropix.video.sampling import SamplingConfig

WANTED = 28.0  # dB
MAX_BAD = 1.0  # of the videos: eight that can be read are enough
LATENT_FRAMES = 1000


def _model() -> VideoModelConfig:
    return VideoModelConfig(
        given_frames=2,
        predicted_frames=2,
        autoencoder=AutoencoderConfig(stride=4, latent_channels=8, width=48, blocks=0),
        context=small_context(),
        denoiser=DenoiserConfig(width=128, depth=4),
        diffusion=DiffusionConfig(min_snr=0.0, condition_dropout=0.0),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Sizes of the whole: about four minutes of one core."""

    clips: int = 8
    side: int = 48
    """Pixels of a frame, down and across."""
    fps: float = 8.0
    """Few, so that much moves from frame to frame."""
    video: VideoModelConfig = field(default_factory=_model)
    autoencoder_steps: int = 500
    steps: int = 1000
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=2e-3, warmup=30, final_share=0.02, weight_decay=0.0, beta2=0.99)
    )
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(steps=20, guidance=1.0))


def bench_overfit_video(settings: BenchSettings) -> list[BenchRow]:
    """Train on the clips, denoise them anew, and tell how near they come, on one thread."""
    plan = Plan()
    what = "made films" if settings.data is None else f"videos of {settings.data.name}"
    with torch_threads(1):
        return overfit(some_store(settings, plan), plan, what)


def overfit(store: Store, plan: Plan, what: str) -> list[BenchRow]:
    """Return the PSNR of what is denoised, with its time, and of the autoencoder alone.

    Args:
        store: Of frames of the plan's size.
        plan: What to train, and how.
        what: What the store holds, in words.

    Raises:
        ConfigError: There are fewer videos than clips wanted.
    """
    clips = one_clip_each(store, plan)
    torch.manual_seed(0)
    model = VideoModel(replace(plan.video, regions=store_regions(store)))
    began = time.process_time()
    train_autoencoder(model, clips, plan)
    train_denoiser(model, clips, plan)
    minutes = (time.process_time() - began) / 60
    shown = plan.video.given_frames
    given = following(*(getattr(clips, name)[:, :shown] for name in ("frames", "regions", "motion")))
    truth = clips.frames[:, shown:]
    with torch.no_grad():
        decoded = model.autoencoder.decode_frames(model.encode(truth), (plan.side, plan.side))
    found = {
        "made": sample(model.eval(), given, predict_places(plan.video)[1], plan.sampling),
        "copied": given.frames[:, -1:].expand_as(truth),
        "decoded": decoded,
    }
    db = {name: psnr(frames.flatten(0, 1), truth.flatten(0, 1)) for name, frames in found.items()}
    note = (
        f"{plan.clips} clips of {what}, {shown} frames given, {plan.video.predicted_frames} denoised, {plan.side} x "
        f"{plan.side}, {plan.fps:g} a second; {plan.autoencoder_steps} + {plan.steps} steps in {minutes:.1f} minutes "
        f"of one core; the worst frame has {db['made'].min():.1f} dB"
    )
    return [
        BenchRow(
            name="overfit-video: PSNR, denoised from pure noise",
            value=float(db["made"].mean()),
            unit="dB",
            baseline=float(db["copied"].mean()),
            against="the last given frame, copied",
            targets=(Target("value", ">=", WANTED),),
            note=note,
            figures={"processor_minutes": minutes, "worst_db": float(db["made"].min())},
        ),
        BenchRow(
            name="overfit-video: PSNR, the autoencoder alone",
            value=float(db["decoded"].mean()),
            unit="dB",
            note="the most that the denoiser could reach",
        ),
    ]


def some_store(settings: BenchSettings, plan: Plan) -> Store:
    """Return a store of the videos of the data folder, or of made films."""
    sources = settings.data
    if sources is None:
        sources = settings.folder / "films"
        make_training_films(sources, plan.clips, frames=32)
    config = VideoConfig(size=(plan.side, plan.side), fps=plan.fps, clip_frames=plan.video.frames, val_fraction=0.0)
    path = settings.folder / "clips.bx"
    ingest_video([sources], path, config, max_bad=MAX_BAD)
    return Store.open(path)


def one_clip_each(store: Store, plan: Plan) -> ClipBatch:
    """Return a batch of clips of as many videos, those that come first in the stream's order.

    Raises:
        ConfigError: There are fewer videos.
    """
    taken: dict[int, ClipBatch] = {}
    for batch in ClipStream(store, clip_frames=plan.video.frames, batch=1, seed=0, epochs=1, prefetch=False):
        taken.setdefault(int(batch.video), batch)
        if len(taken) == plan.clips:
            columns: dict[str, Any] = {
                name: torch.cat([getattr(one, name) for one in taken.values()]) for name in TENSORS
            }
            return replace(batch, clips=plan.clips, **columns)
    raise ConfigError(
        f"{store.url}: clips of {len(taken)} videos, {plan.clips} are wanted: name another folder of data"
    )


def train_autoencoder(model: VideoModel, clips: ClipBatch, plan: Plan) -> None:
    """Train the autoencoder on the clips' frames, two clips a step, then freeze it and measure its latents."""
    autoencoder = model.autoencoder.requires_grad_()
    loss = AutoencoderLoss(autoencoder)
    for step in steps_of(autoencoder, plan.optim, plan.autoencoder_steps):
        rows = [(2 * step) % plan.clips, (2 * step + 1) % plan.clips]
        loss(clips.frames[rows])[0].mean().backward()
    autoencoder.requires_grad_(requires_grad=False)
    frames = clips.frames.flatten(0, 1)
    measure_latents(autoencoder, [frames] * -(-LATENT_FRAMES // len(frames)))


def train_denoiser(model: VideoModel, clips: ClipBatch, plan: Plan) -> None:
    """Train everything else, all clips a step, with noise of its own in each."""
    loss = DiffusionLoss(model)
    rows = torch.arange(plan.clips)
    for step in steps_of(model, plan.optim, plan.steps):
        keys = clip_keys(0, step * plan.clips + rows)
        loss(clips.frames, clips.regions, clips.motion, keys, clips.filled)[0].mean().backward()


def steps_of(model: nn.Module, config: OptimConfig, steps: int) -> Iterator[int]:
    """Yield the number of each step, whose gradients the caller adds; they are applied when it asks for the next."""
    optimizer = make_adamw(model, config)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, steps)
        yield step
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
