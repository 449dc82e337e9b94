"""Acceptance test 12: bfloat16 stays near float32, and many steps stay finite."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bytropix.datasets.clip_batch import ClipBatch
from bytropix.datasets.store import Store
from bytropix.jobs.video_clips import clips_of, fitted
from bytropix.jobs.video_looks import pieces
from bytropix.jobs.video_recipe import VideoRecipe, build_video_model, read_video_recipe
from bytropix.jobs.video_totals import DiffusionTotal
from bytropix.optim import OptimConfig, make_adamw
from bytropix.video.model import VideoModel

MANY = 100  # a thousand take a minute and a half of a core


@pytest.fixture(scope="module")
def recipe(tiny_video: Path, clip_store_path: Path) -> VideoRecipe:
    """The tiny recipe without dropout, on the regions of the store."""
    recipe = fitted(read_video_recipe(tiny_video), Store.open(clip_store_path))[0]
    return replace(recipe, video=replace(recipe.video, denoiser=replace(recipe.video.denoiser, dropout=0.0)))


@pytest.fixture(scope="module")
def clips(recipe: VideoRecipe, clip_store_path: Path) -> ClipBatch:
    """Four clips."""
    return next(iter(clips_of(recipe, Store.open(clip_store_path), batch=4, prefetch=False)))


def train(model: VideoModel, clips: ClipBatch, steps: int, *, lr: float, bfloat16: bool = False) -> list[torch.Tensor]:
    """Train on the same clips with other noise at each step; return the losses."""
    total = DiffusionTotal(model, seed=0)
    optimizer = make_adamw(model, OptimConfig(lr=lr))
    losses = []
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss, _ = total(clips, step * clips.rows + torch.arange(clips.rows))
        (loss / clips.rows).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach() / clips.rows)
    return losses


def fresh(recipe: VideoRecipe) -> VideoModel:
    """Return the model, always with the same first weights."""
    torch.manual_seed(0)
    model = build_video_model(recipe)
    assert isinstance(model, VideoModel)
    return model


def test_bfloat16_stays_near_float32(recipe: VideoRecipe, clips: ClipBatch) -> None:
    """Twenty steps from the same weights: each loss within 2 %, the last curvatures and scales within 1e-2."""
    exact, rounded = fresh(recipe), fresh(recipe)
    wanted = torch.stack(train(exact, clips, 20, lr=2e-3))
    found = torch.stack(train(rounded, clips, 20, lr=2e-3, bfloat16=True))

    assert not torch.equal(found, wanted)
    assert float((found / wanted - 1).abs().max()) < 0.02
    for tag, value in exact.scalars().items():
        assert float(rounded.scalars()[tag]) == pytest.approx(float(value), abs=1e-2), tag


def test_many_steps_stay_finite(recipe: VideoRecipe, clips: ClipBatch) -> None:
    """At a high learning rate, in bfloat16: every loss is a number, every weight too, and something was learned."""
    model = fresh(recipe)
    losses = torch.stack(train(model, next(pieces(clips, 2)), MANY, lr=1e-2, bfloat16=True))

    assert bool(losses.isfinite().all())
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert float(losses[-MANY // 4 :].mean()) < float(losses[: MANY // 4].mean())
