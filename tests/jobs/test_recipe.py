"""Recipes: TOML files, the flags over them, and the text that config.toml keeps."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bytropix.config import to_plain
from bytropix.errors import ConfigError
from bytropix.jobs.cli import parse
from bytropix.jobs.commands.train import TrainBytes
from bytropix.jobs.recipe import FREE_FIELDS, Recipe, TrainConfig, build_model, read_recipe
from bytropix.jobs.toml_text import write_toml
from bytropix.jobs.video_recipe import build_video_model, read_video_recipe

PACKAGED = sorted((Path(str(files("bytropix.jobs"))) / "recipes").glob("*.toml"))

words = st.text(st.sampled_from("abcdefgh_-123"), min_size=1, max_size=6)
scalars = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
flat_lists = st.lists(st.integers(), max_size=3) | st.lists(st.text(), max_size=3)
tables = st.recursive(
    st.dictionaries(words, scalars | flat_lists, max_size=4),
    lambda inner: st.dictionaries(words, scalars | inner | st.lists(inner, min_size=1, max_size=3), max_size=4),
    max_leaves=12,
)


def asked(*flags: object) -> Recipe:
    """Return the recipe that flags of `bytropix train bytes` make."""
    command = parse(["train", "bytes", "--store", "s.bx", "--run", "r", *map(str, flags)])
    assert isinstance(command, TrainBytes)
    return command.run_recipe()


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.name)
def test_packaged_recipes_make_a_model(path: Path) -> None:
    """A recipe that is shipped has no unknown key, and its model, of bytes or of video, can be built."""
    of_video = "video" in path.name  # a recipe may leave its kind to the command that reads it
    model: nn.Module = build_video_model(read_video_recipe(path)) if of_video else build_model(read_recipe(path))

    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000


def test_the_demo_has_a_recipe() -> None:
    """The embedded default is there."""
    assert "demo.toml" in [path.name for path in PACKAGED]


@given(tables)
def test_toml_text_is_read_back_to_the_same_data(data: dict[str, Any]) -> None:
    """Any nesting of tables, lists of tables and scalars, with any text in them."""
    assert tomllib.loads(write_toml(data)) == data


def test_a_recipe_survives_its_toml_text(recipe: Recipe, tmp_path: Path) -> None:
    """config.toml gives back the recipe it was written from."""
    file = tmp_path / "config.toml"
    file.write_text(write_toml(to_plain(recipe)), encoding="utf-8")

    assert read_recipe(file) == recipe


def test_levels_are_tables(tmp_path: Path) -> None:
    """A level is one table; what it leaves out keeps its default."""
    file = tmp_path / "recipe.toml"
    file.write_text(
        "[[wubu.nesting.levels]]\ndim = 8\nrotation = 'quat'\n[[wubu.nesting.levels]]\ndim = 4\ncurvature = 0.5\n"
    )
    first, second = asked("--recipe", file).wubu.nesting.levels

    assert (first.dim, first.rotation, first.curvature) == (8, "quat", 1.0)
    assert (second.dim, second.rotation, second.curvature) == (4, "so_n", 0.5)


def test_flags_lie_over_the_recipe_and_the_recipe_over_the_defaults(tiny: Path, recipe: Recipe) -> None:
    """Three layers, the nearest wins, whatever their order on the line."""
    found = asked("--train.steps", 77, "--recipe", tiny, "--optim.lr", 0.25, "--wubu.nesting.levels.1.spread", 0.75)

    assert (found.train.steps, found.optim.lr, found.wubu.nesting.levels[1].spread) == (77, 0.25, 0.75)
    assert (found.train.context, found.wubu.mixer) == (recipe.train.context, recipe.wubu.mixer)
    assert found.optim.beta2 == Recipe().optim.beta2
    assert asked() == Recipe()


def test_equals_signs_do_as_well(tiny: Path, recipe: Recipe) -> None:
    """`--recipe=FILE` is the same file."""
    assert asked(f"--recipe={tiny}") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle = 'wubu'", r"unknown key 'modle' in Recipe; did you mean 'model'\?"),
        ("[train]\nstep = 3", r"unknown key 'train\.step' in TrainConfig; did you mean 'steps'\?"),
        ("[wubu.nesting]\nlevel = []", r"unknown key 'wubu\.nesting\.level' .* did you mean 'levels'\?"),
        (
            "[[wubu.nesting.levels]]\ndim = 3\ncurvatur = 1.0",
            r"unknown key 'wubu\.nesting\.levels\[0\]\.curvatur'.*'curvature'",
        ),
        ("model = 'lstm'", "model must be one of wubu, transformer, got 'lstm'"),
        ("[train]\nsteps = '3'", "train.steps must be of type int, got '3'"),
        ("[train]\nsteps = 0", "train.steps must be at least 1, got 0"),
        ("[[wubu.nesting.levels]]\nspread = 1.0", r"levels\[0\]: missing key 'dim'"),
        ("train = 3", "train must be a table"),
        ("[train\n", "not a readable TOML recipe"),
        ("a = 1\na = 2", "not a readable TOML recipe"),
    ],
)
def test_a_bad_recipe_is_one_line_with_the_file_and_the_place(
    cli: Any, store_path: Path, tmp_path: Path, text: str, message: str
) -> None:
    """Nothing is guessed, and no run folder is left."""
    file = tmp_path / "recipe.toml"
    file.write_text(text)

    answer = cli("train", "bytes", "--store", store_path, "--run", tmp_path / "run", "--recipe", file)
    line = answer.refusal()

    assert str(file) in line
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(line)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_not_text_or_not_there_is_one_line(cli: Any, store_path: Path, tmp_path: Path) -> None:
    """A missing file, a folder, and bytes that are no UTF-8."""
    (tmp_path / "bytes.toml").write_bytes(b"model = '\xff'\n")
    for name in ("bytes.toml", "none.toml", "."):
        answer = cli("train", "bytes", "--store", store_path, "--run", tmp_path / "run", "--recipe", tmp_path / name)
        assert str(tmp_path / name) in answer.refusal()


def test_lists_of_the_original_make_levels() -> None:
    """All eight lists land in the fields they mean, transitions being one fewer."""
    found = asked(
        *("--num-levels", 3, "--hyperbolic-dims", 16, 8, 4, "--boundary-points-per-level", 5, 4, 3),
        *("--initial-curvatures", 1.0, 0.5, 0.25, "--initial-scales", 1.0, 1.5, 2.0),
        *("--initial-spread-values", 0.1, 0.2, 0.3, "--rotation-types", "so_n", "quat"),
        *("--transform-types", "mlp", "linear", "--transform-hidden-dims", 24, 0),
    ).wubu.nesting.levels

    assert [level.dim for level in found] == [16, 8, 4]
    assert [level.boundary_points for level in found] == [5, 4, 3]
    assert [level.curvature for level in found] == [1.0, 0.5, 0.25]
    assert [level.scale for level in found] == [1.0, 1.5, 2.0]
    assert [level.spread for level in found] == [0.1, 0.2, 0.3]
    assert [level.rotation for level in found[:2]] == ["so_n", "quat"]
    assert [level.transform for level in found[:2]] == ["mlp", "linear"]
    assert [level.transform_hidden for level in found[:2]] == [24, 0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--hyperbolic-dims", 8, 4), "--hyperbolic-dims needs --num-levels"),
        (("--initial-curvatures", 1.0), "--initial-curvatures needs --num-levels"),
        (("--num-levels", 2), "needs hyperbolic_dims"),
        (("--num-levels", 2, "--hyperbolic-dims", 8), "hyperbolic_dims needs 2 values for num_levels 2, got 1"),
        (
            ("--num-levels", 2, "--hyperbolic-dims", 8, 4, "--rotation-types", "so_n", "so_n"),
            "rotation_types needs 1 values for num_levels 2, got 2",
        ),
        (("--num-levels", 0, "--hyperbolic-dims", 8), "num_levels must be at least 1, got 0"),
        (
            ("--num-levels", 1, "--hyperbolic-dims", 8, "--initial-curvatures", -1.0),
            "curvature must exceed",
        ),
    ],
)
def test_lists_that_do_not_fit_are_one_line(
    cli: Any, store_path: Path, tmp_path: Path, flags: tuple[object, ...], message: str
) -> None:
    """A list needs the number of levels, and as many values."""
    answer = cli("train", "bytes", "--store", store_path, "--run", tmp_path / "run", *flags)

    assert message in answer.refusal()
    assert not (tmp_path / "run").exists()


def test_lists_for_a_model_without_levels_are_refused(cli: Any, store_path: Path, tmp_path: Path) -> None:
    """A setting that would have no effect is an error."""
    answer = cli(
        *("train", "bytes", "--store", store_path, "--run", tmp_path / "run", "--model", "transformer"),
        *("--num-levels", 1, "--hyperbolic-dims", 8, "--train.steps", 1),
    )

    assert "--model transformer has no levels" in answer.refusal()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--optim.lr", "0"), "optim.lr"),
        (("--train.context", "0"), "train.context"),
        (("--wubu.encoder.width", "10"), "width"),
        (("--wubu.dropout", "1"), "dropout"),
        (("--train.evaluate-every", "-1"), "train.evaluate_every"),
    ],
)
def test_a_flag_out_of_range_ends_with_2_and_leaves_no_run(
    cli: Any, store_path: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    """The rule of a field holds for its flag too, and the answer is one line."""
    answer = cli("train", "bytes", "--store", store_path, "--run", tmp_path / "run", *flags)

    assert message in answer.refusal()
    assert not (tmp_path / "run").exists()


def test_identity_holds_everything_but_the_free_fields_and_the_other_model() -> None:
    """A field that is added later decides the weights until it is named free."""
    plain = to_plain(Recipe())
    identity = Recipe().identity()

    assert plain["train"].keys() - identity["train"].keys() == set(FREE_FIELDS)
    assert identity["train"].items() <= plain["train"].items()
    assert plain.keys() - identity.keys() == {"transformer"}
    assert Recipe(model="transformer").identity().keys() ^ plain.keys() == {"wubu"}
    assert all(name in to_plain(TrainConfig()) for name in FREE_FIELDS)
