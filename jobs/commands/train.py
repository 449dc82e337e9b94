"""`bytropix train bytes`: a store and a recipe to a run folder.

--recipe FILE (or, with --resume, the run's own config) -> flags over it -> Recipe -> Training -> runs/NAME
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import tyro

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.jobs.recipe import Recipe, read_recipe
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training
from bytropix.nesting import LIST_OPTIONS, levels_from_lists
from bytropix.nesting.config import Rotation, Transform

STOPPED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelLists:
    """The levels as the original's parallel lists, L values each (L - 1 for transitions), in place of level tables."""

    num_levels: int | None = None
    """L; needed for any of the lists."""
    hyperbolic_dims: tuple[int, ...] | None = None
    """Dimension of each ball."""
    boundary_points_per_level: tuple[int, ...] | None = None
    """Learned points of each ball."""
    initial_curvatures: tuple[float, ...] | None = None
    """Initial c of each level."""
    initial_scales: tuple[float, ...] | None = None
    """Initial s of each level."""
    initial_spread_values: tuple[float, ...] | None = None
    """Initial sigma of each level."""
    rotation_types: tuple[Rotation, ...] | None = None
    """Rotation of each transition."""
    transform_types: tuple[Transform, ...] | None = None
    """Map of each transition."""
    transform_hidden_dims: tuple[int, ...] | None = None
    """Hidden width of each transition's map; 0 for the mean of both dims."""

    def given(self) -> dict[str, Any]:
        """Return the lists that were given, by option."""
        values = {name: getattr(self, name) for name in LIST_OPTIONS}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class TrainBytes(Recipe):
    """Train a byte language model on a store.

    Progress goes to stderr, curves to TensorBoard (`tensorboard --logdir RUN`). SIGTERM and Ctrl-C save a checkpoint
    first; --resume goes on from the latest one and gives, on CPU, the losses of a run that was never stopped.
    """

    store: Path
    """The store to train on, NAME.bx."""
    run: Path
    """The run folder to write, such as runs/NAME."""
    recipe: Path | None = None
    """A TOML recipe; every other flag is a field of it and overrides it."""
    resume: bool = False
    """Go on from the latest checkpoint with the run's own config, or begin if there is none."""
    lists: Annotated[LevelLists, tyro.conf.OmitArgPrefixes] = LevelLists()
    """The original's list options."""

    @classmethod
    def preset(cls, arguments: Sequence[str]) -> Self:
        """Return the defaults of the flags: a recipe file, or what the run to resume was made with."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--recipe", type=Path)
        parser.add_argument("--run", type=Path)
        parser.add_argument("--resume", action="store_true")
        known, _ = parser.parse_known_args(arguments)
        recipe = Recipe()
        if known.recipe is not None:
            recipe = read_recipe(known.recipe)
        elif known.resume and known.run is not None and known.run.is_dir():
            recipe = RunFolder(known.run).recipe()
        return cls(store=tyro.MISSING, run=tyro.MISSING, **_fields(recipe))

    def run_recipe(self) -> Recipe:
        """Return the recipe that flags, file and lists make together.

        Raises:
            ConfigError: Lists without `--num-levels`, of wrong lengths, or for a model that has no levels.
        """
        recipe = Recipe(**_fields(self))
        lists = self.lists.given()
        if self.lists.num_levels is None and not lists:
            return recipe
        if recipe.model != "wubu":
            raise ConfigError(f"--model {recipe.model} has no levels: leave out --num-levels and its lists")
        if self.lists.num_levels is None:
            raise ConfigError(f"--{next(iter(lists)).replace('_', '-')} needs --num-levels, the number of its values")
        levels = levels_from_lists(self.lists.num_levels, lists)
        nesting = dataclasses.replace(recipe.wubu.nesting, levels=levels)
        return dataclasses.replace(recipe, wubu=dataclasses.replace(recipe.wubu, nesting=nesting))

    def __call__(self) -> int:
        """Train; return 0 at the last step, `STOPPED` before it."""
        recipe = self.run_recipe()
        training = Training(recipe, Store.open(self.store), self.run, resume=self.resume)
        if training():
            print(f"trained {training.step} steps: {training.run.latest()}", file=sys.stderr)
            return 0
        print(f"stopped at step {training.step}, saved; go on with --resume", file=sys.stderr)
        return STOPPED


def _fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe by name."""
    return {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
