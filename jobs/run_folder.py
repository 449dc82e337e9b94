"""A run folder: config, checkpoints, events, figures, log.

    runs/NAME/config.toml   log.jsonl   events.out.tfevents.*   figures/
              checkpoints/step-00001000/model.safetensors  optimizer.safetensors  state.json

A checkpoint is written beside and renamed, so it is complete or absent; the latest is found by listing. Nothing in it
is a pickle.
"""

import hashlib
import json
import os
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bytropix.config import from_plain, to_plain
from bytropix.errors import ConfigError, RunError
from bytropix.jobs.recipe import Recipe
from bytropix.jobs.toml_text import write_toml


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @classmethod
    def create(cls, path: Path, recipe: Recipe, *, resume: bool) -> "RunFolder":
        """Make the folder and keep the recipe; with `resume` an existing run must have the same recipe.

        Raises:
            RunError: The run exists and `resume` is off, or it was made by another recipe.
        """
        run = cls(path)
        config = path / "config.toml"
        text = write_toml(to_plain(recipe)) + "\n"
        if config.is_file():
            if not resume:
                raise RunError(f"{path}: a run is already there; go on with --resume or choose another --run")
            old = to_plain(run.recipe())
            differs = _first_difference(old, to_plain(recipe))
            if differs:
                raise RunError(f"{path}: made with another config ({differs}); use its values or another --run")
            return run
        if path.exists() and any(path.iterdir()):
            raise RunError(f"{path}: not empty and not a run; choose another --run")
        path.mkdir(parents=True, exist_ok=True)
        _write_beside(config, text.encode())
        return run

    def recipe(self) -> Recipe:
        """Return the recipe this run was made with.

        Raises:
            RunError: There is no run here, or its config cannot be read.
        """
        config = self.path / "config.toml"
        if not config.is_file():
            raise RunError(f"{self.path}: no run there (config.toml is missing); train one with `bytropix train bytes`")
        try:
            return from_plain(Recipe, tomllib.loads(config.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ConfigError) as error:
            raise RunError(f"{config}: cannot be read ({error}); restore it or train again") from error

    def checkpoints(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def latest(self) -> Path:
        """Return the newest checkpoint.

        Raises:
            RunError: There is none yet.
        """
        found = self.checkpoints()
        if not found:
            raise RunError(f"{self.path}: no checkpoint yet; train it with `bytropix train bytes --run {self.path}`")
        return found[-1]

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Path:
        """Write checkpoint `step` and return its folder."""
        folder = self.path / "checkpoints"
        target = folder / f"step-{step:08d}"
        beside = folder / f".writing-{step:08d}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, beside / "model.safetensors")
        moments, groups = _flatten_optimizer(optimizer)
        save_file({**moments, "rng": torch.get_rng_state()}, beside / "optimizer.safetensors")
        plain = {**state, "step": step, "groups": groups, "config": self.config_hash()}
        _write_beside(beside / "state.json", json.dumps(plain, indent=1, sort_keys=True).encode())
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
        return target

    def config_hash(self) -> str:
        """Return the sha256 of the run's recipe, which its checkpoints carry."""
        plain = json.dumps(to_plain(self.recipe()), sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Load the weights of a checkpoint into `model`.

    Raises:
        RunError: The file is missing or damaged, or belongs to another config.
    """
    path = checkpoint / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be read ({error}); remove this checkpoint to use the one before") from error
    wanted = model.state_dict()
    wrong = sorted(
        name
        for name in wanted.keys() | tensors.keys()
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    )
    if wrong:
        raise RunError(
            f"{checkpoint}: a checkpoint of another config ({len(wrong)} tensors differ, first '{wrong[0]}')"
        )
    model.load_state_dict(tensors)


def load_training(checkpoint: Path, run: RunFolder, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore optimizer and random state of a checkpoint and return its JSON state.

    Raises:
        RunError: A file is missing or damaged, or the checkpoint belongs to another config.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text("utf-8"))
        tensors = load_file(checkpoint / "optimizer.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"{checkpoint}: cannot be read ({error}); remove it to use the one before") from error
    if state["config"] != run.config_hash():
        raise RunError(
            f"{checkpoint}: a checkpoint of another config than {run.path / 'config.toml'}; restore the config"
        )
    torch.set_rng_state(tensors.pop("rng"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, field = name.split(".")
        moments.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
    return state


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return the optimizer's tensors by name and its groups as plain data."""
    state = optimizer.state_dict()
    moments = {
        f"{index}.{field}": tensor.contiguous()
        for index, fields in state["state"].items()
        for field, tensor in fields.items()
    }
    return moments, state["param_groups"]


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    """Return the first field in which two plain configs differ, as 'name: old is not new'; empty if none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
            if found:
                return found
        return ""
    return "" if old == new else f"{where}: {old!r} there, {new!r} asked"


def _write_beside(path: Path, data: bytes) -> None:
    """Write a file under another name, flush it to disk and rename it."""
    beside = path.with_name(f".{path.name}.writing")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
