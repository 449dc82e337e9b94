"""Video training on two ranks, started by a real torchrun with gloo: as on one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bytropix.jobs.run_folder import RunFolder

WORKER = Path(__file__).with_name("video_rank_worker.py")
CASES = ("autoencoder-ddp", "diffusion-ddp", "diffusion-fsdp", "joint-fsdp")
ROUNDING = 5e-5  # largest difference of a loss that the order of sums may make, relative
NO_GRADIENT = 1e-15  # mean square of what is rounding
PATIENCE = 400  # seconds, on a busy machine


def rows(run: Path, event: str) -> list[dict[str, Any]]:
    """Return the rows of log.jsonl about an event."""
    lines = map(json.loads, (run / "log.jsonl").read_text("utf-8").splitlines())
    return [row for row in lines if row["event"] == event]


def alone(case: str) -> str:
    """Return the case of one process that a case should equal."""
    return "diffusion-ddp" if case == "diffusion-fsdp" else case


@pytest.fixture(scope="module")
def worked(
    clip_store_path: Path,
    trained_video: Path,
    tiny_video: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """What the worker left behind on one process, and on two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, begin in (("one", [sys.executable]), ("two", torchrun)):
        words = [clip_store_path, tiny_video, trained_video / "autoencoder", folder / name]
        done = subprocess.run(
            [*begin, str(WORKER), *map(str, words)], env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
    return {name: folder / name for name in ("one", "two")}


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one(worked: dict[str, Path], case: str) -> None:
    """Losses of each step, with noise and hidden conditions; and that on val clips behind the last, by mean weights."""
    one, two = worked["one"] / alone(case), worked["two"] / case
    found = [[row["loss"] for row in rows(run, "step")] for run in (one, two)]
    evaluated = [rows(run, "evaluate")[0]["eval/loss"] for run in (one, two)]

    assert len(found[0]) == 3
    assert found[0] == pytest.approx(found[1], rel=ROUNDING)
    assert evaluated[0] == pytest.approx(evaluated[1], rel=ROUNDING)
    assert rows(two, "start")[0]["ranks"] == 2


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_are_the_same(worked: dict[str, Path], case: str) -> None:
    """Whole tensors under the same names, weights and their means, equal but for rounding; latents measured alike.

    A bias before a normalization has a gradient of rounding alone, which Adam makes a step of: it may differ.
    """
    one, two = worked["one"] / alone(case), worked["two"] / case
    squares = tensors(one, "optimizer")
    for name in ("model", "ema"):
        wanted, found = tensors(one, name), tensors(two, name)
        assert wanted.keys() == found.keys()
        for key, tensor in wanted.items():
            assert tensor.shape == found[key].shape, key
            square = squares.get(f"{key}.exp_avg_sq")
            if square is None or float(square.max()) > NO_GRADIENT:
                largest = float((tensor - found[key]).abs().max())
                assert largest <= 5e-4 * max(1.0, float(tensor.abs().max())), f"{name} {key}"


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of the latest checkpoint."""
    return load_file(RunFolder(run).latest() / f"{name}.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_tallies_are_of_all_ranks(worked: dict[str, Path], case: str) -> None:
    """Errors by timestep, or of reconstruction, are means over the clips of both ranks, not of the one that speaks."""
    stem = "train/psnr_db" if case.startswith("autoencoder") else "loss_by_timestep/"
    curves = []
    for run in (worked["one"] / alone(case), worked["two"] / case):
        events = EventAccumulator(str(run)).Reload()
        tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(stem)]
        curves.append({(tag, point.step): point.value for tag in tags for point in events.Scalars(tag)})

    assert len(curves[0]) >= 3
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
