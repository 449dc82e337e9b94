"""Training on many ranks, started by a real torchrun with gloo: as on one, whatever happens to a rank.

one process                 the reference, all steps
4 ranks, FSDP2, by command  a rank is killed
2 ranks, DDP, by command    goes on, then one rank gets SIGTERM
one process                 goes on to the last step
2 ranks, rank_worker.py     DDP, FSDP2 and dropout from the beginning; a gradient that is NaN; ranks that fail or hang
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import bytropix
from bytropix.datasets.store import Store
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.recipe import Recipe, read_recipe
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from tests.datasets.poison import PoisonedTask
from tests.datasets.rank_worker import POISON, poisoned

TINY = Path(__file__).parents[1] / "jobs" / "tiny.toml"
WORDS = ["the", "sea", "was", "calm", "and", "we", "went", "over", "it"]
STEPS, BATCH = 12, 8
PATIENCE = 400  # seconds for one torchrun on a busy machine; a hang ends here
ROUNDING = 2e-5  # largest difference of a loss that the order of sums may make, relative


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 21 windows to train on, so that a run meets the short last one of an epoch several times."""
    folder = tmp_path_factory.mktemp("ranks")
    draw = random.Random(3)
    (folder / "words").mkdir()
    for number in range(10):
        (folder / "words" / f"{number}.txt").write_text(" ".join(draw.choices(WORDS, k=80)), encoding="utf-8")
    ingest_bytes([folder / "words"], folder / "small.bx", IngestConfig(val_fraction=0.2, document_bytes=4096))
    return folder / "small.bx"


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of a tiny model without dropout."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    text = TINY.read_text("utf-8").replace("dropout = 0.1", "dropout = 0.0")
    text = text.replace("[optim]", "[optim]\nfinal_share = 1.0")  # a rate that knows nothing of the last step
    changes = {"steps": STEPS, "batch": BATCH, "log_every": 1, "checkpoint_every": 3}
    changes |= {"evaluate_every": 0, "sample_bytes": 0}  # sampling compiles kernels, for tens of seconds
    for name, value in changes.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")
    return path


@dataclass(frozen=True)
class Launch:
    """A torchrun that has been started."""

    process: subprocess.Popen[bytes]
    words: Path

    @classmethod
    def of(cls, folder: Path, ranks: int, *words: object) -> "Launch":
        """Start some ranks; what they say goes to a file in the folder."""
        place = str(Path(bytropix.__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": place, "OMP_NUM_THREADS": "1", "BYTROPIX_RANKS_TIMEOUT": "120"}
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        path = folder / f"words-{ranks}"
        with path.open("wb") as file:
            process = subprocess.Popen([*torchrun, *map(str, words)], env=environment, stdout=file, stderr=file)
        return cls(process, path)

    def ranks(self) -> dict[int, psutil.Process]:
        """Return the living ranks."""
        found = {}
        for child in psutil.Process(self.process.pid).children() if self.process.poll() is None else []:
            with suppress(KeyError, psutil.Error):
                found[int(child.environ()["RANK"])] = child
        return found

    def send_at(self, run: Path, step: int, rank: int, number: signal.Signals) -> None:
        """Send a signal to one rank as soon as a step has been logged."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            if any(row["step"] >= step for row in rows(run)):
                self.ranks()[rank].send_signal(number)
                return
            time.sleep(0.01)
        raise AssertionError(self.words.read_text("utf-8", "replace"))

    def finish(self) -> tuple[int, str]:
        """Return exit code and words of a torchrun that must end by itself."""
        try:
            self.process.wait(PATIENCE)
        finally:
            for rank in self.ranks().values():
                rank.kill()
            self.process.kill()
        return self.process.wait(), self.words.read_text("utf-8", "replace")


def command(store: Path, run: Path, *words: object) -> tuple[object, ...]:
    """Return `bytropix train bytes` as torchrun takes it: without `--` our --run is its own --run-path."""
    return "-m", "--", "bytropix", "train", "bytes", "--store", store, "--run", run, *words


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the complete rows about steps."""
    log = run / "log.jsonl"
    lines = log.read_text("utf-8").split("\n")[:-1] if log.is_file() else []
    return [row for row in map(json.loads, lines) if row["event"] == "step"]


def losses(run: Path) -> list[float]:
    """Return the loss of each step, after checking that each is there once and in order."""
    assert [row["step"] for row in rows(run)] == list(range(1, len(rows(run)) + 1))
    return [row["loss_nats"] for row in rows(run)]


@pytest.fixture(scope="session")
def straight(store_path: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that nothing happens to."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert Training(ByteTask(read_recipe(recipe), Store.open(store_path)), run, resume=False)()
    return run


@pytest.fixture(scope="session")
def killed(store_path: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A run of four ranks with FSDP2 of which one was killed: folder, exit code, words."""
    folder = tmp_path_factory.mktemp("elastic")
    words = command(store_path, folder / "run", "--recipe", recipe, "--shard", "fsdp")
    launch = Launch.of(folder, 4, *words)
    try:
        launch.send_at(folder / "run", step=4, rank=2, number=signal.SIGKILL)
    finally:
        ended = launch.finish()
    return folder / "run", *ended


@pytest.fixture(scope="session")
def stopped(store_path: Path, killed: tuple[Path, int, str]) -> tuple[Path, int, str]:
    """That run, gone on with two ranks and DDP, of which one got SIGTERM: folder, exit code, words."""
    run = killed[0]
    launch = Launch.of(run.parent, 2, *command(store_path, run, "--resume", "--shard", "ddp"))
    try:
        launch.send_at(run, step=7, rank=1, number=signal.SIGTERM)
    finally:
        ended = launch.finish()
    return run, *ended


@pytest.fixture(scope="session")
def worked(store_path: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What rank_worker.py left behind on two ranks."""
    folder = tmp_path_factory.mktemp("worked")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = Path(__file__).with_name("rank_worker.py")
    code, said = Launch.of(folder, 2, worker, store_path, recipe, folder, port).finish()
    assert code == 0, said
    return folder


def test_a_killed_rank_ends_all_of_them(killed: tuple[Path, int, str]) -> None:
    """The command ends with an error, a rank that is left says why, and the checkpoints are complete."""
    run, code, said = killed

    assert code != 0
    assert re.search(r"^bytropix: rank [013] of 4: another rank has ended", said, re.MULTILINE), said
    assert "Traceback" not in said.split("ChildFailedError")[0].split("torch/distributed")[0]
    assert RunFolder(run).checkpoints()


def test_a_run_stops_on_all_ranks_after_the_same_step(stopped: tuple[Path, int, str]) -> None:
    """SIGTERM to rank 1 alone: rank 0 saves the step that both have done; at the start it told what had changed."""
    run, code, said = stopped
    step = re.search(r"^stopped at step (\d+), saved; go on with --resume$", said, re.MULTILINE)

    assert code != 0
    assert step, said
    assert RunFolder(run).latest().name == f"step-{int(step[1]):08}"
    assert "number of ranks is 2, was 4" in said
    assert "train.shard is ddp, was fsdp" in said
    assert said.count("stopped at step") == 1


def test_any_number_of_ranks_goes_on_as_if_nothing_had_been(
    stopped: tuple[Path, int, str], straight: Path, store_path: Path, recipe: Path
) -> None:
    """4 ranks x 2, then 2 x 4, then 1 x 8: no window is lost or comes twice, and the losses are those of one go."""
    run = stopped[0]
    fewer = len(rows(run))
    assert Training(ByteTask(read_recipe(recipe), Store.open(store_path)), run, resume=True)()

    assert 7 <= fewer < STEPS
    assert [row["position"] for row in rows(run)] == [BATCH * step for step in range(STEPS)]
    assert losses(run) == pytest.approx(losses(straight), rel=ROUNDING)


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_two_ranks_with_micro_batches_are_one_batch(worked: Path, straight: Path, shard: str) -> None:
    """2 ranks x 2 micro-batches x 2 windows are 8 windows on one rank: the mean is over bytes, not over ranks."""
    assert losses(worked / shard) == pytest.approx(losses(straight)[:6], rel=ROUNDING)


def test_evaluation_is_the_same_however_a_model_was_spread(worked: Path) -> None:
    """Every rank scores the same bytes with the whole model, and a text sample is written from whole parameters."""
    found = []
    for shard in ("ddp", "fsdp"):
        lines = (worked / shard / "log.jsonl").read_text("utf-8").splitlines()
        found += [row for row in map(json.loads, lines) if row["event"] == "evaluate"]
        texts = EventAccumulator(str(worked / shard)).Reload().Tensors("sample/text_summary")
        assert len(texts[0].tensor_proto.string_val[0]) > 4

    assert [row["step"] for row in found] == [6, 6]
    assert found[0]["bytes"] == found[1]["bytes"] > 100
    assert found[0]["bits_per_byte"] == pytest.approx(found[1]["bits_per_byte"], rel=ROUNDING)


def test_checkpoints_are_the_same_however_a_model_was_spread(worked: Path, straight: Path) -> None:
    """Whole tensors under the same names, equal but for rounding, moments too."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        wanted = load_file(straight / "checkpoints" / "step-00000006" / name)
        for shard in ("ddp", "fsdp"):
            found = load_file(worked / shard / "checkpoints" / "step-00000006" / name)
            assert found.keys() == wanted.keys()
            for key in wanted.keys() - {"rng"}:
                assert found[key].shape == wanted[key].shape, key
                largest = float((found[key] - wanted[key]).abs().max())
                assert largest <= 1e-4 * max(1.0, float(wanted[key].abs().max())), f"{shard} {key}"


def test_ranks_that_resume_draw_the_same_dropout(worked: Path) -> None:
    """Stopped after three of six steps, on the same two ranks: the losses are those of one go."""
    assert losses(worked / "drop-3") == losses(worked / "drop-6")
    assert losses(worked / "drop-6") != losses(worked / "ddp")


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_a_bad_gradient_of_one_rank_is_left_out_on_all(
    worked: Path, shard: str, store_path: Path, recipe: Path, tmp_path: Path
) -> None:
    """A NaN in the rows of rank 1 leaves weights, moments and mean alone; all else is as on one rank, a resume too."""
    task = PoisonedTask(poisoned(read_recipe(recipe), steps=5), Store.open(store_path), losses=(POISON,))
    assert Training(task, tmp_path, resume=False)()
    run = worked / f"poisoned-{shard}"

    assert [row.get("skipped", False) for row in rows(run)] == [False, True, False, False, False]
    assert json.loads((run / "checkpoints" / "step-00000005" / "state.json").read_text("utf-8"))["skipped"] == 1
    for name in ("model", "optimizer", "ema"):
        before, after = (load_file(run / "checkpoints" / f"step-0000000{n}" / f"{name}.safetensors") for n in (1, 2))
        wanted, found = (
            load_file(path / "checkpoints" / "step-00000005" / f"{name}.safetensors") for path in (tmp_path, run)
        )
        assert found.keys() == wanted.keys()
        for key in wanted.keys() - {"rng"}:
            assert torch.equal(before[key], after[key]), key
            largest = float((found[key] - wanted[key]).abs().max())
            assert largest <= 1e-4 * max(1.0, float(wanted[key].abs().max())), key


def test_an_error_of_one_rank_is_told_once(worked: Path) -> None:
    """Rank 0 tells what rank 1 has found, rank 1 ends without a word."""
    assert (worked / "one-fails-0.txt").read_text() == "RunError rank 1: part 7, offset 4096: damaged"
    assert (worked / "one-fails-1.txt").read_text() == "SystemExit 2"


def test_a_rank_that_hangs_is_not_waited_for_without_end(worked: Path) -> None:
    """The other ends at the group's timeout and says so."""
    said = (worked / "one-hangs-0.txt").read_text()

    assert said.startswith("RunError rank 0 of 2: another rank has ended or did not answer within 5 seconds")


def test_a_rank_count_that_does_not_divide_the_batch_is_refused(worked: Path) -> None:
    """One line for all ranks, which names both numbers and what would work; nothing is written."""
    assert (worked / "misfit-0.txt").read_text() == (
        "ConfigError 2 ranks do not divide a batch of 7 windows: take 1, 7 ranks, or a batch of 8"
    )
    assert (worked / "misfit-1.txt").read_text() == "SystemExit 2"
    assert not (worked / "misfit").exists()


def test_batch_and_micro_batches_may_change_on_resume(straight: Path, store_path: Path, tmp_path: Path) -> None:
    """The windows go on without a gap; what changed is told."""
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    before: Recipe = RunFolder(run).recipe()
    other = replace(before, train=replace(before.train, batch=2, accumulate=3, steps=STEPS + 2))
    training = Training(ByteTask(other, Store.open(store_path)), run, resume=True)
    assert training()

    assert [row["position"] for row in rows(run)[STEPS:]] == [STEPS * BATCH, STEPS * BATCH + 6]
    assert training.changes == ["train.batch is 2, was 8", "train.accumulate is 3, was 1"]
