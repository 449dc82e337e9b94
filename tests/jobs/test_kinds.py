"""A run says what was trained in it, and commands for another kind of model refuse it by name."""

from pathlib import Path
from typing import Any

import pytest

from bytropix.config import to_plain
from bytropix.errors import ConfigError, RunError
from bytropix.jobs.kinds import KINDS, recipe_class
from bytropix.jobs.recipe import Recipe, read_recipe
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.toml_text import write_toml
from bytropix.jobs.video_recipe import VideoRecipe


@pytest.fixture
def video_run(tmp_path: Path) -> Path:
    """A run of a video model that has not got far."""
    path = tmp_path / "video-run"
    path.mkdir()
    (path / "config.toml").write_text(write_toml(to_plain(VideoRecipe())), encoding="utf-8")
    return path


def test_a_run_gives_the_recipe_of_its_kind(video_run: Path, run: Path) -> None:
    """One that does not say what it is was made before there were others: bytes."""
    assert "kind" not in (run / "config.toml").read_text("utf-8")
    assert (RunFolder(run).kind(), RunFolder(video_run).kind()) == ("bytes", "video")
    assert type(RunFolder(run).recipe()) is Recipe
    assert RunFolder(video_run).recipe(VideoRecipe) == VideoRecipe()
    assert {name: recipe_class(name) for name in KINDS} == {"bytes": Recipe, "video": VideoRecipe}


def test_byte_commands_refuse_a_video_run_by_name(cli: Any, store_path: Path, video_run: Path, tmp_path: Path) -> None:
    """One line that says which commands are for it."""
    text = tmp_path / "text"
    text.write_text("abc")
    for words in (
        ("generate", "--run", video_run),
        ("score", text, "--run", video_run, "--out", tmp_path / "out.npy"),
        ("train", "bytes", "--store", store_path, "--run", video_run, "--resume"),
    ):
        line = cli(*words).refusal()
        assert f"{video_run}: a run of a video model" in line
        assert "`bytropix train video`, `evaluate` and `sample`" in line


def test_a_byte_run_is_refused_as_a_video_run(run: Path) -> None:
    """Resuming it as one, or asking for its video recipe."""
    for ask in (lambda: RunFolder(run).recipe(VideoRecipe), lambda: RunFolder(run).admit(VideoRecipe(), resume=True)):
        with pytest.raises(RunError, match=r"a run of a bytes model, .*`bytropix train bytes`.* `generate`"):
            ask()


def test_a_video_recipe_is_no_byte_recipe(video_run: Path) -> None:
    """A recipe file says its kind too."""
    with pytest.raises(ConfigError, match="a recipe of a video model; train it with `bytropix train video`"):
        read_recipe(video_run / "config.toml")


def test_an_unknown_kind_is_one_line(cli: Any, run: Path) -> None:
    """As from a later version."""
    config = run / "config.toml"
    config.write_text('kind = "smell"\n' + config.read_text("utf-8"), encoding="utf-8")

    assert "kind must be one of bytes, video, got 'smell'" in cli("generate", "--run", run).refusal()
