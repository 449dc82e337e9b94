"""Run folders and checkpoints: whole or absent, without pickle, and every damage is one line."""

import json
import pickle
import shutil
import signal
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bytropix.datasets.store import Store
from bytropix.errors import RunError
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.recipe import Recipe
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

NOT_PICKLED = (pickle.UnpicklingError, ValueError, KeyError, IndexError, EOFError, AttributeError, ImportError)


def test_a_checkpoint_opens_with_safetensors_and_json_alone(run: Path) -> None:
    """No file of a run can be unpickled, and none is an archive that torch would unpickle."""
    checkpoint = RunFolder(run).latest()
    names = sorted(path.name for path in checkpoint.iterdir())

    assert names == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert json.loads((checkpoint / "state.json").read_text("utf-8"))["step"] == 8
    for name in names[:2]:
        with safe_open(checkpoint / name, framework="numpy") as file:
            assert list(file.keys())
    for path in (path for path in run.rglob("*") if path.is_file()):
        assert not zipfile.is_zipfile(path), path
        with pytest.raises(NOT_PICKLED), path.open("rb") as file:
            pickle.load(file)


def test_a_half_written_checkpoint_is_ignored(cli: Any, store_path: Path, run: Path) -> None:
    """What a killed writer leaves beside is no checkpoint, and the next save sweeps it."""
    beside = run / "checkpoints" / ".writing-step-00000012"
    shutil.copytree(RunFolder(run).latest(), beside)
    (beside / "state.json").unlink()

    assert RunFolder(run).latest().name == "step-00000008"
    words = ("train", "bytes", "--store", store_path, "--run", run, "--resume", "--train.steps", 12)
    assert cli(*words, "--train.checkpoint-every", 4).code == 0
    assert not beside.exists()
    assert RunFolder(run).latest().name == "step-00000012"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "missing"])
def test_a_damaged_checkpoint_is_one_line(cli: Any, store_path: Path, run: Path, name: str, damage: str) -> None:
    """Resuming names the file and the way out, which works."""
    file = RunFolder(run).latest() / name
    data = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "garbage": b"\xff" * 64}[damage])

    words = ("train", "bytes", "--store", store_path, "--run", run, "--resume")
    line = cli(*words).refusal()

    assert str(file) in line
    assert "remove this checkpoint" in line
    shutil.rmtree(file.parent)
    assert cli(*words).code == 0
    assert RunFolder(run).latest().name == "step-00000008"


def test_a_state_that_lacks_something_is_one_line(cli: Any, store_path: Path, run: Path) -> None:
    """A state.json that is JSON, but not of ours."""
    file = RunFolder(run).latest() / "state.json"
    whole = json.loads(file.read_text("utf-8"))
    for broken in ([], {}, {key: value for key, value in whole.items() if key != "stream"}, {**whole, "step": "8"}):
        file.write_text(json.dumps(broken), encoding="utf-8")
        line = cli("train", "bytes", "--store", store_path, "--run", run, "--resume").refusal()
        assert str(file) in line


def test_a_checkpoint_of_another_config_is_one_line(
    cli: Any, store_path: Path, run: Path, recipe: Recipe, tmp_path: Path
) -> None:
    """Weights of other shapes, or of the same shapes from another recipe, are not loaded."""
    wider = replace(recipe, wubu=replace(recipe.wubu, mixer=replace(recipe.wubu.mixer, layers=2)))
    faster = replace(recipe, optim=replace(recipe.optim, lr=0.5))
    for index, other in enumerate((wider, faster)):
        settings = replace(other, train=replace(other.train, steps=1, evaluate_every=0, sample_bytes=0))
        assert Training(ByteTask(settings, Store.open(store_path)), tmp_path / f"{index}", resume=False)()
        target = RunFolder(run).latest()
        shutil.rmtree(target)
        shutil.copytree(RunFolder(tmp_path / f"{index}").latest(), target)
        line = cli("train", "bytes", "--store", store_path, "--run", run, "--resume").refusal()
        assert "a checkpoint of another config" in line
        assert str(target) in line


def test_a_tensor_that_is_missing_or_too_many_is_named(run: Path) -> None:
    """A weight is never left at its first value."""
    file = RunFolder(run).latest() / "model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    for changed in ({key: value for key, value in tensors.items() if key != name}, {**tensors, "x": torch.ones(1)}):
        save_file(changed, file)
        with pytest.raises(RunError, match=r"another config \(1 tensors differ, first '(x|" + name + r")'\)"):
            RunFolder(run).model()


@contextmanager
def files_at_most(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes: writing fails as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_while_saving_leaves_the_earlier_checkpoint(cli: Any, store_path: Path, run: Path) -> None:
    """One line that names the checkpoint; nothing half-written stays, and the run goes on where it stood."""
    words = ("train", "bytes", "--store", store_path, "--run", run, "--resume", "--train.steps", 12)
    quiet = ("--train.evaluate-every", 0, "--train.sample-bytes", 0)
    with files_at_most(64 << 10):  # less than the weights, more than log and events
        line = cli(*words, *quiet).refusal()

    assert "cannot be written" in line
    assert "--resume" in line
    assert str(run / "checkpoints" / "step-00000012") in line
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000004", "step-00000008"]
    assert cli(*words, *quiet).code == 0
    assert RunFolder(run).latest().name == "step-00000012"


def test_a_context_longer_than_the_split_is_one_line_and_leaves_no_run(
    cli: Any, store_path: Path, tiny: Path, tmp_path: Path
) -> None:
    """Everything is checked before the folder is made."""
    run = tmp_path / "runs" / "long"
    words = ("train", "bytes", "--store", store_path, "--run", run, "--recipe", tiny)
    line = cli(*words, "--train.context", 10_000_000).refusal()

    assert "10000000" in line
    assert "context" in line
    assert not run.parent.exists()


def test_a_run_that_is_there_is_not_overwritten(cli: Any, store_path: Path, tiny: Path, run: Path) -> None:
    """Without --resume it is refused, and both ways out are named."""
    before = sorted(path.name for path in run.rglob("*"))
    line = cli("train", "bytes", "--store", store_path, "--run", run, "--recipe", tiny).refusal()

    assert str(run) in line
    assert "--resume" in line
    assert sorted(path.name for path in run.rglob("*")) == before


@pytest.mark.parametrize("what", ["folder", "file"])
@pytest.mark.parametrize("flags", [(), ("--resume",)], ids=["new", "resume"])
def test_a_place_that_is_another_thing_is_left_alone(
    cli: Any, store_path: Path, tiny: Path, tmp_path: Path, what: str, flags: tuple[str, ...]
) -> None:
    """A folder with other files and a file are neither runs nor room for one."""
    place = tmp_path / "place"
    if what == "folder":
        place.mkdir()
        (place / "letter.txt").write_text("dear")
    else:
        place.write_text("dear")
    words = ("train", "bytes", "--store", store_path, "--run", place, *(() if flags else ("--recipe", tiny)))
    line = cli(*words, *flags).refusal()

    assert str(place) in line
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [
        "letter.txt" if what == "folder" else "place"
    ]


def test_an_empty_folder_and_one_that_died_before_its_config_are_room(
    recipe: Recipe, store: Store, tmp_path: Path
) -> None:
    """Starting again needs no clearing up."""
    run = RunFolder(tmp_path)
    run.admit(recipe, resume=False)
    run.keep(recipe, ByteTask(recipe, store).kept)
    (tmp_path / "config.toml").unlink()
    (tmp_path / ".writing-config.toml").write_text("model = ")

    run.admit(recipe, resume=False)
    run.keep(recipe, ByteTask(recipe, store).kept)
    assert run.recipe() == recipe


def test_a_run_without_checkpoint_keeps_the_store_it_is_resumed_on(
    recipe: Recipe, store: Store, tmp_path: Path
) -> None:
    """Its weights will be trained on that one's patches, so generation cuts as that store does."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("".join(f"{number:04} quick jumps\n" for number in range(900)))
    ingest_bytes([tmp_path / "words"], tmp_path / "other.bx", IngestConfig(val_fraction=0.3))
    other = Store.open(tmp_path / "other.bx")
    Training(ByteTask(recipe, store), tmp_path / "run", resume=False)  # killed before its first checkpoint
    Training(ByteTask(recipe, other), tmp_path / "run", resume=True)

    data = store.parts("train")[0].read("bytes", 0, 3000)
    kept = RunFolder(tmp_path / "run").patcher()(data)[1]
    assert (kept != store.patcher()(data)[1]).any()
    assert (kept == other.patcher()(data)[1]).all()
    assert json.loads((tmp_path / "run" / "store.json").read_text("utf-8"))["fingerprint"] == other.fingerprint


def test_a_moved_run_still_cuts_and_predicts_without_its_store(trained: Path, store: Store, tmp_path: Path) -> None:
    """The patcher and the weights travel with the folder."""
    moved = RunFolder(Path(shutil.copytree(trained, tmp_path / "moved")))
    part = store.parts("train")[0]
    data = part.read("bytes", 0, 3000)

    assert (moved.patcher()(data)[1] == store.patcher()(data)[1]).all()
    assert moved.document_bytes() == 4096
    assert not moved.model().training


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.toml", None),
        ("config.toml", "model ="),
        ("config.toml", "modell = 'wubu'"),
        ("store.json", None),
        ("store.json", "{"),
        ("store.json", '{"patcher": 3, "config": 4}'),
        ("babylon", None),
    ],
)
def test_a_spoiled_run_folder_is_one_line(cli: Any, run: Path, name: str, text: str | None) -> None:
    """Each file that a run needs is named when it is gone or unreadable."""
    if text is not None:
        (run / name).write_text(text)
    elif (run / name).is_dir():
        shutil.rmtree(run / name)
    else:
        (run / name).unlink()

    line = cli("generate", "--run", run, "--max-bytes", 3).refusal()

    assert name in line


def test_a_run_without_checkpoint_or_without_anything_is_one_line(cli: Any, run: Path, tmp_path: Path) -> None:
    """Reading commands say how to make what is missing."""
    shutil.rmtree(run / "checkpoints")

    assert "no checkpoint yet" in cli("generate", "--run", run).refusal()
    assert "no run there" in cli("generate", "--run", tmp_path / "nothing").refusal()


def test_a_loss_that_is_not_finite_stops_the_run_with_one_line(cli: Any, store_path: Path, run: Path) -> None:
    """The step is named, and no checkpoint of it is kept."""
    file = RunFolder(run).latest() / "model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(file).items()}, file)
    line = cli("train", "bytes", "--store", store_path, "--run", run, "--resume", "--train.steps", 12).refusal()

    assert "the loss of step 9 is nan; start a new run with a lower --optim.lr" in line  # a resumed one may not
    assert RunFolder(run).latest().name == "step-00000008"
