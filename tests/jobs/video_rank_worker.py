"""What every rank of `test_video_ranks.py` runs under a real torchrun, one run after the other in one process.

video_rank_worker.py STORE RECIPE AUTOENCODER FOLDER -> runs in FOLDER: autoencoder-ddp, diffusion-fsdp, ...
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bytropix.datasets.store import Store
from bytropix.jobs.ranks import ALONE, Ranks, joined
from bytropix.jobs.train import Training
from bytropix.jobs.video_clips import fitted
from bytropix.jobs.video_recipe import VideoRecipe, read_video_recipe
from bytropix.jobs.video_task import video_task

CASES: tuple[tuple[Any, Any], ...] = (
    ("autoencoder", "ddp"),
    ("diffusion", "ddp"),
    ("diffusion", "fsdp"),
    ("joint", "fsdp"),
)
STEPS = 3


def run_all(store: Path, recipe: Path, autoencoder: Path, folder: Path, ranks: Ranks) -> None:
    """Train every case, without the dropout that ranks draw apart."""
    for stage, shard in CASES:
        if ranks is ALONE and shard == "fsdp" and stage == "diffusion":
            continue  # alone it is what ddp is
        video = Store.open(store)
        task = video_task(fitted(settings(recipe, stage, shard), video)[0], video, autoencoder)
        assert Training(task, folder / f"{stage}-{shard}", resume=False, ranks=ranks)()


def settings(path: Path, stage: Any, shard: Any) -> VideoRecipe:
    """Return the recipe of a case."""
    recipe = read_video_recipe(path)
    denoiser = replace(recipe.video.denoiser, dropout=0.0)
    loop = {"steps": STEPS, "evaluate_every": 0, "sample_clips": 0, "checkpoint_every": STEPS, "log_every": 1}
    train = replace(recipe.train, **loop, shard=shard)
    return replace(recipe, stage=stage, video=replace(recipe.video, denoiser=denoiser), train=train)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as found:
        run_all(*map(Path, sys.argv[1:5]), found)
