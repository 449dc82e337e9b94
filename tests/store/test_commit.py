"""Files and folders appear as a whole or not at all, on a full disk too."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bytropix.datasets.store import FileRecord, PartLayout, Store, open_storage
from bytropix.datasets.store.commit import new_folder, write_file
from bytropix.datasets.store.storage import same_files
from bytropix.errors import StoreError
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

FULL = """
import resource, sys
from pathlib import Path
from bytropix.datasets.store import PartLayout
from bytropix.errors import StoreError
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    ingest_bytes([Path(sys.argv[1])], Path(sys.argv[2]), IngestConfig(layout=PartLayout(codec=sys.argv[4])))
except StoreError as error:
    print(error)
"""


def test_folder_of_a_failed_block_vanishes(tmp_path: Path) -> None:
    """What was there stays, and what was being written is gone, when the block fails."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")

    def fail() -> None:
        with new_folder(tmp_path / "a") as beside:
            (beside / "new").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["a", "a/old"]


def test_folder_replaces_what_was_there(tmp_path: Path) -> None:
    """After a good block the name holds the new files only."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    with new_folder(tmp_path / "a") as beside:
        (beside / "new").write_text("new")

    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["a", "a/new"]


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that is a file is named, with the remedy."""
    (tmp_path / "file").write_text("x")

    with pytest.raises(StoreError, match=r"file/a: cannot be written \(Not a directory\); check"):
        write_file(tmp_path / "file" / "a", b"")


def test_same_files(tmp_path: Path) -> None:
    """Files are the same as long as none is gone, longer, or changed in place."""
    (tmp_path / "a").write_text("abc")
    records = [FileRecord(path="a", size=3, sha256=FileRecord.hash_of(b"abc"))]
    storage = open_storage(tmp_path)
    answers = [same_files(storage, "", records)]
    (tmp_path / "a").write_text("abd")
    answers.append(same_files(storage, "", records))
    (tmp_path / "a").unlink()

    assert [*answers, same_files(storage, "", records)] == [True, False, False]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize(("limit", "codec"), [(20_000, "zstd"), (150_000, "zstd"), (150_000, "none")])
def test_full_disk(tmp_path: Path, limit: int, codec: str) -> None:
    """When no more can be written, while the table or a part is, the run says so, and a resumed one completes."""
    (tmp_path / "a.txt").write_bytes(random.Random(0).randbytes(600_000))
    (tmp_path / "run.py").write_text(FULL)
    out = tmp_path / "s.bx"
    run = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "a.txt"), str(out), str(limit), codec],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )

    assert "no space left to write it" in run.stdout
    assert "--resume" in run.stdout
    assert run.stdout.count("\n") == 1
    with pytest.raises(StoreError, match=r"unfinished|no such store"):
        Store.open(out)
    assert not list(out.rglob(".writing-*"))
    ingest_bytes([tmp_path / "a.txt"], out, IngestConfig(layout=PartLayout(codec=codec)), resume=True)  # type: ignore[arg-type]
