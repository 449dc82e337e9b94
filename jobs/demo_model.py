"""The second half of the video demo: small films of even motion to a model that tells their next frames.

FOLDER/motion-films -> FOLDER/motion.bx -> FOLDER/run: autoencoder, then diffusion
                                        -> held-out clips beside plain guesses -> FOLDER/comparison.png, .mp4
"""

import dataclasses
from importlib.resources import files
from pathlib import Path
from typing import Any

from bytropix.datasets.store import Store
from bytropix.jobs.commands.evaluate_video import compare_video
from bytropix.jobs.commands.train_video import TrainVideo
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.training_films import make_training_films
from bytropix.jobs.video_recipe import VideoRecipe, VideoSettings, read_video_recipe
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.video.sampling import SamplingConfig

FILMS, SIDE = 48, 64
VAL_FRACTION = 0.2
CLIPS = 64
# Few steps come near the mean of what may follow, which PSNR asks for; many draw one of the things that may.
SAMPLING = SamplingConfig(sampler="ddim", steps=2, guidance=1.0)
PICTURES = ("comparison.png", "comparison.mp4")


def make_motion_store(folder: Path, recipe: VideoRecipe) -> Store:
    """Make the films and ingest them, about a fifth of them to be held out."""
    films = folder / "motion-films"
    make_training_films(films, FILMS, size=(SIDE, SIDE))
    config = VideoConfig(size=(SIDE, SIDE), clip_frames=recipe.video.frames, val_fraction=VAL_FRACTION)
    return ingest_video([films], folder / "motion.bx", config, workers=2).store


def demo_recipe(path: Path | None) -> VideoRecipe:
    """Return the recipe in a file, or the demo's own.

    Raises:
        ConfigError: The file cannot be read, or is no recipe.
    """
    return read_video_recipe(path or Path(str(files("bytropix.jobs"))) / "recipes" / "demo-video.toml")


def train_on_films(folder: Path, store: Store, recipe: VideoRecipe) -> bool:
    """Train both stages; return whether the last step was reached, and not stopped before it."""
    settings = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(VideoSettings)}
    return TrainVideo(store=store.url, run=folder / "run", **settings)() == 0


def compare_on_films(folder: Path, store: Store) -> dict[str, Any]:
    """Score the model on the films held out, and draw its worst, median and best clip; return the figures."""
    out = [folder / name for name in PICTURES]
    return compare_video(RunFolder(folder / "run"), store, split="val", sampling=SAMPLING, at_most=CLIPS, out=out)
