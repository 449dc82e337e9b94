"""Benchmarks of video models at tiny sizes: fair comparisons, one change at a time, figures that add up."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bytropix.config import to_plain
from bytropix.gaad import RegionConfig
from bytropix.jobs.bench.ablate_video import FULL, VARIANTS, Plan, _row, ablate
from bytropix.jobs.bench.train_video import BATCH, CASES, Case, compare, kept_bytes, made_clips
from bytropix.jobs.video_recipe import parameters_of
from bytropix.nesting.config import LevelConfig, NestingConfig
from bytropix.video.config import AutoencoderConfig, ContextConfig, DenoiserConfig, StackConfig, VideoModelConfig
from bytropix.video.sampling import SamplingConfig

STACK = StackConfig(nesting=NestingConfig(levels=(LevelConfig(dim=8), LevelConfig(dim=4))), output=8)
TINY = VideoModelConfig(
    given_frames=2,
    predicted_frames=1,
    autoencoder=AutoencoderConfig(stride=8, latent_channels=4, width=8, blocks=0),
    regions=RegionConfig(regions=4, motion_regions=2, adaptive=True),
    context=ContextConfig(features=8, region_width=8, width=16, spatial=STACK, motion=STACK, temporal=STACK),
    denoiser=DenoiserConfig(width=16, depth=1, heads=2),
)


def test_steps_are_timed_against_a_model_that_weighs_the_same() -> None:
    """Three rows: the time of a step with its bound and the spread of the ratios, frames a second, and memory."""
    rows = compare(Case("tiny", 32, TINY, batch=2), 2)
    step, frames, kept = rows

    assert [row.unit for row in rows] == ["s", "frames/s", "MB"]
    assert all(row.name.startswith("train-video: ") and row.value and row.baseline and row.ratio for row in rows)
    assert (step.targets[0].sign, step.targets[0].bound) == ("<=", 1.3)
    assert step.figures["least_ratio"] <= step.ratio <= step.figures["greatest_ratio"]  # type: ignore[operator]
    assert frames.value == pytest.approx(2 * 3 / step.value)  # type: ignore[operator]
    assert kept.value > 0  # type: ignore[operator]


def test_clips_are_as_the_model_takes_them() -> None:
    """Shapes that move in every clip, with the regions that the model is made for."""
    frames, regions, motion = made_clips(Case("tiny", 32, TINY, batch=3))

    assert frames.shape == (3, 3, 32, 32, 3)
    assert (regions.shape, motion.shape) == ((3, 3, 4, 4), (3, 3, 2, 4))
    assert ((frames[:, 1:].int() - frames[:, :-1].int()).abs().amax((1, 2, 3, 4)) > 40).all()
    assert CASES[-1].video == VideoModelConfig()
    assert CASES[-1].batch == BATCH


def test_what_is_kept_for_the_gradient_is_counted_once() -> None:
    """X and its square are kept by a cube, the weight and the input by a product; views of one tensor count once."""
    x = torch.ones(1000, requires_grad=True)

    assert kept_bytes(lambda: (x * x.detach()).sum().backward()) == 4000
    assert kept_bytes(lambda: (x * 2.0).sum().backward()) == 0
    assert kept_bytes(lambda: (x[:500] * x[500:]).sum().backward()) == 4000
    assert kept_bytes(lambda: (x * x).exp().sum().backward()) == 8000


def changed(one: Any, other: Any, where: str = "") -> set[str]:
    """Return the names of fields in which two plain configs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {name for key in one.keys() | other for name in changed(one.get(key), other.get(key), f"{where}.{key}")}
    return set() if one == other else {where}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (FULL, set()),
        ("without M", {".video.context.motion.on"}),
        ("without T", {".video.context.temporal.on"}),
        ("Euclidean", {f".video.context.{stack}.nesting.space" for stack in ("spatial", "motion", "temporal")}),
        ("static maps", {".video.regions.adaptive", ".video.region_maps"}),
        ("grid maps", {".video.regions.adaptive", ".video.regions.decomposition", ".video.region_maps"}),
        ("plain (dit)", {".model"}),
    ],
)
def test_variants_change_one_thing(name: str, fields: set[str]) -> None:
    """A variant's recipe differs from the full one in what its name says; steps, seed and optimizer are the same."""
    recipe = Plan().recipe(1)
    variant = VARIANTS[name](recipe)

    assert changed(to_plain(recipe), to_plain(variant)) == fields
    assert set(VARIANTS) == {FULL, "without M", "without T", "Euclidean", "static maps", "grid maps", "plain (dit)"}


def test_the_yardstick_weighs_what_the_full_model_weighs() -> None:
    """Within two per cent; without a part a model is lighter, with another geometry or other maps it is not."""
    recipe = Plan().recipe(0)
    weights = {name: parameters_of(change(recipe)) for name, change in VARIANTS.items()}

    assert weights["plain (dit)"] == pytest.approx(weights[FULL], rel=0.02)
    assert weights["without M"] < weights[FULL]
    assert weights["without T"] < weights[FULL]
    assert weights["static maps"] == weights["grid maps"] == weights[FULL]
    assert weights["Euclidean"] == pytest.approx(weights[FULL], abs=6)  # no curvatures


def test_variants_are_trained_and_compared(tmp_path: Path) -> None:
    """On one store and autoencoder, each seed of each variant is trained and scored on the same val clips."""
    plan = Plan(
        films=10,
        side=32,
        film_frames=8,
        video=TINY,
        steps=2,
        autoencoder_steps=2,
        batch=2,
        val_clips=4,
        val_fraction=0.4,
        sampling=SamplingConfig(steps=2, guidance=1.0),
    )
    chosen = {name: VARIANTS[name] for name in (FULL, "grid maps")}
    full, grid = ablate(tmp_path, plan, [0], chosen)

    assert (full.name, grid.name) == ("ablate-video: full", "ablate-video: grid maps")
    assert math.isfinite(full.value or math.nan)
    assert full.figures["difference"] == 0
    assert grid.figures["difference"] == pytest.approx((grid.value or 0) - (full.value or 0))
    assert full.figures["clips"] == grid.figures["clips"] > 0
    assert full.figures["bound"] == grid.figures["bound"]


def figures(gain: float) -> dict[str, Any]:
    """Return what a run was measured at."""
    scores = {name: {"psnr": {"by_frame": [psnr]}} for name, psnr in (("model", 20 + gain), ("autoencoder", 40.0))}
    return {"next_frame_gain_db": gain, "scores": scores, "step_seconds": 0.1, "parameters": 1000, "clips": 9}


def test_means_and_spreads_are_over_seeds() -> None:
    """The difference is taken seed by seed: what all variants of a seed have in common does not spread it."""
    full, variant = [figures(gain) for gain in (1.0, 3.0, 5.0)], [figures(gain) for gain in (2.0, 4.0, 6.0)]
    row = _row("grid maps", variant, full)

    assert row.value == pytest.approx(4)
    assert row.figures["spread"] == pytest.approx(2)
    assert (row.figures["difference"], row.figures["difference_spread"]) == (pytest.approx(1), pytest.approx(0))
    assert (row.figures["psnr"], row.figures["step_ms"]) == (pytest.approx(24), pytest.approx(100))
    assert [row.figures[f"seed_{number}"] for number in range(3)] == [2, 4, 6]
    assert _row("x", variant[:1], full[:1]).figures["spread"] == 0


def test_seeds_are_of_weights_and_order() -> None:
    """Two seeds give recipes that differ in the seed alone."""
    plan = replace(Plan(), steps=7)

    assert changed(to_plain(plan.recipe(0)), to_plain(plan.recipe(2))) == {".train.seed"}
    assert plan.recipe(0).train.steps == 7
