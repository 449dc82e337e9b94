"""`bytropix convert`: any layout to any other, nothing lost, nothing half done."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from bytropix.datasets.store import PartLayout, Store, open_storage, publish
from bytropix.errors import BytropixError, ConfigError, StoreError
from bytropix.jobs.cli import main
from bytropix.pipelines.runner import local_runner
from bytropix.pipelines.tools.convert import Converted, convert
from bytropix.pipelines.tools.verify import verify
from tests.tools.conftest import LAYOUTS, Tree


def converted(source: Path | str, out: Path | str, layout: PartLayout, **options: Any) -> Converted:
    """Convert a store in this process."""
    with local_runner(1) as runner:
        return convert(str(source), str(out), layout, runner, **options)


@pytest.mark.parametrize("to", LAYOUTS)
def test_any_layout_becomes_the_store_that_ingestion_makes(
    stores: dict[str, Path], layout: str, to: str, tmp_path: Path, tree: Tree
) -> None:
    """From every layout to every other: byte for byte what `ingest` with that layout gives, manifest included.

    So there and back again is the same store, and nothing is lost on the way.
    """
    made = converted(stores[layout], tmp_path / "out.bx", LAYOUTS[to]).store

    assert tree(made.path) == tree(stores[to])


def test_with_any_number_of_workers(stores: dict[str, Path], tmp_path: Path, tree: Tree) -> None:
    """Two processes make the same store."""
    with local_runner(2) as runner:
        made = convert(str(stores["zstd"]), str(tmp_path / "out.bx"), LAYOUTS["tar"], runner).store

    assert tree(made.path) == tree(stores["tar"])


def test_under_a_url_and_back(stores: dict[str, Path], tmp_path: Path, tree: Tree) -> None:
    """The store may come from an object store and go to one."""
    place = "memory://convert/s.bx"
    converted(stores["zstd"], place, LAYOUTS["tar"])
    with local_runner(1) as runner:
        assert verify(place, runner).faults == ()
    converted(place, tmp_path / "back.bx", LAYOUTS["zstd"])

    assert tree(tmp_path / "back.bx") == tree(stores["zstd"])
    fsspec.filesystem("memory").rm("/convert", recursive=True)


def test_what_an_earlier_run_left_is_completed(
    stores: dict[str, Path], tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies at any of its writes leaves no store; the rerun makes the same one and skips what is done."""
    out, left, written = tmp_path / "out.bx", 0, []
    place = open_storage(out)
    whole = type(place).open_write
    folder = type(place).write_folder

    def dying(method: Any) -> Any:
        def write(self: Any, *arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return method(self, *arguments)

        return write

    monkeypatch.setattr(type(place), "open_write", dying(whole))
    monkeypatch.setattr(type(place), "write_folder", dying(folder))
    for count in range(40):
        left = count
        try:
            written.append(converted(stores["tar"], out, LAYOUTS["zstd"], resume=True).skipped)
            break
        except KeyboardInterrupt:
            with pytest.raises(StoreError):
                Store.open(out)
    monkeypatch.undo()

    assert 4 < count < 39
    assert written == [2]
    assert tree(out) == tree(stores["zstd"])


def test_resume_of_a_finished_store(stores: dict[str, Path], tmp_path: Path, tree: Tree) -> None:
    """It writes nothing; a finished store of something else is refused, and replaced if that is asked for."""
    out = tmp_path / "out.bx"
    converted(stores["zstd"], out, LAYOUTS["raw"])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert converted(stores["zstd"], out, LAYOUTS["raw"], resume=True).skipped == 3
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(StoreError, match="exists; complete it with --resume"):
        converted(stores["zstd"], out, LAYOUTS["raw"])
    with pytest.raises(StoreError, match="another finished store"):
        converted(stores["zstd"], out, LAYOUTS["tar"], resume=True)
    converted(stores["zstd"], out, LAYOUTS["tar"], overwrite=True)

    assert tree(out) == tree(stores["tar"])


def test_damage_stops_it(store: Path, tmp_path: Path) -> None:
    """A wrong byte is not carried along: the error names the file, and there is no new store."""
    for path in sorted(store.rglob("*")):
        if not path.is_file():
            continue
        whole = path.read_bytes()
        place = 600 if path.suffix == ".tar" else len(whole) // 2  # in a member: headers hold nothing of the store
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreError) as caught:
            converted(store, tmp_path / "out.bx", LAYOUTS["lz4"], resume=True)
        path.write_bytes(whole)
        assert path.relative_to(store).as_posix() in str(caught.value)
        with pytest.raises(StoreError, match=r"no manifest|no such store"):
            Store.open(tmp_path / "out.bx")


def test_an_older_version(stores: dict[str, Path], tmp_path: Path, tree: Tree) -> None:
    """The version that is asked for is converted, and keeps its number."""
    source = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    store = Store.open(source)
    fewer = replace(store.manifest, version=2, documents_in=None, parts=store.manifest.parts[:1])
    publish(open_storage(source), fewer, replaces=store.fingerprint)
    newest = converted(source, tmp_path / "newest.bx", LAYOUTS["tar"]).store
    converted(source, tmp_path / "older.bx", LAYOUTS["tar"], version=1)

    assert (newest.manifest.version, len(newest.manifest.parts)) == (2, 1)
    assert tree(tmp_path / "older.bx") == tree(stores["tar"])


def test_a_store_of_format_1(tmp_path: Path) -> None:
    """An old store becomes one of the present format with the same content."""
    source = Path(__file__).parents[1] / "store" / "data" / "version1.bx"
    made = converted(source, tmp_path / "out.bx", LAYOUTS["tar"]).store
    for split in made.splits:
        for one, other in zip(Store.open(source).parts(split), made.parts(split), strict=True):
            np.testing.assert_array_equal(one.arrays().text, other.arrays().text)
            np.testing.assert_array_equal(one.arrays().starts, other.arrays().starts)
            assert one.doc_meta() == other.doc_meta()
    with local_runner(1) as runner:
        assert verify(str(made.path), runner).faults == ()


@pytest.mark.parametrize(
    ("out", "options", "error", "said"),
    [
        ("s.bx", {"resume": True}, StoreError, "lie in one another"),
        ("s.bx/inner", {}, StoreError, "lie in one another"),
        ("other", {"overwrite": True}, StoreError, "is not a store"),
        ("out.bx", {"resume": True, "overwrite": True}, ConfigError, "give one of them"),
        ("out.bx", {"version": 7}, StoreError, "there is no version 7"),
    ],
)
def test_what_cannot_be_is_refused(
    stores: dict[str, Path], tmp_path: Path, out: str, options: Any, error: type[BytropixError], said: str, tree: Tree
) -> None:
    """And nothing is touched."""
    source = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    before = tree(tmp_path)
    with pytest.raises(error, match=said):
        converted(source, tmp_path / out, LAYOUTS["raw"], **options)

    assert tree(tmp_path) == before


def test_command(stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary is on stderr, or one object on stdout."""
    words = ["convert", str(stores["zstd"]), str(tmp_path / "a.bx"), "--format", "webdataset", "--workers", "1"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "layout       webdataset, codec none" in err
    assert main([*words, "--json", "--resume"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["parts"], report["parts_skipped"]) == (3, 3)
    assert report["fingerprint"] == Store.open(stores["tar"]).fingerprint
    assert main([*words[:3], "--format", "webdataset", "--codec", "zstd"]) == 2
    assert "tars are not compressed" in capsys.readouterr().err
