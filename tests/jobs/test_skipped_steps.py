"""Steps whose gradient is not finite: left out on the device, counted, and the end of a run that has too many."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bytropix.datasets.store import Store
from bytropix.errors import RunError
from bytropix.jobs.byte_task import BYTES
from bytropix.jobs.incoming import incoming
from bytropix.jobs.metrics import RunLog
from bytropix.jobs.recipe import Recipe
from bytropix.jobs.train import StopFlag, Training
from tests.datasets.poison import PoisonedTask
from tests.jobs.test_step import Questions

# Two windows a step: step n has those at 2 n - 2 and 2 n - 1.
STEP_3, STEP_4, STEP_6 = 5, 6, 10


def quick(recipe: Recipe, **fields: Any) -> Recipe:
    """Return a recipe of a few steps, each of which is logged and saved, whose weights have a mean."""
    usual = {"steps": 5, "log_every": 1, "checkpoint_every": 1, "evaluate_every": 0, "sample_bytes": 0, "ema": 0.9}
    return replace(recipe, train=replace(recipe.train, **(usual | fields)))


def step_rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of log.jsonl about steps, which are JSON without extensions such as NaN."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    return [row for row in rows if row["event"] == "step"]


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Return weights, moments and means of a checkpoint."""
    folder = run / "checkpoints" / f"step-{step:08}"
    found = {}
    for name in ("model", "optimizer", "ema"):
        found |= {f"{name} {key}": tensor for key, tensor in load_file(folder / f"{name}.safetensors").items()}
    del found["optimizer rng"]  # of dropout, which was drawn all the same
    return found


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of tensors that differ in a bit."""
    assert one.keys() == other.keys()
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


@pytest.mark.parametrize("what", ["losses", "gradients"])
def test_a_step_with_a_bad_gradient_changes_nothing(what: str, recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """Neither weights nor moments, their count of steps, nor the mean move; the step is told, and the run goes on."""
    task = PoisonedTask(quick(recipe, bad_steps=1), store, **{what: (STEP_3,)})
    assert Training(task, tmp_path, resume=False)()

    assert differing(tensors(tmp_path, 2), tensors(tmp_path, 3)) == set()
    moved = differing(tensors(tmp_path, 3), tensors(tmp_path, 4))
    assert {name.split()[0] for name in moved} == {"model", "optimizer", "ema"}
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path, 5).values())
    rows = step_rows(tmp_path)
    assert [row.get("skipped", False) for row in rows] == [False, False, True, False, False]
    assert [row["loss_nats"] is None for row in rows] == [False, False, what == "losses", False, False]
    counted = EventAccumulator(str(tmp_path)).Reload().Scalars("optim/skipped_steps")
    assert [point.value for point in counted] == [0, 0, 1, 1, 1]


def test_one_step_too_many_ends_the_run(recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """One line says how many there were, where, how many may be, and what is the last good checkpoint."""
    settings = quick(recipe, steps=8, bad_steps=2, checkpoint_every=2)
    task = PoisonedTask(settings, store, losses=(STEP_3, STEP_6), gradients=(STEP_4,))
    with pytest.raises(RunError) as caught:
        Training(task, tmp_path, resume=False)()

    assert str(caught.value) == (
        "3 steps had a gradient that is not finite, the last one step 6, and train.bad_steps lets 2 be left out; start "
        f"a new run with a lower --optim.lr (the last good checkpoint is {tmp_path / 'checkpoints' / 'step-00000004'})"
    )


def test_a_resumed_run_goes_on_counting(recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """Steps that were left out before count, and a checkpoint before them does not know of them."""

    def train(steps: int, *losses: int) -> bool:
        return Training(
            PoisonedTask(quick(recipe, steps=steps, bad_steps=1), store, losses=losses), tmp_path, resume=True
        )()

    assert train(3, STEP_3)
    with pytest.raises(RunError, match=r"^2 steps .* the last one step 6,"):
        train(8, STEP_6)
    assert json.loads((tmp_path / "checkpoints" / "step-00000003" / "state.json").read_text())["skipped"] == 1
    assert "skipped" not in json.loads((tmp_path / "checkpoints" / "step-00000002" / "state.json").read_text())


@pytest.mark.parametrize("what", ["losses", "gradients"])
def test_without_bad_steps_the_first_one_ends_the_run(what: str, recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """What is not finite is named, with the last good checkpoint or that there is none."""
    said = []
    for name, every in (("some", 2), ("none", 9)):
        task = PoisonedTask(quick(recipe, checkpoint_every=every), store, **{what: (STEP_3,)})
        with pytest.raises(RunError) as caught:
            Training(task, tmp_path / name, resume=False)()
        said.append(str(caught.value))

    is_bad = {"losses": "the loss of step 3 is nan", "gradients": "the gradient of step 3 is not finite"}[what]
    advice = f"{is_bad}; start a new run with a lower --optim.lr"
    good = tmp_path / "some" / "checkpoints" / "step-00000002"
    assert said == [f"{advice} (the last good checkpoint is {good})", f"{advice} (there is no checkpoint yet)"]


def test_leaving_steps_out_asks_the_device_nothing(recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """Whether a gradient is finite, and the mean of the weights, stay on the device until the log is written."""
    settings = quick(recipe, bad_steps=1, log_every=9)
    training = Training(PoisonedTask(settings, store, losses=(1,)), tmp_path, resume=False)
    batches = incoming(training.stream, training.device)
    with RunLog(tmp_path, BYTES, first=0, steps=5, bad_steps=1) as log, Questions() as questions:
        assert training._one_step(batches, log, StopFlag())
        assert log.skipped == 0
        assert not questions.asked
        log.flush()

    assert log.skipped == 1


def test_room_for_bad_steps_changes_no_number(recipe: Recipe, store: Store, trained: Path, tmp_path: Path) -> None:
    """A run without any has the losses and weights it has without room for them."""
    settings = replace(recipe, train=replace(recipe.train, bad_steps=5))
    assert Training(PoisonedTask(settings, store), tmp_path, resume=False)()

    name = "checkpoints/step-00000008/model.safetensors"
    assert step_rows(tmp_path) == step_rows(trained)
    assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()
