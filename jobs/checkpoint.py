"""Checkpoints: everything a run needs to go on exactly, without pickle.

    checkpoints/step-00001000/  model.safetensors  optimizer.safetensors (moments, random states)  state.json
                                ema.safetensors (the running mean of the weights, where a run keeps one)

A checkpoint is written beside and renamed, so it is complete or absent. It holds whole tensors under their parameters'
names, so it is the same whatever the number of ranks that trained, and however the model was spread over them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bytropix.datasets.store.commit import new_folder
from bytropix.errors import RunError
from bytropix.jobs.ema import Ema, trainable
from bytropix.jobs.loop_config import TaskRecipe
from bytropix.jobs.sharding import share_like, whole

_RNG, _CUDA_RNG = "rng", "cuda_rng"
_EMA = "ema.safetensors"


def save_checkpoint(
    folder: Path,
    recipe: TaskRecipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    ema: Ema | None = None,
    write: bool = True,
) -> None:
    """Write a checkpoint as a whole.

    Args:
        folder: Its folder, `step-<8 digits>`; what is there is replaced.
        recipe: The run's recipe, whose identity the checkpoint carries.
        model: Its weights are kept.
        optimizer: Its moments are kept.
        state: Plain data: the step, the stream's state.
        ema: The running mean of the weights, if there is one.
        write: Off on ranks that only hand over their shares.

    Raises:
        RunError, StoreError: The disk is full; the checkpoints before stay as they are.
    """
    weights = _wholes(model.state_dict(), keep=write)
    tensors = _wholes(_moments(model, optimizer), keep=write)
    means = None if ema is None else _wholes(ema.means, keep=write)
    if not write:
        return
    tensors[_RNG] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[_CUDA_RNG] = torch.cuda.get_rng_state()
    plain = {**state, "recipe": identity_of(recipe)}
    with new_folder(folder) as beside:
        try:
            save_file(weights, beside / "model.safetensors")
            save_file(tensors, beside / "optimizer.safetensors")
            if means is not None:
                save_file(means, beside / _EMA)
        except SafetensorError as error:  # a full disk reaches us as text
            raise RunError(f"{folder}: cannot be written ({error}); free some space and go on with --resume") from error
        (beside / "state.json").write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Load the weights of a checkpoint into `model`.

    Raises:
        RunError: The file is missing or damaged, or belongs to another config.
    """
    model.load_state_dict(_matching(checkpoint / "model.safetensors", model.state_dict()))


def load_means(checkpoint: Path, model: nn.Module) -> None:
    """Give `model`, whose parameters are whole, the running mean of a checkpoint as its weights.

    Raises:
        RunError: The file is missing or damaged, or belongs to another config.
    """
    weights = trainable(model)
    model.load_state_dict(_matching(checkpoint / _EMA, weights), strict=False)


def load_training(
    checkpoint: Path, recipe: TaskRecipe, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None
) -> dict[str, Any]:
    """Restore optimizer, running mean and random state of a checkpoint and return its plain state.

    Args:
        checkpoint: Its folder.
        recipe: The recipe of the run that goes on.
        model: The one that `optimizer` is for; its parameters may be whole or shares.
        optimizer: Takes the moments, each as its parameter is laid out.
        ema: Takes the running mean, if the run keeps one.

    Raises:
        RunError: A file is missing or damaged, or the checkpoint belongs to another config.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text("utf-8"))
        same = state["recipe"] == identity_of(recipe)
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
        _load_moments(tensors, model, optimizer)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _unreadable(checkpoint / "optimizer.safetensors", error) from error
    if ema is not None:
        ema.load(_matching(checkpoint / _EMA, ema.means))
    return state


def identity_of(recipe: TaskRecipe) -> str:
    """Return the sha256 of what decides the weights of a run."""
    return hashlib.sha256(json.dumps(recipe.identity(), sort_keys=True).encode()).hexdigest()


def _matching(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file, which have the wanted names and shapes.

    Raises:
        RunError: They have not, or the file is missing or damaged.
    """
    tensors = _read(path)
    wrong = sorted(
        name
        for name in wanted.keys() | tensors.keys()
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape
    )
    if wrong:
        raise RunError(
            f"{path.parent}: a checkpoint of another config ({len(wrong)} tensors differ, first '{wrong[0]}'); "
            "restore the config.toml it was made with"
        )
    return tensors


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: cannot be read ({error}); remove this checkpoint to go on from the one before")


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors by name, `<parameter>.<moment>`."""
    return {
        f"{name}.{moment}": tensor
        for name, parameter in model.named_parameters()
        for moment, tensor in optimizer.state.get(parameter, {}).items()
    }


def _load_moments(tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer the tensors that `_moments` named; before a first step there are none.

    Raises:
        ValueError: They are those of other parameters.
    """
    moments: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, moment = name.rpartition(".")
        moments.setdefault(parameter, {})[moment] = tensor
    names = {parameter: name for name, parameter in model.named_parameters()}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if moments and moments.keys() != {names[parameter] for parameter in ordered}:
        raise ValueError("its moments are of other parameters")
    fields = {
        index: {name: share_like(moment, parameter) for name, moment in moments[names[parameter]].items()}
        for index, parameter in enumerate(ordered if moments else [])
    }
    optimizer.load_state_dict({"state": fields, "param_groups": optimizer.state_dict()["param_groups"]})


def _wholes(tensors: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Put tensors together of which each rank holds a share, one after the other, and return them if asked to."""
    wholes = {}
    for name, tensor in tensors.items():
        one = whole(tensor)
        if keep:
            wholes[name] = (one if one is tensor else one.cpu()).contiguous()
    return wholes
