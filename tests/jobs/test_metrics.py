"""What a run tells TensorBoard, read from a real server, and its own log."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bytropix.datasets.store import Store
from bytropix.jobs.byte_task import ByteTask, patch_lengths
from bytropix.jobs.metrics import gradient_norms
from bytropix.jobs.recipe import Recipe
from bytropix.jobs.train import Training

PATIENCE = 120  # seconds until a server on a busy machine has read a small file


@pytest.fixture(scope="module")
def crashed(store_path: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that crashed at step 7, was resumed from step 4 and reached step 8."""
    path = tmp_path_factory.mktemp("metrics") / "run"
    settings = replace(recipe, train=replace(recipe.train, log_every=1))
    store = Store.open(store_path)
    training = Training(ByteTask(settings, store), path, resume=False)
    one_step = training._one_step

    def crash(*arguments: Any) -> bool:
        more = one_step(*arguments)
        if training.step == 7:
            raise ZeroDivisionError
        return more

    training._one_step = crash  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        training()
    assert Training(ByteTask(settings, store), path, resume=True)()
    return path


@pytest.fixture(scope="module")
def server(crashed: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of `tensorboard --logdir` on that run."""
    words = [sys.executable, "-m", "tensorboard.main", "--logdir", str(crashed), "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = None
        for line in process.stderr:
            port = re.search(r"TensorBoard [\w.]+ at http://[^:]+:(\d+)/", line)
            if port:
                break
        assert port, "the server did not start"
        yield f"http://127.0.0.1:{port[1]}/data/plugin"
        process.kill()


def ask(server: str, what: str, **query: str) -> Any:
    """Return the JSON that the server answers, once it has read the run."""
    address = f"{server}/{what}?{urllib.parse.urlencode(query)}"
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(address) as answer:
                found = json.load(answer)
        except urllib.error.URLError:
            found = None
        if found or time.monotonic() > end:
            return found
        time.sleep(0.2)


def points(server: str, tag: str) -> dict[int, float]:
    """Return the values of a scalar by step, after checking that no step is there twice."""
    rows = ask(server, "scalars/scalars", run=".", tag=tag)
    assert rows, tag
    assert len({row[1] for row in rows}) == len(rows), f"{tag}: a step appears twice"
    return {int(step): float(value) for _, step, value in rows}


def logged(run: Path, event: str) -> dict[int, dict[str, Any]]:
    """Return the rows of one kind in log.jsonl by step."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    rows = {row["step"]: row for row in lines if row["event"] == event}
    assert len(rows) == sum(row["event"] == event for row in lines), "a step is logged twice"
    return rows


def test_tensorboard_serves_every_scalar_that_is_promised(server: str) -> None:
    """Each tag has a point at its steps, once each, though steps 5 to 7 were taken twice."""
    every = list(range(1, 9))
    for tag in ("loss/train_nats", "speed/bytes_per_second", "time/data_wait_pct", "optim/lr", "grad_norm/all"):
        assert list(points(server, tag)) == every
    assert list(points(server, "eval/bits_per_byte")) == [4, 8]
    for level in range(2):
        for name in ("curvature", "scale", "spread"):
            found = points(server, f"levels/{level}/{name}")
            assert list(found) == every
            assert all(value > 0 for value in found.values())
    for module in ("encoder", "mixer", "nesting", "decoder", "head"):
        assert all(value > 0 for value in points(server, f"grad_norm/{module}").values())
    assert all(0 <= value <= 100 for value in points(server, "time/data_wait_pct").values())
    assert all(value > 0 for value in points(server, "speed/bytes_per_second").values())


def test_curves_and_log_hold_the_same_numbers(server: str, crashed: Path) -> None:
    """log.jsonl is the curve in another form."""
    for tag, event, field in (
        ("loss/train_nats", "step", "loss_nats"),
        ("eval/bits_per_byte", "evaluate", "bits_per_byte"),
    ):
        wanted = {step: row[field] for step, row in logged(crashed, event).items()}
        assert points(server, tag) == pytest.approx(wanted, rel=1e-6)


def test_the_learning_rate_is_the_schedule(server: str, recipe: Recipe) -> None:
    """Two steps of warm-up to the peak, then down."""
    rates = points(server, "optim/lr")

    assert rates[1] == pytest.approx(recipe.optim.lr / 2)
    assert rates[2] == pytest.approx(recipe.optim.lr)
    assert rates[3] > rates[8] > 0


def test_tensorboard_serves_patch_lengths_and_a_sample(server: str) -> None:
    """A histogram of bytes a patch, and text that the model wrote."""
    rows = ask(server, "histograms/histograms", run=".", tag="patches/length_bytes")
    texts = ask(server, "text/text", run=".", tag="sample/text_summary")

    assert sorted(row[1] for row in rows) == list(range(1, 9))
    for row in rows:
        filled = [(low, high) for low, high, count in row[2] if count > 0]
        assert filled[0][0] >= 0.9
        assert filled[-1][0] <= 64 + 3
    assert sorted(text["step"] for text in texts) == [4, 8]
    assert all(text["text"] for text in texts)


def test_patch_lengths_are_those_within_rows() -> None:
    """No length is counted across the border of two windows, nor that of the patch which the border cuts."""
    starts = torch.tensor([[1, 0, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1, 0, 0]], dtype=torch.bool)

    assert patch_lengths(starts).tolist() == [2, 3, 5]


def test_gradient_norms_are_by_module() -> None:
    """The norm over all parameters below a child; children without gradients have none."""
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 1), "b": torch.nn.Linear(2, 1), "c": torch.nn.ReLU()})
    model["a"].weight.grad = torch.tensor([[3.0, 0.0]])
    model["a"].bias.grad = torch.tensor([4.0])

    assert gradient_norms(dict(model.named_children())) == {"grad_norm/a": 5.0}


def test_the_log_tells_what_was_trained_on_what(crashed: Path, store: Store) -> None:
    """Every beginning, the resumed one too, notes the size of the model and the store."""
    rows = [json.loads(line) for line in (crashed / "log.jsonl").read_text("utf-8").splitlines()]
    begun = [row for row in rows if row["event"] == "start"]

    assert len(begun) == 2
    assert all(row["fingerprint"] == store.fingerprint and row["parameters"] > 10_000 for row in begun)
    assert sorted(logged(crashed, "step")) == list(range(1, 9))
    assert sorted(logged(crashed, "evaluate")) == [4, 8]
