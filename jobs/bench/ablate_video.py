"""What the parts of the video model are good for: each left out in turn, all else alike.

made films -> store with maps that follow the picture -> an autoencoder, once -> variant x seed -> the training loop
           -> val clips, predicted -> PSNR of the next frame over that of the last one copied -> mean and spread

Variants share films, autoencoder, steps, the noise of the val clips, and for the same seed the order of clips. The
plain transformer weighs as much as the full model; a variant without a part is lighter by that part.
"""

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bytropix.datasets.store import Store
from bytropix.gaad.config import RegionConfig
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, torch_threads
from bytropix.jobs.bench.small_context import small_context
from bytropix.jobs.commands.evaluate_video import compare_video
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training
from bytropix.jobs.training_films import make_training_films
from bytropix.jobs.video_recipe import VideoRecipe, VideoTrainConfig, matched, parameters_of
from bytropix.jobs.video_task import video_task
from bytropix.optim import OptimConfig
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.video.config import (
    AutoencoderConfig,
    DenoiserConfig,
    DiffusionConfig,
    VideoModelConfig,
)
from bytropix.video.sampling import SamplingConfig

MOST_SEEDS = 3
FULL = "full"
STACKS = ("spatial", "motion", "temporal")


def _small_model() -> VideoModelConfig:
    return VideoModelConfig(
        given_frames=3,
        predicted_frames=1,
        autoencoder=AutoencoderConfig(stride=4, latent_channels=4, width=32, blocks=0),
        regions=RegionConfig(adaptive=True),
        context=small_context(),
        denoiser=DenoiserConfig(width=96, depth=3),
        diffusion=DiffusionConfig(residual="last", min_snr=0.0),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Sizes of the whole bench: about twenty minutes of one core."""

    films: int = 64
    side: int = 32
    """Pixels of a frame, down and across."""
    film_frames: int = 32
    video: VideoModelConfig = field(default_factory=_small_model)
    steps: int = 200
    autoencoder_steps: int = 200
    batch: int = 16
    val_clips: int = 48
    val_fraction: float = 0.2
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(steps=10, guidance=1.0))

    def recipe(self, seed: int) -> VideoRecipe:
        """Return the full model's recipe, for one seed."""
        train = VideoTrainConfig(
            steps=self.steps,
            autoencoder_steps=self.autoencoder_steps,
            batch=self.batch,
            seed=seed,
            hop=1,
            ema=0.98,
            evaluate_every=0,
            checkpoint_every=10**6,
            log_every=100,
            sample_clips=0,
            evaluate_clips=1,
            device="cpu",
        )
        optim = OptimConfig(lr=2e-3, warmup=30, final_share=0.05, weight_decay=0.01, beta2=0.99)
        return matched(VideoRecipe(video=self.video, train=train, optim=optim))


Change = Callable[[VideoRecipe], VideoRecipe]


def _context(recipe: VideoRecipe, **changes: Any) -> VideoRecipe:
    context = replace(recipe.video.context, **changes)
    return replace(recipe, video=replace(recipe.video, context=context))


def _without(stack: str) -> Change:
    return lambda recipe: _context(recipe, **{stack: replace(getattr(recipe.video.context, stack), on=False)})


def _euclidean(recipe: VideoRecipe) -> VideoRecipe:
    stacks = {name: getattr(recipe.video.context, name) for name in STACKS}
    flat = {name: replace(stack, nesting=replace(stack.nesting, space="euclidean")) for name, stack in stacks.items()}
    return _context(recipe, **flat)


def _mapped(**changes: Any) -> Change:
    def change(recipe: VideoRecipe) -> VideoRecipe:
        regions = replace(recipe.video.regions, adaptive=False, **changes)
        return replace(recipe, video=replace(recipe.video, regions=regions, region_maps="recomputed"))

    return change


VARIANTS: dict[str, Change] = {
    FULL: lambda recipe: recipe,
    "without M": _without("motion"),
    "without T": _without("temporal"),
    "Euclidean": _euclidean,
    "static maps": _mapped(),
    "grid maps": _mapped(decomposition="grid"),
    "plain (dit)": lambda recipe: replace(recipe, model="dit"),
}


def bench_ablate_video(settings: BenchSettings) -> list[BenchRow]:
    """Train every variant with as many seeds as there are repeats, three at most, on one core."""
    with torch_threads(1):
        return ablate(settings.folder, Plan(), range(min(settings.repeats, MOST_SEEDS)), VARIANTS)


def ablate(folder: Path, plan: Plan, seeds: Sequence[int], variants: Mapping[str, Change]) -> list[BenchRow]:
    """Return a row for each variant; the first one is what the others are compared with.

    Args:
        folder: An empty folder.
        plan: Sizes.
        seeds: Of weights and the order of clips.
        variants: What is trained, by name.
    """
    make_training_films(folder / "films", plan.films, size=(plan.side, plan.side), frames=plan.film_frames)
    config = VideoConfig(
        size=(plan.side, plan.side),
        clip_frames=plan.video.frames,
        val_fraction=plan.val_fraction,
        regions=plan.video.regions,
    )
    store = ingest_video([folder / "films"], folder / "films.bx", config).store
    autoencoder = folder / "autoencoder"
    Training(video_task(plan.recipe(0).of_autoencoder(), store), autoencoder, resume=False)()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for seed in seeds:  # seed by seed, so that a slow machine's first figures are of all variants
        for name, change in variants.items():
            found[name].append(_measured(folder / "run", change(plan.recipe(seed)), store, autoencoder, plan))
            print(f"{name}, seed {seed}: {found[name][-1]['next_frame_gain_db']:+.2f} dB", file=sys.stderr, flush=True)
    base = next(iter(found.values()))
    return [_row(name, figures, base) for name, figures in found.items()]


def _measured(run: Path, recipe: VideoRecipe, store: Store, autoencoder: Path, plan: Plan) -> dict[str, Any]:
    """Train one run, score it, and forget it."""
    shutil.rmtree(run, ignore_errors=True)
    began = time.process_time()
    Training(video_task(recipe, store, autoencoder), run, resume=False)()
    seconds = time.process_time() - began
    figures = compare_video(
        RunFolder(run), store, split="val", sampling=plan.sampling, at_most=plan.val_clips, device="cpu"
    )
    return figures | {"parameters": parameters_of(recipe), "step_seconds": seconds / plan.steps}


def _row(name: str, found: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> BenchRow:
    """Return the mean of a variant's gains, their spread over seeds, and how they differ from the first variant's."""
    gains, others = ([float(figures["next_frame_gain_db"]) for figures in rows] for rows in (found, base))
    apart = [ours - theirs for ours, theirs in zip(gains, others, strict=True)]
    bound = found[0]["scores"]["autoencoder"]["psnr"]["by_frame"][0]
    psnr = statistics.mean(figures["scores"]["model"]["psnr"]["by_frame"][0] for figures in found)
    step = 1e3 * statistics.mean(figures["step_seconds"] for figures in found)
    return BenchRow(
        name=f"ablate-video: {name}",
        value=statistics.mean(gains),
        unit="dB",
        note=(
            f"+-{_spread(gains):.2f} over {len(gains)} seeds; {statistics.mean(apart):+.2f} +-{_spread(apart):.2f} "
            f"against the first; next frame {psnr:.2f} dB, latents' bound {bound:.2f}; "
            f"{found[0]['parameters'] / 1e6:.2f}M, {step:.0f} ms a step"
        ),
        figures={
            "spread": _spread(gains),
            "difference": statistics.mean(apart),
            "difference_spread": _spread(apart),
            "psnr": psnr,
            "bound": bound,
            "parameters": found[0]["parameters"],
            "step_ms": step,
            "clips": found[0]["clips"],
        }
        | {f"seed_{number}": gain for number, gain in enumerate(gains)},
    )


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation; 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
