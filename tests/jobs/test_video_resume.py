"""A video run that was stopped and resumed is the run that was never touched, in each of its stages."""

import json
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bytropix.datasets.store import Store
from bytropix.jobs.commands.train_video import TrainVideo
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.sharding import share_like
from bytropix.jobs.train import Training
from bytropix.jobs.video_clips import fitted
from bytropix.jobs.video_recipe import VideoRecipe, read_video_recipe
from bytropix.jobs.video_task import video_task

STEPS = 5


def losses(run: Path) -> list[float]:
    """Return the loss of each step, after checking that each is there once and in order."""
    lines = map(json.loads, (run / "log.jsonl").read_text("utf-8").splitlines())
    found = [row for row in lines if row["event"] == "step"]
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    return [row["loss"] for row in found]


def assert_same_tensors(one: Path, other: Path) -> None:
    """Compare weights, their means and moments of the latest checkpoints, bit for bit."""
    for name in ("model", "ema", "optimizer"):
        first, second = (load_file(RunFolder(run).latest() / f"{name}.safetensors") for run in (one, other))
        assert first.keys() == second.keys()
        for key, tensor in first.items():
            assert torch.equal(tensor, second[key]), f"{name} {key}"


def settings(path: Path, stage: Any, **fields: Any) -> VideoRecipe:
    """Return the recipe of a stage that evaluates nothing, with other fields of its loop."""
    recipe = read_video_recipe(path)
    loop = {"steps": STEPS, "evaluate_every": 0, "sample_clips": 0, "checkpoint_every": STEPS} | fields
    return replace(recipe, stage=stage, train=replace(recipe.train, **loop))


def training(recipe: VideoRecipe, store: Store, run: Path, autoencoder: Path | None) -> Training[Any]:
    """Return a training that goes on from what there is, and can begin with an autoencoder."""
    return Training(video_task(fitted(recipe, store)[0], store, autoencoder), run, resume=True)


def stop_after(one: Training[Any], step: int) -> None:
    """Train up to a step, as SIGTERM there would."""
    one_step = one._one_step

    def then_stop(*arguments: Any) -> bool:
        more = one_step(*arguments)
        if one.step == step:
            signal.raise_signal(signal.SIGTERM)
        return more

    one._one_step = then_stop  # type: ignore[method-assign]
    assert not one()


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion", "joint"])
def test_resuming_changes_nothing(
    stage: str, tiny_video: Path, clip_store: Store, trained_video: Path, tmp_path: Path
) -> None:
    """Stopped after steps 1 and 3, with dropout, noise, mirrored clips and mean weights: bit for bit that of one go.

    What a fresh run begins with, the autoencoder, is not asked for again.
    """
    recipe = settings(tiny_video, stage)
    autoencoder = trained_video / "autoencoder"
    assert training(recipe, clip_store, tmp_path / "straight", autoencoder)()
    for step, begun_with in ((1, autoencoder), (3, None)):
        stop_after(training(recipe, clip_store, tmp_path / "run", begun_with), step)
        torch.rand(17)
    assert training(recipe, clip_store, tmp_path / "run", None)()

    assert losses(tmp_path / "run") == losses(tmp_path / "straight")
    assert_same_tensors(tmp_path / "run", tmp_path / "straight")


def test_looking_at_a_run_does_not_touch_it(
    tiny_video: Path, clip_store: Store, trained_video: Path, tmp_path: Path
) -> None:
    """Evaluations and samples at each step leave the losses and the weights alone."""
    autoencoder = trained_video / "autoencoder"
    for name, fields in (("blind", {}), ("seen", {"evaluate_every": 1, "sample_clips": 1})):
        assert training(
            settings(tiny_video, "diffusion", steps=3, **fields), clip_store, tmp_path / name, autoencoder
        )()

    assert losses(tmp_path / "seen") == losses(tmp_path / "blind")
    assert_same_tensors(tmp_path / "seen", tmp_path / "blind")


def test_dropout_and_hidden_conditions_are_on_in_these_tests(
    tiny_video: Path, clip_store: Store, trained_video: Path, tmp_path: Path
) -> None:
    """Without either the tests above could not see it lost. What is given begins to count at the third step."""
    recipe = settings(tiny_video, "diffusion", steps=4)
    denoiser, diffusion = recipe.video.denoiser, recipe.video.diffusion
    videos = {
        "as it is": recipe.video,
        "no dropout": replace(recipe.video, denoiser=replace(denoiser, dropout=0.0)),
        "nothing hidden": replace(recipe.video, diffusion=replace(diffusion, condition_dropout=0.0)),
    }
    found = set()
    for name, video in videos.items():
        assert training(replace(recipe, video=video), clip_store, tmp_path / name, trained_video / "autoencoder")()
        found.add(tuple(losses(tmp_path / name)))

    assert len(found) == len(videos)


def test_accumulated_micro_batches_are_one_batch(
    tiny_video: Path, clip_store: Store, trained_video: Path, tmp_path: Path
) -> None:
    """Two batches of two clips give the losses of one batch of four, but for rounding: noise belongs to the clip."""
    recipe = settings(tiny_video, "diffusion", steps=3)
    recipe = replace(recipe, video=replace(recipe.video, denoiser=replace(recipe.video.denoiser, dropout=0.0)))
    found = []
    for batch, accumulate in ((2, 2), (4, 1)):
        one = replace(recipe, train=replace(recipe.train, batch=batch, accumulate=accumulate))
        assert training(one, clip_store, tmp_path / str(batch), trained_video / "autoencoder")()
        found.append(losses(tmp_path / str(batch)))

    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_moments_lie_in_memory_as_their_weights_do() -> None:
    """A fused AdamW walks through memory: the moments of a weight that lies otherwise would be another's."""
    weight = torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last)
    moment = torch.arange(48.0).view(4, 3, 2, 2)
    found = share_like(moment, weight)

    assert found.stride() == weight.stride() != moment.stride()
    assert torch.equal(found, moment)


def test_a_run_stopped_in_its_first_stage_goes_on_to_its_last(
    cli: Any,
    tiny_video: Path,
    clip_store_path: Path,
    trained_video: Path,
    tmp_path: Path,
    program: list[str],
    environment: dict[str, str],
) -> None:
    """--resume alone takes up the autoencoder where it was and trains the model behind it, as one go does."""
    run = tmp_path / "run"
    words = ["train", "video", "--store", str(clip_store_path), "--run", str(run), "--recipe", str(tiny_video)]
    words += ["--train.evaluate-every", "0", "--train.sample-clips", "0", "--train.checkpoint-every", "1"]
    log = run / "autoencoder" / "log.jsonl"
    with subprocess.Popen([*program, *words], env=environment, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (log.is_file() and '"step": 2' in log.read_text("utf-8")):
            time.sleep(0.002)
        process.terminate()
        said = process.communicate()[1]
    assert process.returncode == 3, said
    assert not RunFolder(run).checkpoints()

    answer = cli("train", "video", "--store", clip_store_path, "--run", run, "--resume")
    assert answer.code == 0, answer.err
    assert losses(run / "autoencoder") == losses(trained_video / "autoencoder")
    assert losses(run) == losses(trained_video)
    assert_same_tensors(run, trained_video)


@pytest.mark.parametrize(("stage", "stages"), [("diffusion", "all"), ("joint", "joint")])
def test_a_run_beside_its_autoencoder_resumes_in_its_own_stage(
    stage: Any, stages: str, tiny_video: Path, clip_store: Store, tmp_path: Path
) -> None:
    """Its config alone says which, with all that it was begun with."""
    recipe = settings(tiny_video, stage)
    RunFolder(tmp_path).keep(recipe, lambda folder: {})
    (tmp_path / "autoencoder").mkdir()
    command = TrainVideo.preset(["--run", str(tmp_path), "--resume"])

    assert command.stage == stages
    assert command.run_recipe() == recipe


def test_a_finished_run_resumes_to_its_end(cli: Any, clip_store_path: Path, trained_video: Path) -> None:
    """Nothing is left to do, in either stage, and nothing is done."""
    before = losses(trained_video)
    answer = cli("train", "video", "--store", clip_store_path, "--run", trained_video, "--resume")

    assert answer.code == 0, answer.err
    assert losses(trained_video) == before
    assert "autoencoder:" not in answer.err
