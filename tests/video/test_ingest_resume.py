"""A video ingestion that was killed is completed to the same bytes; sources and stores that lie elsewhere."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from bytropix.datasets.store import Store
from bytropix.errors import StoreError
from bytropix.pipelines.receipts import RECEIPTS
from bytropix.pipelines.video import job as job_module
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.pipelines.video.part_task import GroupDone, GroupTask, do_group

Tree = Callable[[Path], dict[str, bytes]]
PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
FLAGS = ["--size", "32", "48", "--clip-frames", "8", "--part-bytes", str(40 * 32 * 48 * 3), "--val-fraction", "0.5"]


class StoppedError(Exception):
    """Stands for whatever ends a run early."""


@pytest.fixture(scope="module")
def shared_half(film_folder: Path, small_video: VideoConfig) -> Path:
    """Return a store that was left after two groups of four; not to be changed."""
    out, done = film_folder.parent / "half.bx", []

    def work(task: GroupTask) -> GroupDone:
        if len(done) == 2:
            raise StoppedError
        done.append(task)
        return do_group(task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "do_group", work)
        with pytest.raises(StoppedError):
            ingest_video([film_folder], out, small_video, max_bad=0.5)
    return out


@pytest.fixture
def halfway(shared_half: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(shared_half, tmp_path / "half.bx"))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def first_part(store: Path) -> Path:
    """Return a part that is finished."""
    return min((store / "parts").glob("*/*.zarr"))


def test_finished_groups_are_kept(
    film_folder: Path, small_video: VideoConfig, halfway: Path, film_store: Path, tree: Tree
) -> None:
    """A resumed run writes the missing parts alone, and ends with the store of a run in peace."""
    with pytest.raises(StoreError, match=r"unfinished.*--resume"):
        Store.open(halfway)
    before = {path: path.stat().st_mtime_ns for path in (halfway / "parts").rglob("*") if path.is_file()}
    summary = ingest_video([film_folder], halfway, small_video, max_bad=0.5, resume=True)

    assert 0 < summary.skipped < len(summary.store.manifest.parts)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert tree(halfway) == tree(film_store)


@pytest.mark.parametrize(
    "harm",
    [
        lambda store: flip(next(path for path in (first_part(store) / "frames").rglob("*") if path.is_file())),
        lambda store: shutil.rmtree(first_part(store)),
        lambda store: flip(min((store / RECEIPTS).iterdir())),
        lambda store: min((store / RECEIPTS).iterdir()).write_text("[]"),
        lambda store: (store / "parts" / "train" / ".writing-00000.zarr").mkdir(parents=True),
    ],
    ids=["frames", "part", "receipt", "no-receipt", "half-written"],
)
def test_what_is_not_whole_is_made_again(
    film_folder: Path,
    small_video: VideoConfig,
    halfway: Path,
    film_store: Path,
    tree: Tree,
    harm: Callable[[Path], None],
) -> None:
    """A part or receipt that has been damaged since is not trusted, and half-written things are swept."""
    harm(halfway)
    ingest_video([film_folder], halfway, small_video, max_bad=0.5, resume=True)

    assert tree(halfway) == tree(film_store)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and /proc")
@pytest.mark.parametrize("receipts", [0, 1])
def test_kill_and_resume(
    film_folder: Path, film_store: Path, small_video: VideoConfig, tmp_path: Path, tree: Tree, receipts: int
) -> None:
    """A real run with two workers, killed while they decode: all processes end with it; resumed, the same store."""
    out = tmp_path / "killed.bx"
    words = ["ingest", "video", str(film_folder), "--out", str(out), "--max-bad", "0.5", "--workers", "2", *FLAGS]
    run = subprocess.Popen([sys.executable, "-m", "bytropix", *words], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    place = "parts/*" if receipts == 0 else f"{RECEIPTS}/[tv]*"
    patience = time.monotonic() + 60
    while run.poll() is None and time.monotonic() < patience and not list(out.glob(place)):
        time.sleep(0.001)
    others = _below(run.pid)
    run.send_signal(signal.SIGKILL)
    run.wait()

    assert not (out / "manifest.json").exists()
    while any(map(_alive, others)) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not [process for process in others if _alive(process)]
    summary = ingest_video([film_folder], out, small_video, max_bad=0.5, resume=True)
    assert summary.skipped >= receipts
    assert tree(out) == tree(film_store)


def _below(process: int) -> list[int]:
    """Return the processes that one has started, and these in turn."""
    found = []
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *_below(child)]
    return found


def _alive(process: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def bucket(s3_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of an empty bucket."""
    name = f"video-{abs(hash(request.node.name))}"
    files = fsspec.filesystem("s3")
    files.mkdir(name)
    yield f"s3://{name}"
    fsspec.filesystem("s3").rm(name, recursive=True)


def test_from_and_to_an_object_store(
    film_folder: Path, film_store: Path, small_video: VideoConfig, bucket: str, tmp_path: Path, tree: Tree
) -> None:
    """Films on a server are fetched, which is said, and a store there has the same bytes, and no spool file."""
    files = fsspec.filesystem("s3")
    files.put(str(film_folder), f"{bucket}/films", recursive=True)
    said: list[str] = []
    here = ingest_video([f"{bucket}/films"], tmp_path / "here.bx", small_video, max_bad=0.5, say=said.append).store
    there = ingest_video([f"{bucket}/films"], f"{bucket}/out/s.bx", small_video, max_bad=0.5).store
    again = ingest_video([f"{bucket}/films"], f"{bucket}/out/s.bx", small_video, max_bad=0.5, resume=True)

    assert tree(here.path) == tree(film_store)
    assert there.fingerprint == Store.open(film_store).fingerprint
    assert any("6 files lie elsewhere" in line for line in said)
    assert not [name for name in files.find(f"{bucket}/out") if "spool" in name or "receipts" in name]
    assert again.skipped == len(there.manifest.parts)


def test_standard_input(film_folder: Path, tmp_path: Path) -> None:
    """A film that is piped in is kept until it is decoded, beside others."""
    done = subprocess.run(
        [sys.executable, "-m", "bytropix", "ingest", "video", "-", "--out", str(tmp_path / "s.bx"), *FLAGS],
        input=(film_folder / "zoom.mp4").read_bytes(),
        capture_output=True,
        env=ENVIRONMENT,
    )
    store = Store.open(tmp_path / "s.bx")

    assert done.returncode == 0
    assert [source.name for source in store.manifest.sources] == ["stdin"]
    assert sum(part.frames for part in store.manifest.parts) == 75
    assert not (tmp_path / "s.bx" / "spool").exists()
