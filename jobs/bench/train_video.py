"""Training speed of the WuBu video model and of a plain diffusion transformer that weighs the same.

made clips, their region maps -> loss, gradients, AdamW: a step of each, in turns -> times, and their ratios
"""

import resource
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from bytropix.gaad.maps import region_maps
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target, seconds, torch_threads
from bytropix.jobs.demo_model import SIDE, demo_recipe
from bytropix.jobs.training_films import moving_shapes
from bytropix.jobs.video_recipe import VideoRecipe, build_video_model, matched, parameters_of
from bytropix.optim import make_adamw
from bytropix.video.config import VideoModelConfig
from bytropix.video.diffusion import DiffusionLoss
from bytropix.video.model import VideoModel

BATCH = 8
SLOWEST = 1.3  # times the step of the plain transformer
MODELS: tuple[Literal["wubu", "dit"], ...] = ("wubu", "dit")


@dataclass(frozen=True, slots=True)
class Case:
    """Sizes to measure at."""

    name: str
    side: int
    """Pixels of a frame, down and across."""
    video: VideoModelConfig
    batch: int = BATCH


CASES = (
    Case("the demo's sizes", SIDE, demo_recipe(None).video),
    Case("default sizes", 128, VideoModelConfig()),
)


def bench_train_video(settings: BenchSettings) -> list[BenchRow]:
    """Measure whole optimizer steps, in processor time of one core."""
    with torch_threads(1):
        return [row for case in CASES for row in compare(case, settings.repeats)]


def compare(case: Case, repeats: int) -> list[BenchRow]:
    """Time both models on the same clips; return the time of a step, clips' speed, and memory."""
    recipe = matched(VideoRecipe(video=case.video))
    clips = made_clips(case)
    steps = {name: _step(replace(recipe, model=name), clips) for name in MODELS}
    kept = {name: kept_bytes(step) / 1e6 for name, step in steps.items()}  # the unmeasured first step too
    turns = [tuple(seconds(steps[name], "processor") for name in MODELS) for _ in range(repeats)]
    ratios = [ours / theirs for ours, theirs in turns]
    ours, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
    weights = [parameters_of(replace(recipe, model=name)) / 1e6 for name in MODELS]
    frames = case.batch * case.video.frames
    note = (
        f"ratios {min(ratios):.2f} to {max(ratios):.2f} in {repeats} turns; {weights[0]:.2f}M and {weights[1]:.2f}M "
        f"parameters, {case.batch} clips of {case.video.frames} frames of {case.side} x {case.side}"
    )
    return [
        BenchRow(
            name=f"train-video: step of WuBu, {case.name}",
            value=ours,
            unit="s",
            baseline=theirs,
            ratio=statistics.median(ratios),
            against="the plain transformer",
            targets=(Target("ratio", "<=", SLOWEST),),
            note=note,
            figures={"least_ratio": min(ratios), "greatest_ratio": max(ratios)},
        ),
        BenchRow(
            name=f"train-video: frames, {case.name}",
            value=frames / ours,
            unit="frames/s",
            baseline=frames / theirs,
            ratio=statistics.median(theirs / ours for ours, theirs in turns),
            against="the plain transformer",
            note="given and predicted ones, on one core",
        ),
        BenchRow(
            name=f"train-video: kept for the gradient, {case.name}",
            value=kept["wubu"],
            unit="MB",
            baseline=kept["dit"],
            ratio=kept["wubu"] / kept["dit"],
            against="the plain transformer",
            note=f"at most {resident_bytes() / 1e6:.0f} MB resident in the process, with both models",
        ),
    ]


def made_clips(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return clips of moving shapes with their maps: u8 [B, T, H, W, 3], f32 [B, T, R, 4], f32 [B, T, M, 4]."""
    count, side = case.video.frames, case.side
    clips = [moving_shapes(count, side, side, seed=(0, number))[0] for number in range(case.batch)]
    maps = [region_maps(clip, None, case.video.regions) for clip in clips]
    regions, motion = (np.stack(part) for part in zip(*maps, strict=True))
    return torch.from_numpy(np.stack(clips)), torch.from_numpy(regions), torch.from_numpy(motion)


def _step(recipe: VideoRecipe, clips: tuple[Tensor, Tensor, Tensor]) -> Callable[[], None]:
    """Return an optimizer step on clips; each call takes the next ones' noise."""
    torch.manual_seed(0)
    model = build_video_model(recipe)
    assert isinstance(model, VideoModel)
    loss, optimizer = DiffusionLoss(model.train()), make_adamw(model, recipe.optim)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    filled = torch.ones(len(clips[0]), dtype=torch.bool)
    keys = torch.arange(len(clips[0]))

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        keys.add_(len(keys))
        loss(*clips, keys, filled)[0].mean().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return work


def kept_bytes(step: Callable[[], None]) -> int:
    """Return the bytes of all tensors that a step keeps for its backward pass, weights among them, each once."""
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()  # none is freed, and its place taken, before the backward pass
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(found.values())


def resident_bytes() -> int:
    """Return the most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
