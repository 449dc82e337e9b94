"""A run that was killed is completed to the same bytes, and nothing half-written is trusted."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bytropix.datasets.store import Store
from bytropix.errors import StoreError
from bytropix.pipelines import job as job_module
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.part_task import PartDone, PartTask, do_part
from bytropix.pipelines.receipts import RECEIPTS

Tree = Callable[[Path], dict[str, bytes]]
SCRIPT = """
import sys
from pathlib import Path
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

if __name__ == "__main__":
    config = IngestConfig(document_bytes=1024, part_bytes=int(sys.argv[3]), val_fraction=0.1)
    ingest_bytes([Path(sys.argv[1])], Path(sys.argv[2]), config, workers=2)
"""


class StoppedError(Exception):
    """Stands for whatever ends a run early."""


def stop_after(count: int) -> Callable[[PartTask], PartDone]:
    """Return the work of a part, which fails after `count` parts."""
    left = [count]

    def work(task: PartTask) -> PartDone:
        if not left[0]:
            raise StoppedError
        left[0] -= 1
        return do_part(task)

    return work


def part_stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of change of every file of every part."""
    return {
        path.relative_to(out).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in (out / "parts").rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def shared_half(shared_corpus: Path, small: IngestConfig) -> Path:
    """Return a store that was left after three parts; not to be changed."""
    out = shared_corpus.parent / "half.bx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "do_part", stop_after(3))
        with pytest.raises(StoppedError):
            ingest_bytes([shared_corpus], out, small)
    return out


@pytest.fixture
def halfway(shared_half: Path, tmp_path: Path) -> Path:
    """Return a copy of the store that was left after three parts."""
    return Path(shutil.copytree(shared_half, tmp_path / "half.bx"))


@pytest.fixture
def whole(shared_store: Path, tmp_path: Path) -> Path:
    """Return a copy of the store that an uninterrupted run makes."""
    return Path(shutil.copytree(shared_store, tmp_path / "whole.bx"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and /proc")
@pytest.mark.parametrize("receipts", [-1, 1, 4])
def test_kill_and_resume(corpus: Path, tmp_path: Path, tree: Tree, receipts: int) -> None:
    """A real run with two workers, killed before, at and after its first parts, is completed to the same tree."""
    config = IngestConfig(document_bytes=1024, part_bytes=16384, val_fraction=0.1)
    out = tmp_path / "killed.bx"
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    run = subprocess.Popen([sys.executable, str(script), str(corpus), str(out), "16384"], env=environment)
    while run.poll() is None and len(list((out / RECEIPTS).glob("*.json")) if out.exists() else "") < receipts:
        time.sleep(0.001)
    while run.poll() is None and not (out / "babylon").exists():
        time.sleep(0.001)
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.send_signal(signal.SIGKILL)
    run.wait()

    assert not (out / "manifest.json").exists()
    with pytest.raises(StoreError, match=r"unfinished.*--resume"):
        Store.open(out)
    patience = time.monotonic() + 60
    while any(map(_alive, workers)) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not [worker for worker in workers if _alive(worker)]
    summary = ingest_bytes([corpus], out, config, resume=True)
    ingest_bytes([corpus], tmp_path / "whole.bx", config)
    assert summary.skipped >= receipts
    assert tree(tmp_path / "whole.bx") == tree(out)


def _alive(pid: str) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_finished_parts_are_kept_as_they_are(
    corpus: Path, small: IngestConfig, halfway: Path, whole: Path, tree: Tree
) -> None:
    """A resumed run writes the missing parts only."""
    before = part_stamps(halfway)
    summary = ingest_bytes([corpus], halfway, small, resume=True)
    after = part_stamps(halfway)

    assert 3 == summary.skipped < len(summary.store.manifest.parts)
    assert before == {name: stamp for name, stamp in after.items() if name in before}
    assert tree(whole) == tree(halfway)


def test_finished_store_is_not_written_to(corpus: Path, small: IngestConfig, whole: Path) -> None:
    """To resume a finished store of the same sources and settings changes no file and no folder."""
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in [whole, *whole.rglob("*")]}
    summary = ingest_bytes([corpus], whole, small, resume=True)

    assert len(summary.store.manifest.parts) == summary.skipped
    assert before == {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in [whole, *whole.rglob("*")]}


def test_finished_store_of_something_else_is_kept(corpus: Path, small: IngestConfig, whole: Path, tree: Tree) -> None:
    """To resume it with other settings or other sources is refused, with the remedy."""
    before = tree(whole)

    with pytest.raises(StoreError, match="a finished store of other config; replace it with --overwrite"):
        ingest_bytes([corpus], whole, replace(small, val_fraction=0.2), resume=True)
    (corpus / "new.txt").write_text("new")
    with pytest.raises(StoreError, match="a finished store of other sources"):
        ingest_bytes([corpus], whole, small, resume=True)
    assert before == tree(whole)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        lambda part: flip(part / "bytes" / "c" / "0"),
        lambda part: flip(part / "doc_ends" / "zarr.json"),
        lambda part: (part / "entropy" / "c" / "0").unlink(),
        lambda part: (part / "starts" / "c" / "0").write_bytes(b""),
        lambda part: shutil.rmtree(part),
        lambda part: flip(part.parents[2] / RECEIPTS / "train-00001.zarr.json"),
        lambda part: (part.parents[2] / RECEIPTS / "train-00001.zarr.json").write_text('{"key": 1, "record": {}}'),
        lambda part: (part.parents[2] / RECEIPTS / "train-00001.zarr.json").write_text("[]"),
    ],
    ids=["bytes", "metadata", "missing", "empty", "folder", "receipt", "other-receipt", "no-receipt"],
)
def test_part_that_is_not_whole_is_written_again(
    corpus: Path, small: IngestConfig, halfway: Path, whole: Path, tree: Tree, harm: Callable[[Path], None]
) -> None:
    """A finished part or receipt that has been damaged since is not trusted."""
    harm(halfway / "parts" / "train" / "00001.zarr")
    summary = ingest_bytes([corpus], halfway, small, resume=True)

    assert summary.skipped == 2
    assert tree(whole) == tree(halfway)


def test_half_written_things_are_swept(
    corpus: Path, small: IngestConfig, halfway: Path, whole: Path, tree: Tree
) -> None:
    """What a killed run left under temporary names neither disturbs a resumed run nor stays."""
    shutil.copytree(halfway / "parts/train/00000.zarr", halfway / "parts/train/.writing-00004.zarr")
    shutil.copytree(halfway / "babylon", halfway / ".writing-babylon")
    (halfway / ".writing-manifest.json").write_text("{")
    (halfway / RECEIPTS / ".writing-train-00003.zarr.json").write_text("{")
    ingest_bytes([corpus], halfway, small, resume=True)

    assert tree(whole) == tree(halfway)


def test_unfinished_store_resumed_with_other_settings(
    corpus: Path, small: IngestConfig, halfway: Path, tmp_path: Path, tree: Tree
) -> None:
    """Parts of other settings are written again, and those that the new plan lacks are removed."""
    larger = replace(small, part_bytes=1 << 20)
    summary = ingest_bytes([corpus], halfway, larger, resume=True)
    ingest_bytes([corpus], tmp_path / "larger.bx", larger)

    assert summary.skipped == 0
    assert tree(tmp_path / "larger.bx") == tree(halfway)


def test_unfinished_store_resumed_with_changed_sources(
    corpus: Path, small: IngestConfig, halfway: Path, tmp_path: Path, tree: Tree
) -> None:
    """A source that changed between the runs changes the entropy table, so that no earlier part is kept."""
    (corpus / "noise.bin").write_bytes(b"quite another text\n" * 5000)
    summary = ingest_bytes([corpus], halfway, small, resume=True)
    ingest_bytes([corpus], tmp_path / "changed.bx", small)

    assert summary.skipped == 0
    assert tree(tmp_path / "changed.bx") == tree(halfway)


def test_dead_worker_is_named(
    corpus: Path, small: IngestConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed, as by a lack of memory, ends the run with one line and the remedy."""
    monkeypatch.setattr(job_module, "do_part", _die)

    with pytest.raises(StoreError, match=r"a worker process died.*--resume"):
        ingest_bytes([corpus], tmp_path / "s.bx", small, workers=2)


def _die(task: PartTask) -> PartDone:
    os._exit(9)
