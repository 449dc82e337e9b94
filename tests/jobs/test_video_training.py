"""Training a video model in stages: what each learns, keeps and shows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bytropix.datasets.store import Store
from bytropix.gaad.config import RegionConfig
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training
from bytropix.jobs.training_films import make_training_films
from bytropix.jobs.video_clips import clips_of, fitted, measured_frames
from bytropix.jobs.video_recipe import VideoRecipe, build_video_model, read_video_recipe
from bytropix.jobs.video_task import video_task
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.video.model import VideoModel

TWO_STEPS = ("--train.steps", 2, "--train.autoencoder-steps", 2)


def rows(run: Path, event: str = "step") -> list[dict[str, Any]]:
    """Return the rows of log.jsonl about an event."""
    lines = map(json.loads, (run / "log.jsonl").read_text("utf-8").splitlines())
    return [row for row in lines if row["event"] == event]


def weights(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    """Return the tensors of a file of the latest checkpoint."""
    return load_file(RunFolder(run).latest() / f"{name}.safetensors")


def events(run: Path) -> EventAccumulator:
    """Return what TensorBoard reads of a run."""
    return EventAccumulator(str(run), size_guidance={"images": 0}).Reload()


def short(recipe: VideoRecipe, **fields: Any) -> VideoRecipe:
    """Return the recipe of a run of two steps that is never looked at, with other fields of its loop."""
    loop = {"steps": 2, "evaluate_every": 0, "sample_clips": 0, "log_every": 1} | fields
    return replace(recipe, train=replace(recipe.train, **loop))


def trained(recipe: VideoRecipe, store: Store, run: Path, autoencoder: Path | None) -> Training[Any]:
    """Return a training that has come to its last step."""
    training = Training(video_task(fitted(recipe, store)[0], store, autoencoder), run, resume=False)
    assert training()
    return training


@pytest.fixture(scope="module")
def recipe(tiny_video: Path) -> VideoRecipe:
    """The recipe of a tiny video model."""
    return read_video_recipe(tiny_video)


def test_the_model_begins_with_the_mean_of_the_autoencoder(trained_video: Path) -> None:
    """Not with its last weights, which differ; what was trained later did not change it; and it is whole by itself."""
    inner = trained_video / "autoencoder"
    means, last, model = weights(inner, "ema"), weights(inner), weights(trained_video)

    assert means.keys() == {name for name in last if not name.startswith("latent_")}
    for name, mean in means.items():
        assert torch.equal(model[f"autoencoder.{name}"], mean), name
    assert any(not torch.equal(last[name], mean) for name, mean in means.items())
    assert not any(name.startswith("autoencoder") for name in weights(trained_video, "ema"))


def test_latents_have_unit_size(trained_video: Path, clip_store: Store) -> None:
    """Each channel of the train split's latents has mean 0 and deviation 1: measured over 1 000 frames, and kept."""
    found = RunFolder(trained_video).recipe(VideoRecipe)
    model = RunFolder(trained_video).load(build_video_model(found))
    assert isinstance(model, VideoModel)
    frames = torch.cat(list(measured_frames(found, clip_store)))
    latents = model.encode(frames)

    assert frames.shape[0] * frames.shape[1] >= 1000
    assert latents.mean((0, 1, 3, 4)) == pytest.approx(torch.zeros(4), abs=1e-3)
    assert latents.std((0, 1, 3, 4)) == pytest.approx(torch.ones(4), abs=1e-3)
    assert float(model.autoencoder.latent_std_C.sub(1).abs().max()) > 1e-3


def test_both_stages_learn(trained_video: Path) -> None:
    """On val clips, with the same noise, the loss is lower at the end than halfway."""
    for run in (trained_video, trained_video / "autoencoder"):
        first, last = rows(run, "evaluate")
        assert last["eval/loss"] < first["eval/loss"], run


def test_a_run_keeps_what_samplers_need_of_its_store(trained_video: Path, clip_store: Store) -> None:
    """How frames were made and their size; the regions that the model saw are in its recipe."""
    kept = json.loads((trained_video / "store.json").read_text())

    assert kept["config"] == clip_store.manifest.config
    assert kept["size"] == [32, 32]
    assert RunFolder(trained_video).kind() == "video"
    assert RunFolder(trained_video).recipe(VideoRecipe).video.regions == RegionConfig(regions=4, motion_regions=2)


def test_tensorboard_has_it_all(trained_video: Path) -> None:
    """Losses, by timestep too, levels of all three stacks, gradients by part, speeds, and pictures that open."""
    found = events(trained_video)
    scalars = set(found.Tags()["scalars"])
    levels = {f"levels/{stack}/{n}/{what}" for stack in "SMT" for n in (0, 1) for what in ("curvature", "scale")}
    parts = {
        f"grad_norm/{name}" for name in ("all", "denoiser", "context/spatial", "context/motion", "context/temporal")
    }
    wanted = {"loss/train", "eval/loss", "eval/psnr_db", "eval/copy_last_psnr_db", "optim/lr", "optim/skipped_steps"}
    wanted |= {"speed/clips_per_second", "speed/frames_per_second", "time/data_wait_pct", "levels/T/1/spread"}

    assert wanted | levels | parts <= scalars
    assert any(tag.startswith("loss_by_timestep/") for tag in scalars)
    assert [point.step for point in found.Scalars("loss/train")] == [1, 2, 3, 4, 5, 6]
    assert set(found.Tags()["images"]) == {"prediction/0", "prediction/1", "regions"}
    assert found.Images("prediction/0")[-1].encoded_image_string.startswith(b"GIF89a")
    assert found.Images("regions")[-1].encoded_image_string.startswith(b"\x89PNG")
    inner = events(trained_video / "autoencoder")
    assert inner.Tags()["images"] == ["reconstruction"]
    assert {"train/psnr_db", "eval/psnr_db", "grad_norm/encoder", "grad_norm/decoder"} <= set(inner.Tags()["scalars"])


@pytest.mark.parametrize("stage", ["diffusion", "joint"])
def test_only_joint_training_moves_the_autoencoder(
    stage: Any, recipe: VideoRecipe, trained_video: Path, clip_store: Store, tmp_path: Path
) -> None:
    """Jointly it goes on learning, its mean beside it; frozen it stays as it was, to the bit."""
    trained(replace(short(recipe), stage=stage), clip_store, tmp_path / "run", trained_video / "autoencoder")
    before, after = weights(trained_video / "autoencoder", "ema"), weights(tmp_path / "run")
    moved = {name for name, weight in before.items() if not torch.equal(after[f"autoencoder.{name}"], weight)}

    means = {name for name in weights(tmp_path / "run", "ema") if name.startswith("autoencoder")}

    assert {name.split(".")[0] for name in moved} == ({"encoder", "decoder"} if stage == "joint" else set())
    assert len(means) == (len(before) if stage == "joint" else 0)


def test_latents_of_joint_training_get_no_gradient_from_the_denoiser(
    recipe: VideoRecipe, trained_video: Path, clip_store: Store
) -> None:
    """The autoencoder's gradient is that of its own loss alone; with the denoiser's it would shrink its latents."""
    recipe = fitted(replace(recipe, stage="joint"), clip_store)[0]
    task = video_task(recipe, clip_store, trained_video / "autoencoder")
    model = build_video_model(recipe)
    assert isinstance(model, VideoModel)
    batch = next(iter(clips_of(recipe, clip_store, batch=2, prefetch=False)))
    task.loss(model)(batch, torch.arange(2))[0].backward()
    found = {
        name: weight.grad.clone() for name, weight in model.autoencoder.named_parameters() if weight.grad is not None
    }
    model.zero_grad()
    alone = video_task(replace(recipe, stage="autoencoder"), clip_store)
    alone.loss(model.autoencoder)(batch, torch.arange(2))[0].backward()

    assert found
    for name, weight in model.autoencoder.named_parameters():
        assert weight.grad is not None
        assert torch.allclose(found[name], weight.grad, rtol=1e-5, atol=1e-8), name


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("dit", {"model": "dit"}),
        ("no regions", {"context": {"spatial": False}}),
        ("no motion", {"context": {"motion": False}}),
        ("no time", {"context": {"temporal": False}}),
        ("recomputed", {"region_maps": "recomputed", "regions": RegionConfig(regions=6, motion_regions=3)}),
    ],
)
def test_every_part_can_be_switched_off(
    what: str, fields: dict[str, Any], recipe: VideoRecipe, trained_video: Path, clip_store: Store, tmp_path: Path
) -> None:
    """The yardstick and each ablation train on the same autoencoder; their losses differ, so no switch is dead."""
    video = recipe.video
    switched = {name: replace(getattr(video.context, name), on=on) for name, on in fields.get("context", {}).items()}
    maps = {name: fields[name] for name in ("region_maps", "regions") if name in fields}
    video = replace(video, context=replace(video.context, **switched), **maps)
    other = replace(short(recipe), model=fields.get("model", "wubu"), video=video)
    trained(other, clip_store, tmp_path / "run", trained_video / "autoencoder")
    found = [row["loss"] for row in rows(tmp_path / "run")]

    assert len(found) == 2
    assert found != [row["loss"] for row in rows(trained_video)[:2]]


def test_maps_made_anew_are_those_of_the_store(recipe: VideoRecipe, clip_store: Store) -> None:
    """With the store's settings: regions, and motion in all but a clip's first frame, whose predecessor nobody has."""
    stored = fitted(recipe, clip_store)[0]
    again = replace(stored, video=replace(stored.video, region_maps="recomputed"))
    one, other = (next(iter(clips_of(each, clip_store, batch=6, prefetch=False))) for each in (stored, again))

    assert torch.equal(one.frames, other.frames)
    assert torch.equal(one.regions, other.regions)
    assert torch.equal(one.motion[:, 1:], other.motion[:, 1:])
    assert other.clips == 6


def test_a_store_without_val_clips_says_so_once(
    cli: Any, tiny_video: Path, clip_store_path: Path, tmp_path: Path
) -> None:
    """Clips longer than any val film: each stage trains, nothing is evaluated, and one line tells why."""
    films = make_training_films(tmp_path / "films", 2, size=(32, 32), frames=12)
    path = ingest_video(
        [films[0].path.parent], tmp_path / "train.bx", VideoConfig(size=(32, 32), val_fraction=0.0)
    ).store.path
    answer = cli("train", "video", "--store", path, "--run", tmp_path / "run", "--recipe", tiny_video, *TWO_STEPS)

    assert answer.code == 0, answer.err
    assert answer.err.count("has no val clip of 5 frames: nothing is evaluated") == 1
    assert rows(tmp_path / "run", "evaluate") == []
    assert len(rows(tmp_path / "run")) == 2
