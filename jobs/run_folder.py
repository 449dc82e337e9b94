"""A run folder: all that a training run leaves, and all that generation and evaluation need.

    runs/NAME/config.toml   store.json   babylon/   log.jsonl   events.out.tfevents.*   checkpoints/step-00001000/

What a model needs of its store is copied; for a byte model the patcher and how files were cut into documents, so that a
run can be moved and still cut bytes as its training did. The latest checkpoint is found by listing.
"""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from torch import nn

from bytropix.config import to_plain
from bytropix.datasets.store import load_patcher, open_storage
from bytropix.datasets.store.commit import write_file
from bytropix.errors import ConfigError, RunError
from bytropix.jobs.checkpoint import load_means, load_weights
from bytropix.jobs.kinds import KINDS, R, kind_in, recipe_in
from bytropix.jobs.loop_config import TaskRecipe
from bytropix.jobs.recipe import ByteModel, Recipe, build_model
from bytropix.jobs.toml_text import write_toml
from bytropix.patching import Patcher

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

CONFIG, STORE, LOG, CHECKPOINTS = "config.toml", "store.json", "log.jsonl", "checkpoints"
AUTOENCODER = "autoencoder"  # in a video model's run, the run that trained its autoencoder


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    def admit(self, recipe: TaskRecipe, *, resume: bool) -> None:
        """Check that a recipe may be trained here; nothing is written.

        With `resume`, a run that is there must have the same identity.

        Raises:
            RunError: The run exists and `resume` is off, it was made by another recipe, or the place is taken.
        """
        if (self.path / CONFIG).is_file():
            if not resume:
                raise RunError(f"{self.path}: a run is already there; go on with --resume or choose another --run")
            differs = _first_difference(self.recipe(type(recipe)).identity(), recipe.identity())
            if differs:
                raise RunError(f"{self.path}: made with another config ({differs}); use its values or another --run")
        elif self.path.exists() and not (self.path.is_dir() and _only_ours(self.path)):
            raise RunError(f"{self.path}: exists and is not a run; choose another --run")

    def keep(self, recipe: TaskRecipe, kept: Callable[[Path], dict[str, Any]]) -> None:
        """Write the recipe and what is needed of the store; make the folder if need be.

        What was kept of a store stays as soon as there is a checkpoint: the weights were trained with that.

        Args:
            recipe: The recipe.
            kept: Writes files into the folder and returns the content of store.json.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.checkpoints() and (self.path / STORE).is_file()):
            content = json.dumps(kept(self.path), indent=1, sort_keys=True)
            write_file(self.path / STORE, f"{content}\n".encode())
        write_file(self.path / CONFIG, f"{write_toml(to_plain(recipe))}\n".encode())

    def kind(self) -> str:
        """Return what was trained here, "bytes" or "video".

        Raises:
            RunError: There is no run here, or its config cannot be read.
        """
        return self._read_config(kind_in)

    @overload
    def recipe(self) -> Recipe: ...

    @overload
    def recipe(self, asked: type[R]) -> R: ...

    def recipe(self, asked: type[Any] = Recipe) -> Any:
        """Return the recipe of this run; unless another class is asked for, that of a byte model.

        Raises:
            RunError: There is no run here, it is of another kind, or its config cannot be read.
        """
        found = self._read_config(recipe_in)
        if not issubclass(asked, type(found)):
            kind = self.kind()
            raise RunError(f"{self.path}: a run of a {kind} model, which is for {KINDS[kind].commands}")
        return found

    def _read_config(self, read: Callable[[dict[str, Any]], T]) -> T:
        """Return what `read` finds in config.toml.

        Raises:
            RunError: There is none, or it cannot be read.
        """
        config = self.path / CONFIG
        if not config.is_file():
            commands = " or ".join(f"`{kind.train}`" for kind in KINDS.values())
            raise RunError(f"{self.path}: no run there ({CONFIG} is missing); train one with {commands}")
        try:
            return read(tomllib.loads(config.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ConfigError) as error:
            raise RunError(f"{config}: cannot be read ({error}); restore it or train again") from error

    def patcher(self) -> Patcher:
        """Return the patcher of the store that the run was trained on.

        Raises:
            RunError: It is missing or damaged.
            StoreError: Its table is missing or damaged.
        """
        return load_patcher(open_storage(self.path), self._of_store("patcher"))

    def document_bytes(self) -> int:
        """Return the length at which ingestion cut files into documents.

        Raises:
            RunError: store.json is missing or damaged.
        """
        try:
            return int(self._of_store("config")["document_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path / STORE}: no document_bytes ({error}); restore it or train again") from error

    def step_windows(self) -> int | None:
        """Return the windows of a step in which the stages of a begun mixture are counted; None where there is none.

        A run without a checkpoint has not begun: it counts, and keeps, the steps it is started with next.

        Raises:
            RunError: store.json is damaged.
        """
        if not (self.checkpoints() and (self.path / STORE).is_file()):
            return None
        try:
            return int(self._of_store("mixture", {"step_windows": 0})["step_windows"]) or None
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path / STORE}: no step_windows ({error}); restore it or train again") from error

    def model(self) -> ByteModel:
        """Return the byte model with the weights of the latest checkpoint, in evaluation mode.

        Raises:
            RunError: There is no run or checkpoint, it is of another kind, or it cannot be read.
        """
        return self.load(build_model(self.recipe()))

    def load(self, model: M) -> M:
        """Give a model the weights of the latest checkpoint, their running mean if the run keeps one; return it.

        Args:
            model: What the run's recipe builds; put in evaluation mode.

        Raises:
            RunError: There is no run or checkpoint, or it cannot be read.
        """
        averaged = self._read_config(recipe_in).train.ema > 0
        checkpoint = self.latest()
        load_weights(checkpoint, model)
        if averaged:
            load_means(checkpoint, model)
        return model.eval()

    def checkpoints(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return sorted((self.path / CHECKPOINTS).glob("step-*"))

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step, there or not."""
        return self.path / CHECKPOINTS / f"step-{step:08d}"

    def latest(self) -> Path:
        """Return the newest checkpoint.

        Raises:
            RunError: There is none yet.
        """
        found = self.checkpoints()
        if not found:
            train = KINDS[self.kind()].train
            raise RunError(f"{self.path}: no checkpoint yet; train it with `{train} --run {self.path}`")
        return found[-1]

    def _of_store(self, key: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a table of store.json, or `missing` where it may be absent."""
        file = self.path / STORE
        try:
            tables = json.loads(file.read_text("utf-8"))
            kept = tables[key] if missing is None else tables.get(key, missing)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{file}: cannot be read ({error}); restore it or train again") from error
        if not isinstance(kept, dict):
            raise RunError(f"{file}: '{key}' is no table; restore it or train again")
        return kept

    def forget_after(self, step: int) -> None:
        """Drop the rows of log.jsonl about later steps: a resumed run takes these steps again, at 0 from its start."""
        log = self.path / LOG
        if not log.is_file():
            return
        kept = [line for line in log.read_text("utf-8").splitlines() if step and _step_of(line) <= step]
        write_file(log, "".join(f"{line}\n" for line in kept).encode())


def _only_ours(path: Path) -> bool:
    """Whether a folder holds no more than a run that died before its config was written, or that of its autoencoder."""
    return all(file.name.endswith((STORE, CONFIG, "babylon", AUTOENCODER)) for file in path.iterdir())


def _step_of(line: str) -> int:
    """Return the step a row of the log is about; a torn row counts as later than any."""
    try:
        return int(json.loads(line).get("step", 0))
    except ValueError:
        return 1 << 62


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    """Return the first field in which two plain configs differ, as 'name: old there, new asked'; empty if none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
            if found:
                return found
        return ""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        rows = (_first_difference(a, b, f"{where}[{index}]") for index, (a, b) in enumerate(zip(old, new, strict=True)))
        return next((row for row in rows if row), "")
    return "" if old == new else f"{where}: {old!r} there, {new!r} asked"
