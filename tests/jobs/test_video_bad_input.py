"""What a video training is refused with: one line that names what is wrong and what to do."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, RunError
from bytropix.gaad.config import RegionConfig
from bytropix.gaad.maps import region_maps
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training
from bytropix.jobs.video_clips import clips_of, fitted
from bytropix.jobs.video_looks import pieces
from bytropix.jobs.video_recipe import VideoRecipe, build_video_model, read_video_recipe
from bytropix.jobs.video_task import DiffusionTask, video_task


@pytest.fixture
def train(cli: Any, clip_store_path: Path, tiny_video: Path, tmp_path: Path) -> Any:
    """`train(flags, ...)` trains the tiny recipe on the store of clips, or on another."""

    def call(*flags: object, store: object = clip_store_path) -> Any:
        words = ("--store", store, "--run", tmp_path / "run", "--recipe", tiny_video)
        return cli("train", "video", *words, *flags)

    return call


def test_a_store_of_bytes_is_refused(train: Any, store_path: Path, tmp_path: Path) -> None:
    """By name, with the command that takes it, and nothing is written."""
    line = train(store=store_path).refusal()

    assert str(store_path) in line
    assert "a store of bytes, not of video; train it with `bytropix train bytes`" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--video.given-frames", 18, "--video.predicted-frames", 7),
            "no clip of 25 frames (18 given + 7 predicted), 1 apart: its longest scene has 20; lower --video.given-",
        ),
        (
            ("--train.frame-steps", 6),
            "no clip of 5 frames (3 given + 2 predicted), 6 apart: its longest scene has 20; lower --video.given-",
        ),
        (
            ("--video.autoencoder.stride", 16, "--video.denoiser.patch", 4),
            "frames of 32 x 32 give a latent grid of 2 x 2, less than a token of 4 x 4: take a smaller --video.auto",
        ),
        (("--stage", "diffusion"), "begins with a trained autoencoder, and"),
        (("--stage", "all", "--autoencoder", "elsewhere"), "--autoencoder is for --stage diffusion or joint"),
        (("--wubu-s.hyperbolic-dims", 8, 4), "--wubu-s lists need --wubu-s.num-levels"),
        (("--wubu-m.num-levels", 2, "--wubu-m.hyperbolic-dims", 8), "hyperbolic_dims needs 2 values for num_levels 2"),
        (
            ("--model", "dit", "--wubu-t.num-levels", 1, "--wubu-t.hyperbolic-dims", 8),
            "--model dit has no levels: leave out --wubu-t",
        ),
        (("--gaad-num-regions", 0), "regions must be a whole number from 1 to 256, got 0"),
        (("--video.context.motion.no-on", "--video.context.spatial.no-on"), "turn one of them on"),
        (("--train.batch", 0), "train.batch must be at least 1, got 0"),
    ],
)
def test_what_cannot_work_is_named(train: Any, flags: tuple[object, ...], message: str, tmp_path: Path) -> None:
    """With its numbers, before anything is written or trained."""
    line = train(*flags).refusal()

    assert message in line
    assert not (tmp_path / "run").exists()


def test_an_autoencoder_of_another_config_is_refused(train: Any, trained_video: Path, tmp_path: Path) -> None:
    """The fields that differ are named, with both values; a run of bytes is none at all."""
    words = ("--stage", "diffusion", "--autoencoder", trained_video / "autoencoder")
    line = train(*words, "--video.autoencoder.width", 16).refusal()

    assert f"{trained_video / 'autoencoder'}: its autoencoder is of another config (width is 8, asked for 16)" in line
    assert not (tmp_path / "run").exists()


def test_a_run_of_bytes_has_no_autoencoder(train: Any, trained: Path, cli: Any, clip_store_path: Path) -> None:
    """Neither is it taken for one, nor resumed as a video run."""
    assert "a run of a bytes model" in train("--stage", "joint", "--autoencoder", trained).refusal()
    assert (
        "a run of a bytes model"
        in cli("train", "video", "--store", clip_store_path, "--run", trained, "--resume").refusal()
    )


def test_a_taken_folder_is_refused(train: Any, trained_video: Path, cli: Any, clip_store_path: Path) -> None:
    """A run that is there needs --resume, and resumes with its own config alone."""
    words = ("train", "video", "--store", clip_store_path, "--run", trained_video)
    assert "a run is already there; go on with --resume" in cli(*words).refusal()
    line = cli(*words, "--resume", "--video.denoiser.width", 32).refusal()
    assert "made with another config (video.denoiser.width: 16 there, 32 asked)" in line


def test_region_counts_that_differ_are_made_anew(train: Any, tmp_path: Path) -> None:
    """Asked for by flag, other regions than the store's are computed from the frames, and that is said."""
    loop = ("--train.steps", 1, "--train.autoencoder-steps", 1, "--train.sample-clips", 0)
    answer = train("--gaad-num-regions", 6, "--gaad-decomposition-type", "subdivide", *loop)

    assert answer.code == 0, answer.err
    assert (
        "region maps are made anew from the frames (subdivide, 6 regions, 2 motion regions): the store's are hybrid, "
        "4 regions, 2 motion regions" in answer.err
    )
    video = RunFolder(tmp_path / "run").recipe(VideoRecipe).video
    assert video.region_maps == "recomputed"
    assert video.regions == RegionConfig(regions=6, decomposition="subdivide", motion_regions=2)


def test_regions_of_a_recipe_that_the_store_has_otherwise_are_told_of(tiny_video: Path, clip_store: Store) -> None:
    """The store's are taken, in one line that says what was asked for and how to get it; defaults are no wish."""
    recipe = read_video_recipe(tiny_video)
    asked = replace(recipe, video=replace(recipe.video, regions=RegionConfig(regions=5, adaptive=True)))
    found, notices = fitted(asked, clip_store)

    assert found.video.regions == RegionConfig(regions=4, motion_regions=2)
    assert len(notices) == 1
    assert "not those of video.regions (adaptive True, motion_regions 4, regions 5)" in notices[0]
    assert "--video.region-maps recomputed" in notices[0]
    assert fitted(recipe, clip_store)[1] == []


@pytest.mark.parametrize(("steps", "made"), [((1,), "store"), ((2,), "recomputed"), ((1, 2), "recomputed")])
def test_motion_is_that_between_the_frames_of_a_clip(
    steps: tuple[int, ...], made: str, tiny_video: Path, clip_store: Store
) -> None:
    """The store's motion regions are those of neighbours, so clips of frames further apart get others, and it is said.

    Sampling, which has such frames alone, finds the same.
    """
    recipe = read_video_recipe(tiny_video)
    recipe, notices = fitted(replace(recipe, train=replace(recipe.train, frame_steps=steps)), clip_store)
    batch = next(iter(clips_of(recipe, clip_store, batch=4, prefetch=False)))

    assert made == recipe.video.region_maps
    assert len(notices) == (made == "recomputed")
    for frames, motion in zip(batch.frames.numpy(), batch.motion.numpy(), strict=True):
        found = region_maps(frames, None, recipe.video.regions)[1]
        assert np.array_equal(motion[1:], found[1:])


class Poisoned(nn.Module):
    """A loss that is not a number at some of its calls."""

    def __init__(self, inner: nn.Module, bad: set[int]) -> None:
        super().__init__()
        self.inner, self.calls, self._bad = inner, 0, bad

    def forward(self, batch: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the loss within returns, or NaN."""
        total, tallies = self.inner(batch, positions)
        self.calls += 1
        return (total * float("nan") if self.calls in self._bad else total), tallies


class PoisonedTask(DiffusionTask):
    """A task whose loss is not a number at some steps."""

    bad: set[int]

    def loss(self, model: nn.Module) -> nn.Module:
        """Return the poisoned loss."""
        return Poisoned(super().loss(model), self.bad)


def poisoned(path: Path, store: Store, autoencoder: Path, run: Path, bad: set[int]) -> Training[Any]:
    """Return a training of six steps that may leave out two."""
    recipe = read_video_recipe(path)
    loop = {"evaluate_every": 0, "sample_clips": 0, "checkpoint_every": 1, "log_every": 1, "bad_steps": 2}
    recipe = replace(recipe, train=replace(recipe.train, **loop))
    task = PoisonedTask(fitted(recipe, store)[0], store, autoencoder)
    task.bad = bad
    return Training(task, run, resume=False)


def test_a_loss_that_is_no_number_is_left_out_and_counted(
    tiny_video: Path, clip_store: Store, trained_video: Path, tmp_path: Path
) -> None:
    """Two such steps of six change nothing; the run ends with finite weights."""
    training = poisoned(tiny_video, clip_store, trained_video / "autoencoder", tmp_path / "run", {2, 4})

    assert training()
    text = (tmp_path / "run" / "log.jsonl").read_text("utf-8")
    assert text.count('"skipped": true') == 2
    assert all(bool(weight.isfinite().all()) for weight in training.model.parameters())


def test_too_many_of_them_end_the_run_and_name_the_last_good_checkpoint(
    tiny_video: Path, clip_store: Store, trained_video: Path, tmp_path: Path
) -> None:
    """The third is one too many: the checkpoint before it is named, and is finite."""
    training = poisoned(tiny_video, clip_store, trained_video / "autoencoder", tmp_path / "run", {3, 4, 5})

    with pytest.raises(RunError, match=r"the last good checkpoint is .*step-00000004"):
        training()


def test_a_fresh_diffusion_needs_an_autoencoder(tiny_video: Path, clip_store: Store, tmp_path: Path) -> None:
    """Random latents would be diffused otherwise."""
    recipe = fitted(read_video_recipe(tiny_video), clip_store)[0]

    with pytest.raises(ConfigError, match="begins with a trained autoencoder"):
        Training(video_task(recipe, clip_store), tmp_path / "run", resume=False)


def test_damage_ends_the_run_and_is_named(train: Any, clip_store_path: Path, tmp_path: Path) -> None:
    """A bit of a frame has changed: its file is named."""
    damaged = Path(shutil.copytree(clip_store_path, tmp_path / "damaged.bx"))
    file = next((damaged / "parts" / "train").rglob("frames/c/0/0/0/0"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))

    answer = train(store=damaged)

    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith(f"bytropix: {damaged / 'parts' / 'train'}")
    assert "is damaged" in answer.err


def test_a_row_without_a_clip_counts_nothing(tiny_video: Path, clip_store: Store) -> None:
    """Left out since it was damaged, say: neither in the loss nor in the tallies, in either stage."""
    recipe = fitted(read_video_recipe(tiny_video), clip_store)[0]
    clips = next(iter(clips_of(recipe, clip_store, batch=3, prefetch=False)))
    holed = replace(clips, video=torch.tensor([0, -1, 0]), frames=clips.frames.clone(), clips=2)
    holed.frames[1] = 0
    for stage in ("autoencoder", "diffusion"):
        one = replace(recipe, stage=stage)  # type: ignore[arg-type]
        torch.manual_seed(0)
        loss = video_task(one, clip_store).loss(build_video_model(one).eval())
        with torch.no_grad():
            whole, tallies = loss(holed, torch.arange(3))
            parts = [loss(part, torch.tensor([row])) for row, part in enumerate(pieces(clips, 1)) if row != 1]

        assert float(whole) == pytest.approx(sum(float(part[0]) for part in parts), rel=1e-4)
        assert float(tallies[:, 1].sum()) == 2
        assert torch.allclose(tallies, parts[0][1] + parts[1][1], rtol=1e-4)
