"""A run that was killed, stopped or resumed is the run that was never touched."""

import itertools
import json
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bytropix.datasets.store import Store
from bytropix.errors import StoreError
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.checkpoint import save_checkpoint
from bytropix.jobs.incoming import Incoming, incoming
from bytropix.jobs.recipe import Recipe, TrainConfig
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training

STEPS = 40
FLAGS = [
    *("--train.steps", str(STEPS), "--train.log-every", "1", "--train.checkpoint-every", "7"),
    *("--train.evaluate-every", "0", "--train.sample-bytes", "0"),
]


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of log.jsonl about steps."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    return [row for row in found if row["event"] == "step"]


def losses(run: Path) -> list[float]:
    """Return the loss of each step, after checking that each is there once and in order."""
    found = rows(run)
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    return [row["loss_nats"] for row in found]


def assert_same_weights(one: Path, other: Path) -> None:
    """Compare all tensors of the latest checkpoints, bit for bit."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = load_file(RunFolder(one).latest() / name), load_file(RunFolder(other).latest() / name)
        assert first.keys() == second.keys()
        for key, tensor in first.items():
            assert torch.equal(tensor, second[key]), f"{name} {key}"


def files(folder: Path) -> dict[Path, bytes]:
    """Return all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scalars(run: Path, tag: str) -> list[Any]:
    """Return the points of a curve as TensorBoard reads them."""
    found: list[Any] = EventAccumulator(str(run)).Reload().Scalars(tag)
    return found


def changed(recipe: Recipe, **fields: Any) -> Recipe:
    """Return the recipe with other fields of its loop."""
    return replace(recipe, train=replace(recipe.train, **fields))


@pytest.fixture(scope="module")
def straight(store_path: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all steps at once."""
    path = tmp_path_factory.mktemp("straight") / "run"
    settings = changed(recipe, steps=STEPS, evaluate_every=0, sample_bytes=0, checkpoint_every=STEPS)
    assert Training(ByteTask(settings, Store.open(store_path)), path, resume=False)()
    return path


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    number: signal.Signals,
    cli: Any,
    tiny: Path,
    store_path: Path,
    straight: Path,
    tmp_path: Path,
    program: list[str],
    environment: dict[str, str],
) -> None:
    """Dropout on, killed between two checkpoints: the losses, weights and moments are those of one go."""
    run = tmp_path / "run"
    words = ["train", "bytes", "--store", str(store_path), "--run", str(run), "--recipe", str(tiny), *FLAGS]
    with subprocess.Popen([*program, *words], env=environment, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not ((run / "log.jsonl").is_file() and len(rows_so_far(run)) >= 10):
            time.sleep(0.002)
        process.send_signal(number)
        said = process.communicate()[1]

    reached = len(rows_so_far(run))
    assert 10 <= reached < STEPS, said
    if number == signal.SIGTERM:
        assert process.returncode == 3, said
        assert f"stopped at step {reached}, saved; go on with --resume" in said
        assert RunFolder(run).latest().name == f"step-{reached:08}"
    else:
        assert process.returncode == -number
    assert cli("train", "bytes", "--store", store_path, "--run", run, "--resume").code == 0
    assert losses(run) == losses(straight)
    assert_same_weights(run, straight)
    curve = scalars(run, "loss/train_nats")
    assert [point.step for point in curve] == list(range(1, STEPS + 1))  # no hole before the kill, no step twice


def rows_so_far(run: Path) -> list[str]:
    """Return the complete rows about steps of a log that is being written."""
    lines = (run / "log.jsonl").read_text("utf-8").split("\n")[:-1]
    return [line for line in lines if '"step":' in line]


def test_a_run_killed_before_its_first_checkpoint_begins_its_log_anew(
    recipe: Recipe, store: Store, straight: Path, tmp_path: Path
) -> None:
    """No step and no start is there twice, in log.jsonl or in TensorBoard, and the torn last row is gone."""
    run = tmp_path / "run"
    settings = changed(recipe, steps=STEPS, log_every=1, evaluate_every=0, sample_bytes=0)
    training = Training(ByteTask(settings, store), run, resume=False)
    training._save = lambda _: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        training()
    assert len(losses(run)) == 4
    with (run / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "st')

    stop_after(Training(ByteTask(settings, store), run, resume=True), 6)

    assert losses(run) == losses(straight)[:6]
    assert (run / "log.jsonl").read_text("utf-8").count('"start"') == 1
    assert [point.step for point in scalars(run, "loss/train_nats")] == list(range(1, 7))


def test_a_val_split_that_cannot_be_read_does_not_hold_a_run_back(
    recipe: Recipe, store_path: Path, tmp_path: Path
) -> None:
    """Each start ends at an evaluation, but with the steps before it saved."""
    path = Path(shutil.copytree(store_path, tmp_path / "damaged.bx"))
    for file in (path / "parts" / "val").glob("*/bytes/c/*"):
        file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    settings = changed(recipe, steps=STEPS, evaluate_every=4, checkpoint_every=4, sample_bytes=0)
    for step in (4, 8):
        training = Training(ByteTask(settings, Store.open(path)), tmp_path / "run", resume=True)
        with pytest.raises(StoreError):
            training()
        assert RunFolder(tmp_path / "run").latest().name == f"step-{step:08}"


def test_a_checkpoint_is_not_written_over_itself(
    recipe: Recipe, store: Store, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is told to stop right after a save, or right after a resume, does not save that step again."""
    saved: list[str] = []

    def noted(folder: Path, *arguments: Any, **flags: Any) -> None:
        saved.append(folder.name)
        save_checkpoint(folder, *arguments, **flags)

    monkeypatch.setattr("bytropix.jobs.train.save_checkpoint", noted)
    settings = changed(recipe, steps=STEPS, evaluate_every=0, sample_bytes=0, checkpoint_every=4)
    stop_after(Training(ByteTask(settings, store), run, resume=True), 12)
    resumed = Training(ByteTask(settings, store), run, resume=True)
    resumed._one_step = lambda *_: False  # type: ignore[method-assign]
    assert not resumed()

    assert saved == ["step-00000012"]


def test_a_run_told_to_stop_does_not_ask_for_another_batch(
    recipe: Recipe, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one may never come: what was done is saved all the same."""

    def three(*arguments: Any) -> Incoming:
        yield from itertools.islice(incoming(*arguments), 3)
        raise StoreError("no more to be had")

    monkeypatch.setattr("bytropix.jobs.train.incoming", three)
    settings = changed(recipe, steps=STEPS, evaluate_every=0, sample_bytes=0)
    stop_after(Training(ByteTask(settings, store), tmp_path / "run", resume=False), 3)

    assert RunFolder(tmp_path / "run").latest().name == "step-00000003"


def test_resuming_at_every_step_changes_nothing(recipe: Recipe, store: Store, straight: Path, tmp_path: Path) -> None:
    """Stopped and begun anew after each of the first steps, in one process whose random state goes elsewhere."""
    run = tmp_path / "run"
    for step in (1, 2, 4, 8):
        settings = changed(recipe, steps=STEPS, evaluate_every=0, sample_bytes=0)
        training = Training(ByteTask(settings, store), run, resume=True)
        stop_after(training, step)
        torch.rand(17)

    assert losses(run) == losses(straight)[:8]


def stop_after(training: Training, step: int) -> None:
    """Train up to a step, as SIGTERM there would."""
    one_step = training._one_step

    def then_stop(*arguments: Any) -> bool:
        more = one_step(*arguments)
        if training.step == step:
            signal.raise_signal(signal.SIGTERM)
        return more

    training._one_step = then_stop  # type: ignore[method-assign]
    assert not training()
    assert training.step == step


def test_evaluations_and_samples_do_not_touch_the_training(
    recipe: Recipe, store: Store, straight: Path, tmp_path: Path
) -> None:
    """How often a run is looked at leaves its losses alone: dropout draws the same numbers."""
    settings = changed(recipe, steps=STEPS, evaluate_every=3, sample_bytes=5)
    training = Training(ByteTask(settings, store), tmp_path / "run", resume=False)
    stop_after(training, 8)

    assert losses(tmp_path / "run") == losses(straight)[:8]


def test_dropout_is_on_in_these_tests(recipe: Recipe, store: Store, straight: Path, tmp_path: Path) -> None:
    """Without it the tests above could not see a random state that was lost."""
    wubu = replace(recipe.wubu, dropout=0.0, nesting=replace(recipe.wubu.nesting, dropout=0.0))
    settings = replace(changed(recipe, steps=STEPS, evaluate_every=0, sample_bytes=0), wubu=wubu)
    stop_after(Training(ByteTask(settings, store), tmp_path / "run", resume=False), 2)

    assert losses(tmp_path / "run") != losses(straight)[:2]


def test_accumulated_micro_batches_are_one_batch(recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """Two batches of two give the losses of one batch of four, but for rounding."""
    wubu = replace(recipe.wubu, dropout=0.0, nesting=replace(recipe.wubu.nesting, dropout=0.0))
    found, norms = [], []
    for name, batch, accumulate in (("small", 2, 2), ("large", 4, 1)):
        settings = replace(changed(recipe, steps=4, evaluate_every=0, batch=batch, accumulate=accumulate), wubu=wubu)
        assert Training(ByteTask(settings, store), tmp_path / name, resume=False)()
        found.append(losses(tmp_path / name))
        norms.append([point.value for point in scalars(tmp_path / name, "grad_norm/all")])

    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)  # Adam alone would not see gradients twice as large
    assert found[0][0] != found[0][3]


def test_a_finished_run_resumes_to_its_end_and_further(cli: Any, store_path: Path, run: Path) -> None:
    """At its last step nothing is left to do; more steps are."""
    before = losses(run)

    assert cli("train", "bytes", "--store", store_path, "--run", run, "--resume").code == 0
    assert losses(run) == before
    assert cli("train", "bytes", "--store", store_path, "--run", run, "--resume", "--train.steps", 11).code == 0
    assert losses(run)[:8] == before
    assert len(losses(run)) == 11
    assert RunFolder(run).latest().name == "step-00000011"
    assert RunFolder(run).recipe().train.steps == 11


def test_the_log_forgets_what_is_done_again(run: Path) -> None:
    """Rows of later steps and a torn last row go; all else stays, byte for byte."""
    log = run / "log.jsonl"
    lines = log.read_text("utf-8").splitlines(keepends=True)
    log.write_text("".join(lines) + '{"event": "step", "step": 9, "loss_nats": 1.0}\n{"event": "st', encoding="utf-8")

    RunFolder(run).forget_after(8)
    assert log.read_text("utf-8") == "".join(lines)

    RunFolder(run).forget_after(4)
    kept = log.read_text("utf-8").splitlines(keepends=True)
    assert kept == [line for line in lines if json.loads(line).get("step", 0) <= 4]
    assert len(kept) < len(lines)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--optim.lr", 0.5), "optim.lr"),
        (("--train.context", 32), "train.context"),
        (("--train.seed", 1), "train.seed"),
        (("--wubu.dropout", 0.25), "wubu.dropout"),
        (("--wubu.nesting.levels.0.spread", 0.25), "wubu.nesting.levels[0].spread"),
        (("--model", "transformer"), "model"),
    ],
)
def test_a_run_is_not_resumed_with_another_config(
    cli: Any, store_path: Path, run: Path, flags: tuple[object, ...], message: str
) -> None:
    """What decides the weights is named with both values, and the run is left as it was."""
    before = (run / "config.toml").read_bytes()
    line = cli("train", "bytes", "--store", store_path, "--run", run, "--resume", *flags).refusal()

    assert f"made with another config ({message}" in line
    assert str(run) in line
    assert (run / "config.toml").read_bytes() == before


def test_a_run_is_not_resumed_on_another_store(cli: Any, run: Path, sources: Path, tmp_path: Path) -> None:
    """Its stream would go on with other bytes; the run is left as it was, its config too."""
    other = tmp_path / "other.bx"
    words = ("ingest", "bytes", sources, "--out", other, "--workers", 1, "--val-fraction", 0.1)
    assert cli(*words).code == 0

    before = files(run)
    line = cli("train", "bytes", "--store", other, "--run", run, "--resume", "--train.steps", 30).refusal()

    assert str(other) in line
    assert "fingerprint" in line
    assert files(run) == before


def test_a_checkpoint_holds_all_moments_and_the_random_state(run: Path) -> None:
    """Two moments and a count of steps for every parameter, and the state that dropout draws from."""
    tensors = load_file(RunFolder(run).latest() / "optimizer.safetensors")
    count = sum(1 for _ in RunFolder(run).model().parameters())

    assert len(tensors) == 3 * count + 1
    assert tensors["rng"].numel() > 600


def test_train_config_lists_what_a_resumed_run_may_change() -> None:
    """The number of steps is free, the window is not."""
    assert Recipe(train=TrainConfig(steps=1)).identity() == Recipe(train=TrainConfig(steps=2)).identity()
    assert Recipe(train=TrainConfig(context=1)).identity() != Recipe(train=TrainConfig(context=2)).identity()
