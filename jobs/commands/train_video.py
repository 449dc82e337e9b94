"""`bytropix train video`: a store of clips and a recipe to an autoencoder's run and a video model's.

--recipe FILE (or, with --resume, the run's own config) -> flags over it -> VideoRecipe of each stage -> Training
    stage autoencoder -> RUN/autoencoder, or RUN where it is all that is asked for
    stage diffusion, joint -> RUN, which holds the autoencoder that it began with
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import tyro

from bytropix.datasets.clip_batch import ClipBatch
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.gaad.config import DecompositionName
from bytropix.jobs.commands.train import STOPPED, LevelLists, known_flags
from bytropix.jobs.ranks import joined
from bytropix.jobs.recipe import choose_device
from bytropix.jobs.run_folder import AUTOENCODER, CONFIG, RunFolder
from bytropix.jobs.train import Training
from bytropix.jobs.video_clips import fitted
from bytropix.jobs.video_recipe import VideoRecipe, VideoSettings, read_video_recipe
from bytropix.jobs.video_task import video_task
from bytropix.nesting import levels_from_lists
from bytropix.video.config import StackConfig, VideoModelConfig

Stage = tuple[VideoRecipe, Store, Path | None]  # with the autoencoder's run, where a fresh one begins with it
STACKS = {"wubu_s": "spatial", "wubu_m": "motion", "wubu_t": "temporal"}


@dataclass(frozen=True, kw_only=True)
class TrainVideo(VideoSettings):
    """Train a video diffusion model on a store of clips: first an autoencoder of frames, then diffusion on its latents.

    Progress goes to stderr, curves, pictures and sample videos to TensorBoard (`tensorboard --logdir RUN`). SIGTERM and
    Ctrl-C save a checkpoint first; --resume goes on from the latest one, in whichever stage that is.
    """

    store: str
    """The store of clips to train on: its folder or URL."""
    run: Path
    """The run folder to write, such as runs/NAME."""
    recipe: Path | None = None
    """A TOML recipe; every other flag is a field of it and overrides it."""
    resume: bool = False
    """Go on from the latest checkpoint with the run's own config, or begin if there is none."""
    stage: Literal["all", "autoencoder", "diffusion", "joint"] = "all"
    """all: an autoencoder in RUN/autoencoder, then diffusion in RUN. autoencoder: that alone, in RUN. diffusion: on the
    latents of a trained autoencoder, which stays as it is. joint: the autoencoder goes on learning to reconstruct."""
    autoencoder: Path | None = None
    """The run whose autoencoder the stages diffusion and joint begin with; RUN/autoencoder unless you say."""
    gaad_num_regions: int | None = None
    """Regions of a frame; where the store's maps are others, they are made anew from the frames."""
    gaad_motion_num_regions: int | None = None
    """Motion regions of a frame, likewise."""
    gaad_decomposition_type: DecompositionName | None = None
    """How a frame is divided into regions, likewise."""
    wubu_s: LevelLists = field(default_factory=LevelLists)
    """Levels of WuBu-S as the original's lists."""
    wubu_m: LevelLists = field(default_factory=LevelLists)
    """Levels of WuBu-M as the original's lists."""
    wubu_t: LevelLists = field(default_factory=LevelLists)
    """Levels of WuBu-T as the original's lists."""

    @classmethod
    def preset(cls, arguments: Sequence[str]) -> Self:
        """Return the defaults of the flags: a recipe file, or what the run to resume was made with."""
        known = known_flags("bytropix train video", arguments)
        settings = VideoRecipe()
        more: dict[str, Any] = {}
        if known.recipe is not None:
            settings = read_video_recipe(known.recipe)
        elif known.resume and known.run is not None and (begun := _begun(known.run)) is not None:
            settings, more["stage"] = begun
        return cls(store=tyro.MISSING, run=tyro.MISSING, **_fields(settings), **more)

    def run_recipe(self) -> VideoRecipe:
        """Return the recipe of the last stage that flags, file and lists make together.

        Raises:
            ConfigError: Lists without `num-levels`, of wrong lengths, or for a model that has no such stack.
        """
        fields = _fields(self) | {"video": self._with_levels(self.video)}
        return VideoRecipe(**fields, stage="diffusion" if self.stage == "all" else self.stage)

    def _regions(self) -> dict[str, Any]:
        """Return the region settings that flags ask for, by field."""
        asked = {
            "regions": self.gaad_num_regions,
            "motion_regions": self.gaad_motion_num_regions,
            "decomposition": self.gaad_decomposition_type,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _with_levels(self, video: VideoModelConfig) -> VideoModelConfig:
        """Return the model with the levels that lists describe."""
        for option, name in STACKS.items():
            asked: LevelLists = getattr(self, option)
            lists = asked.given()
            if asked.num_levels is None and not lists:
                continue
            flag = f"--{option.replace('_', '-')}"
            if self.model != "wubu":
                raise ConfigError(f"--model {self.model} has no levels: leave out {flag} and its lists")
            if asked.num_levels is None:
                raise ConfigError(f"{flag} lists need {flag}.num-levels, the number of their values")
            stack: StackConfig = getattr(video.context, name)
            nesting = replace(stack.nesting, levels=levels_from_lists(asked.num_levels, lists))
            changed: dict[str, Any] = {name: replace(stack, nesting=nesting)}
            video = replace(video, context=replace(video.context, **changed))
        return video

    def __call__(self) -> int:
        """Train; return 0 at the last step, `STOPPED` before it."""
        recipe = self.run_recipe()
        with joined(choose_device(recipe.train.device)) as ranks:
            with ranks.together():
                store = Store.open(self.store)
                recipe, notices = fitted(recipe, store, self._regions())
                stages = [(video_task(*stage), run) for stage, run in self._stages(recipe, store)]
            notices = list(dict.fromkeys([*notices, *(notice for task, _ in stages for notice in task.notices)]))
            for number, (task, run) in enumerate(stages, 1):
                training: Training[ClipBatch] = Training(task, run, resume=self.resume or number > 1, ranks=ranks)
                if number < len(stages) and ranks.speaks:  # a run stopped in its first stage knows what comes next
                    last, folder = stages[-1]
                    RunFolder(folder).keep(last.recipe, last.kept)
                of = f"stage {number} of {len(stages)}, " if len(stages) > 1 else ""
                ranks.tell(*notices, f"{of}{task.recipe.stage}: {task.recipe.train.steps} steps in {run}")
                notices = []
                if not _train(training):
                    return STOPPED
        return 0

    def _stages(self, recipe: VideoRecipe, store: Store) -> Iterator[tuple[Stage, Path]]:
        """Give each stage that is to be run, as `video_task` takes it, and its run folder.

        Raises:
            ConfigError: There is no autoencoder to begin with.
            RunError: A run folder is taken, or was made by another recipe.
        """
        run, first = RunFolder(self.run), self.run / AUTOENCODER
        run.admit(recipe, resume=self.resume)
        if recipe.stage == "autoencoder":
            yield (recipe, store, None), self.run
            return
        if self.stage == "all" and self.autoencoder is not None:
            raise ConfigError("--autoencoder is for --stage diffusion or joint; --stage all trains one of its own")
        if self.resume and run.checkpoints():
            yield (recipe, store, None), self.run
            return
        autoencoder = self.autoencoder or first
        if self.stage == "all":
            RunFolder(first).admit(recipe.of_autoencoder(), resume=self.resume)
            yield (recipe.of_autoencoder(), store, None), first
        elif not (autoencoder / CONFIG).is_file():
            raise ConfigError(
                f"--stage {self.stage} begins with a trained autoencoder, and {autoencoder} is no run: name one with "
                "--autoencoder, or train it too with --stage all"
            )
        yield (recipe, store, autoencoder), self.run


def _train(training: Training[ClipBatch]) -> bool:
    """Train one stage and tell how it ended; return whether its last step was reached."""
    ranks = training.ranks
    ranks.tell(*(f"goes on from step {training.step}: {change}" for change in training.changes))
    finished = training()
    damaged = training.damaged_blocks()
    if damaged:
        ranks.tell(f"left out {damaged} damaged blocks; mend the store with `bytropix verify --repair`")
    if finished:
        ranks.tell(f"trained {training.step} steps: {training.run.latest()}")
    else:
        ranks.tell(f"stopped at step {training.step}, saved; go on with --resume")
    return finished


def _begun(run: Path) -> tuple[VideoRecipe, str] | None:
    """Return the recipe and the stages that a run was begun with; None where there is none."""
    if not (run / CONFIG).is_file():
        return None
    recipe = RunFolder(run).recipe(VideoRecipe)
    both = recipe.stage == "diffusion" and (run / AUTOENCODER).is_dir()
    return recipe, "all" if both else recipe.stage


def _fields(settings: VideoSettings) -> dict[str, Any]:
    """Return the fields that all stages have in common, by name."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(VideoSettings)}
