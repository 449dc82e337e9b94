"""The running mean of the weights: what it is, where it is used, and that it goes on."""

import json
import math
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bytropix.config import to_plain
from bytropix.datasets.store import Store
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.ema import Ema
from bytropix.jobs.evaluation import bits_per_byte
from bytropix.jobs.recipe import Recipe, TrainConfig, build_model
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training

DECAY = 0.3  # below what the warm-up gives from step 4 on
STEPS = 6


def averaged(recipe: Recipe, **fields: Any) -> Recipe:
    """Return a recipe whose run keeps a mean, and all its checkpoints."""
    usual = {"steps": STEPS, "ema": DECAY, "log_every": 1, "checkpoint_every": 1, "evaluate_every": 2}
    return replace(recipe, train=replace(recipe.train, **(usual | fields)))


@pytest.fixture(scope="module")
def mean_run(store_path: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps a mean; do not change it."""
    path = tmp_path_factory.mktemp("ema") / "run"
    assert Training(ByteTask(averaged(recipe), Store.open(store_path)), path, resume=False)()
    return path


def at(run: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of a checkpoint."""
    return load_file(run / "checkpoints" / f"step-{step:08}" / f"{name}.safetensors")


def test_the_mean_is_that_of_the_formula(mean_run: Path, recipe: Recipe) -> None:
    """A mean becomes d mean + (1 - d) weights from the first weights on, d = min(decay, (1 + step) / (10 + step))."""
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe)
    means = {name: weight.detach().double() for name, weight in model.named_parameters()}
    for step in range(1, STEPS + 1):
        decay = min(DECAY, (1 + step) / (10 + step))
        weights = at(mean_run, step, "model")
        means = {name: decay * mean + (1 - decay) * weights[name].double() for name, mean in means.items()}
        found = at(mean_run, step, "ema")

        assert found.keys() == means.keys()
        for name, mean in means.items():
            assert found[name].dtype == torch.float32
            torch.testing.assert_close(found[name].double(), mean, rtol=1e-5, atol=1e-7)
    assert any(not torch.allclose(found[name], weights[name], rtol=1e-3) for name in found)


def test_the_mean_changes_no_weight(mean_run: Path, recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """Evaluations take the mean for the weights and give them back: each step is that of a run without a mean."""
    settings = averaged(recipe, ema=0.0)
    assert Training(ByteTask(settings, store), tmp_path, resume=False)()

    for name in ("model", "optimizer"):
        file = f"checkpoints/step-{STEPS:08}/{name}.safetensors"
        assert (mean_run / file).read_bytes() == (tmp_path / file).read_bytes()
    assert not list(tmp_path.rglob("ema.safetensors"))


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_mean_is_that_of_one_go(
    step: int, mean_run: Path, recipe: Recipe, store: Store, tmp_path: Path
) -> None:
    """Taken up from any checkpoint, the mean ends in the same bits."""
    run = Path(shutil.copytree(mean_run, tmp_path / "run"))
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(run / "checkpoints" / f"step-{later:08}")
    assert Training(ByteTask(averaged(recipe), store), run, resume=True)()

    file = f"checkpoints/step-{STEPS:08}/ema.safetensors"
    assert (run / file).read_bytes() == (mean_run / file).read_bytes()


def test_evaluation_and_the_run_folder_take_the_mean(mean_run: Path, recipe: Recipe, store: Store) -> None:
    """The figure in the log is that of the mean, which is also what `RunFolder.model` returns."""
    model = RunFolder(mean_run).model()
    means = at(mean_run, STEPS, "ema")
    assert all(torch.equal(weight, means[name]) for name, weight in model.named_parameters())

    rows = [json.loads(line) for line in (mean_run / "log.jsonl").read_text("utf-8").splitlines()]
    logged = [row["bits_per_byte"] for row in rows if row["event"] == "evaluate"][-1]
    figures = []
    for weights in (means, at(mean_run, STEPS, "model")):
        model.load_state_dict(weights, strict=False)
        figures.append(
            bits_per_byte(
                model,
                store,
                split="val",
                context=recipe.train.context,
                at_most=recipe.train.evaluate_bytes,
            ).bits_per_byte
        )
    assert logged == figures[0]
    assert not math.isclose(logged, figures[1], rel_tol=1e-6)


def test_what_is_frozen_has_no_mean_and_weights_come_back() -> None:
    """Inside, trainable weights are the mean; behind, also behind an error, all are what they were, to the bit."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)
    ema = Ema(model, 0.5)
    first = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    torch.nn.init.ones_(model[1].weight)
    inside = []
    with suppress(ZeroDivisionError), ema.instead():
        inside.append(torch.equal(model[1].weight, first["1.weight"]))
        raise ZeroDivisionError

    assert inside == [True]
    assert ema.means.keys() == {"1.weight", "1.bias"}
    assert torch.equal(model[1].weight, torch.ones(2, 2))
    ema.update(100, torch.zeros(()))
    assert torch.equal(ema.means["1.weight"], first["1.weight"])
    ema.update(100, torch.ones(()))
    assert torch.equal(ema.means["1.weight"], first["1.weight"] + (1 - first["1.weight"]) * 0.5)


@pytest.mark.parametrize("damage", ["missing", "cut", "another"])
def test_a_mean_that_cannot_be_read_is_one_line(damage: str, cli: Any, mean_run: Path, tmp_path: Path) -> None:
    """The last weights do not silently take its place, neither to generate nor to go on."""
    run = Path(shutil.copytree(mean_run, tmp_path / "run"))
    file = run / "checkpoints" / f"step-{STEPS:08}" / "ema.safetensors"
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[:100])
    elif damage == "another":
        save_file({"x": torch.ones(1)}, file)

    assert str(file.parent) in cli("generate", "--run", run, "--max-bytes", 3).refusal()


def test_the_decay_belongs_to_the_run(cli: Any, store_path: Path, mean_run: Path, tmp_path: Path) -> None:
    """A resumed run cannot have another; one without a mean is, by its identity, a run from before there were any."""
    run = Path(shutil.copytree(mean_run, tmp_path / "run"))
    line = cli("train", "bytes", "--store", store_path, "--run", run, "--resume", "--train.ema", 0.5).refusal()

    assert "train.ema: 0.3 there, 0.5 asked" in line
    assert "ema" not in Recipe().identity()["train"]
    assert "ema" not in to_plain(TrainConfig())
    for wrong in (-0.1, 1.0):
        assert "train.ema" in cli("train", "bytes", "--store", store_path, "--run", run, "--train.ema", wrong).refusal()
