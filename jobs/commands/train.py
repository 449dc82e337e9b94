"""`bytropix train bytes`: stores and a recipe to a run folder.

--recipe FILE (or, with --resume, the run's own config) -> flags over it -> Recipe -> Training -> runs/NAME
"""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import tyro

from bytropix.errors import ConfigError
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.ranks import joined
from bytropix.jobs.recipe import Recipe, choose_device, read_recipe
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.source import Source, notices_of, open_source
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
    """Train a byte language model on a store, or on a mixture of several.

    Progress goes to stderr, curves to TensorBoard (`tensorboard --logdir RUN`). SIGTERM and Ctrl-C save a checkpoint
    first; --resume goes on from the latest one and gives, on CPU, the losses of a run that was never stopped.
    """

    store: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """The store to train on: its folder or URL. Given several times, the stores are mixed: by their sizes, or with
    weights behind a colon, as in `--store a.bx:0.7 --store s3://bucket/b.bx:0.3`. Only the weights' ratios count; each
    store begins its next epoch when its own windows have all come. The run keeps the patcher of the first store."""
    temperature: float | None = None
    """How sizes become shares where stores have no weights: in proportion to bytes ** (1 / temperature). 1 mixes by
    size, more is flatter, inf is even."""
    curriculum: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Other weights from a step on, as in `--curriculum 1000:0.2,0.8`; may be given several times, by ascending step. A
    step counts as many windows as those the run was begun with. With --resume, stages yet to begin may be changed."""
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
        known = known_flags("bytropix train bytes", arguments)
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

    def source(self, recipe: Recipe) -> Source:
        """Return what to read.

        Raises:
            ConfigError, StoreError: See `open_source`.
        """
        return open_source(
            self.store,
            temperature=self.temperature,
            curriculum=self.curriculum,
            step_windows=self._step_windows(recipe),
        )

    def _notices(self, recipe: Recipe, source: Source) -> list[str]:
        """Return what the user should know before training begins."""
        notices = notices_of(source)
        counted = self._step_windows(recipe)
        if self.curriculum and counted != recipe.train.step_windows:
            notices.append(
                f"a step has {recipe.train.step_windows} windows now, but --curriculum goes on counting steps of "
                f"{counted} windows, as the run was begun with"
            )
        return notices

    def _step_windows(self, recipe: Recipe) -> int:
        """Return the windows of a step as the run was begun with, so that its stages stay where they are."""
        begun = RunFolder(self.run).step_windows() if self.resume else None
        return begun or recipe.train.step_windows

    def __call__(self) -> int:
        """Train; return 0 at the last step, `STOPPED` before it."""
        recipe = self.run_recipe()
        with joined(choose_device(recipe.train.device)) as ranks:
            with ranks.together():
                source = self.source(recipe)
            notices = self._notices(recipe, source)
            ranks.tell(*notices)
            training = Training(ByteTask(recipe, source), self.run, resume=self.resume, ranks=ranks)
            ranks.tell(*(f"goes on from step {training.step}: {change}" for change in training.changes))
            finished = training()
            damaged = training.damaged_blocks()
            if damaged:
                ranks.tell(f"left out {damaged} damaged blocks; mend the store with `bytropix verify --repair`")
            if finished:
                ranks.tell(f"trained {training.step} steps: {training.run.latest()}")
                return 0
            ranks.tell(f"stopped at step {training.step}, saved; go on with --resume")
            return STOPPED


def known_flags(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags that the defaults of all others depend on: `recipe`, `run` and `resume`."""
    usage = "%(prog)s --store PLACE --run RUN ..."
    parser = argparse.ArgumentParser(command, usage=usage, add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(arguments)[0]


def _fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe by name."""
    return {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
