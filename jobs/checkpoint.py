"""Checkpoints: everything a run needs to go on exactly, without pickle.

    checkpoints/step-00001000/  model.safetensors  optimizer.safetensors (moments, random states)  state.json

A checkpoint is written beside and renamed, so it is complete or absent.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bytropix.datasets.store.commit import new_folder
from bytropix.errors import RunError
from bytropix.jobs.recipe import Recipe

_RNG, _CUDA_RNG = "rng", "cuda_rng"


def save_checkpoint(
    folder: Path, recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write a checkpoint as a whole.

    Args:
        folder: Its folder, `step-<8 digits>`; what is there is replaced.
        recipe: The run's recipe, whose identity the checkpoint carries.
        model: Its weights are kept.
        optimizer: Its moments and groups are kept.
        state: Plain data: the step, the stream's state.

    Raises:
        RunError, StoreError: The disk is full; the checkpoints before stay as they are.
    """
    tensors, groups = _flatten(optimizer)
    tensors[_RNG] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[_CUDA_RNG] = torch.cuda.get_rng_state()
    plain = {**state, "groups": groups, "recipe": identity_of(recipe)}
    with new_folder(folder) as beside:
        try:
            save_file(
                {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, beside / "model.safetensors"
            )
            save_file(tensors, beside / "optimizer.safetensors")
        except SafetensorError as error:  # a full disk reaches us as text
            raise RunError(f"{folder}: cannot be written ({error}); free some space and go on with --resume") from error
        (beside / "state.json").write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Load the weights of a checkpoint into `model`.

    Raises:
        RunError: The file is missing or damaged, or belongs to another config.
    """
    tensors = _read(checkpoint / "model.safetensors")
    wanted = model.state_dict()
    wrong = sorted(
        name
        for name in wanted.keys() | tensors.keys()
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    )
    if wrong:
        raise RunError(
            f"{checkpoint}: a checkpoint of another config ({len(wrong)} tensors differ, first '{wrong[0]}'); "
            "restore the config.toml it was made with"
        )
    model.load_state_dict(tensors)


def load_training(checkpoint: Path, recipe: Recipe, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore optimizer and random state of a checkpoint and return its plain state.

    Raises:
        RunError: A file is missing or damaged, or the checkpoint belongs to another config.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text("utf-8"))
        same = state["recipe"] == identity_of(recipe)
        groups = state["groups"]
        if not (isinstance(state["step"], int) and isinstance(state["stream"], dict)):
            raise ValueError("step or stream is not one")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(checkpoint / "state.json", error) from error
    if not same:
        raise RunError(f"{checkpoint}: a checkpoint of another config; restore the config.toml it was made with")
    tensors = _read(checkpoint / "optimizer.safetensors")
    try:
        torch.set_rng_state(tensors.pop(_RNG))
        cuda = tensors.pop(_CUDA_RNG, None)
        if cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(cuda)
        optimizer.load_state_dict({"state": _nest(tensors), "param_groups": groups})
    except (KeyError, ValueError, RuntimeError) as error:
        raise _unreadable(checkpoint / "optimizer.safetensors", error) from error
    return state


def identity_of(recipe: Recipe) -> str:
    """Return the sha256 of what decides the weights of a run."""
    return hashlib.sha256(json.dumps(recipe.identity(), sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: cannot be read ({error}); remove this checkpoint to go on from the one before")


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return the optimizer's tensors by name, `<parameter>.<moment>`, and its groups as plain data."""
    state = optimizer.state_dict()
    moments = {
        f"{index}.{moment}": tensor.contiguous()
        for index, fields in state["state"].items()
        for moment, tensor in fields.items()
    }
    return moments, state["param_groups"]


def _nest(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Undo the names of `_flatten`."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, moment = name.split(".")
        moments.setdefault(int(index), {})[moment] = tensor
    return moments
