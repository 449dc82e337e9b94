"""Video recipes: what is read, what may not change, and two models that weigh the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bytropix.config import from_plain, to_plain
from bytropix.errors import ConfigError
from bytropix.jobs.video_recipe import (
    VideoRecipe,
    VideoTrainConfig,
    matched,
    parameters_of,
    read_video_recipe,
)
from bytropix.video.config import DenoiserConfig


def test_the_yardstick_weighs_what_the_model_weighs() -> None:
    """As they come, within 3 %; it has no context, or the two would differ in nothing."""
    recipe = VideoRecipe()
    wubu, dit = (parameters_of(replace(recipe, model=model)) for model in ("wubu", "dit"))

    assert abs(dit / wubu - 1) < 0.03
    assert not replace(recipe, model="dit").network.context.on
    assert wubu > 2_000_000


@pytest.mark.parametrize("width", [24, 64, 128])
def test_a_matched_yardstick_weighs_as_much_at_any_size(tiny_video: Path, width: int) -> None:
    """Whatever the denoiser's width, to half a percent."""
    recipe = read_video_recipe(tiny_video)
    recipe = replace(recipe, video=replace(recipe.video, denoiser=replace(recipe.video.denoiser, width=width)))
    found = parameters_of(replace(matched(recipe), model="dit")) / parameters_of(recipe)

    assert found == pytest.approx(1, abs=0.005)


def test_a_recipe_is_its_plain_form(tiny_video: Path) -> None:
    """Written as TOML and read again it is the same, stage and kind included."""
    recipe = replace(read_video_recipe(tiny_video), stage="joint", model="dit")

    assert from_plain(VideoRecipe, to_plain(recipe)) == recipe
    assert to_plain(recipe)["kind"] == "video"
    assert recipe.video.given_frames == 3
    assert len(recipe.video.context.motion.nesting.levels) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[video]\ngiven_framez = 3", "unknown key 'video.given_framez' in VideoModelConfig; did you mean"),
        ("[video.denoiser]\nwidth = 20", "denoiser.width must be a multiple of 4 x heads = 16, got 20"),
        ("[train]\nlatent_frames = 10", "train.latent_frames must be at least 1000"),
        ("[train]\nflip = 2.0", "train.flip is a share"),
        ("[train]\nhop = -1", "train.hop must not be negative, got -1"),
        ("[train]\nsample_steps = 0", "train.sample_steps must be at least 1, got 0"),
        ("[train]\nsteps = 0", "train.steps must be at least 1, got 0"),
        ("stage = 'all'", "stage must be one of autoencoder, diffusion, joint, got 'all'"),
        ("model = 'dit'\n[video.diffusion]\nresidual = 'warped'\n[video.flow]\non = true", "model 'dit' has no flow"),
        (
            "[train]\nsample_guidance = 2.0\n[video.diffusion]\ncondition_dropout = 0.0",
            "train.sample_guidance of 2 goes away from what the model makes of nothing",
        ),
        ("video = [", "not a readable TOML recipe"),
    ],
)
def test_what_a_recipe_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    """The file is named, and what is wrong in it."""
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=r"wrong\.toml") as caught:
        read_video_recipe(path)
    assert message in str(caught.value)


def train(recipe: VideoRecipe, **fields: Any) -> VideoRecipe:
    """Return the recipe with other fields of its loop."""
    return replace(recipe, train=replace(recipe.train, **fields))


def test_a_resumed_run_may_change_what_decides_no_weight() -> None:
    """How long, how wide a batch, how often looked at; not the clips, the mean of the weights or the model."""
    recipe = VideoRecipe()
    free = {"steps": 7, "batch": 3, "autoencoder_steps": 9, "evaluate_clips": 2, "sample_clips": 1, "sample_steps": 3}
    fixed: dict[str, Any] = {"hop": 3, "flip": 0.5, "frame_steps": (2,), "ema": 0.5, "latent_frames": 2000, "seed": 1}

    assert train(recipe, **free).identity() == recipe.identity()
    for name, value in fixed.items():
        assert train(recipe, **{name: value}).identity() != recipe.identity(), name
    assert replace(recipe, stage="joint").identity() != recipe.identity()


def test_an_autoencoder_does_not_care_what_is_trained_on_its_latents() -> None:
    """One autoencoder serves any denoiser; its own sizes and its clips decide its run."""
    recipe = VideoRecipe().of_autoencoder()
    wider = replace(recipe, video=replace(recipe.video, denoiser=DenoiserConfig(width=64)), model="dit")
    longer = replace(recipe, video=replace(recipe.video, given_frames=5))

    assert recipe.stage == "autoencoder"
    assert recipe.train.steps == VideoTrainConfig().autoencoder_steps
    assert wider.identity() == recipe.identity()
    assert longer.identity() != recipe.identity()


def test_a_model_does_not_care_how_the_other_is_set() -> None:
    """The yardstick's sizes are none of a WuBu run's business, nor its context the yardstick's."""
    wubu = VideoRecipe()
    dit = replace(wubu, model="dit")
    off = replace(wubu.video, context=replace(wubu.video.context, on=False))

    assert replace(wubu, dit=DenoiserConfig(width=64)).identity() == wubu.identity()
    assert replace(dit, dit=DenoiserConfig(width=64)).identity() != dit.identity()
    assert replace(dit, video=off).identity() == dit.identity()
    assert replace(wubu, video=off).identity() != wubu.identity()
