"""`bytropix repatch`: the store that ingestion makes with other patches, in place, readable whenever it dies."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

from bytropix.datasets.store import Store, local_storage, open_storage
from bytropix.datasets.store.local_storage import LocalStorage
from bytropix.errors import BytropixError, ConfigError, StoreError
from bytropix.jobs.cli import main
from bytropix.patching import PatchConfig
from bytropix.pipelines.append import append_bytes
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.runner import local_runner
from bytropix.pipelines.tools.repatch import repatch
from bytropix.pipelines.tools.verify import verify
from tests.tools.conftest import LAYOUTS, Tree

EIGHT = PatchConfig(mean_patch=8.0, max_patch=48)
CHANGES = {"mean_patch": 8.0, "max_patch": 48}


@pytest.fixture(scope="session")
def eights(corpus: Path, config: IngestConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the store of the corpus with patches of 8 bytes, in every layout; not to be changed."""
    folder = tmp_path_factory.mktemp("eights")
    wanted = replace(config, patch=EIGHT)
    return {
        name: ingest_bytes([corpus], folder / f"{name}.bx", replace(wanted, layout=layout)).store.path
        for name, layout in LAYOUTS.items()
    }


def repatched(place: Path | str, **changes: Any) -> Store:
    """Repatch a store in this process."""
    with local_runner(1) as runner:
        return repatch(str(place), changes, runner)


def faults(place: Path | str) -> tuple[object, ...]:
    """Return what is wrong with a store."""
    with local_runner(1) as runner:
        return verify(str(place), runner).faults


def test_it_is_the_store_that_ingestion_makes(store: Path, layout: str, eights: dict[str, Path], tree: Tree) -> None:
    """Byte for byte, manifest included, so the level is calibrated on the very documents that ingestion takes."""
    repatched(store, **CHANGES)

    assert tree(store) == tree(eights[layout])


def test_only_starts_are_written(stores: dict[str, Path], tmp_path: Path) -> None:
    """In Zarr parts all other files keep their place on disk, and plain zarr lists five arrays as before."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))

    def places() -> dict[str, tuple[int, int]]:
        files = [path for path in store.rglob("*") if path.is_file()]
        return {path.relative_to(store).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}

    before = places()
    repatched(store, **CHANGES)
    after = places()

    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if "/starts/c/" in name or name == "manifest.json"} | {
        name for name in before if "/starts/zarr.json" in name
    }
    group = zarr.open_group(store / "parts" / "train" / "00000.zarr", mode="r")
    assert sorted(group.array_keys()) == ["bytes", "doc_ends", "doc_meta", "entropy", "starts"]


def test_with_any_number_of_workers(
    stores: dict[str, Path], eights: dict[str, Path], tmp_path: Path, tree: Tree
) -> None:
    """Two processes make the same store."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    with local_runner(2) as runner:
        repatch(str(store), CHANGES, runner)

    assert tree(store) == tree(eights["zstd"])


class Killed(BaseException):
    """What stands for a kill."""


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the process die at the n-th change of a name on disk, n in a list of one; -1: never."""
    left = [-1]

    def counted(method: Any) -> Any:
        def run(*arguments: Any, **keywords: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return method(*arguments, **keywords)

        return run

    remove = LocalStorage.remove

    def one_by_one(self: LocalStorage, names: list[str]) -> None:
        for name in names:
            counted(remove)(self, [name])

    monkeypatch.setattr(local_storage, "rename", counted(local_storage.rename))
    monkeypatch.setattr(LocalStorage, "remove", one_by_one)
    yield left
    left[0] = -1


@pytest.mark.parametrize("layout", ["zstd", "tar"])
def test_death_at_any_moment(
    layout: str, small: tuple[Path, IngestConfig], tmp_path: Path, deaths: list[int], tree: Tree
) -> None:
    """Before or after any change on disk the store is whole, with the old cut or the new; a rerun completes it."""
    source, config = small
    config = replace(config, layout=LAYOUTS[layout])
    old = ingest_bytes([source], tmp_path / "old.bx", config).store
    new = ingest_bytes([source], tmp_path / "new.bx", replace(config, patch=EIGHT)).store
    whole, patchers, seen = tree(new.path), [old.manifest.patcher, new.manifest.patcher], []
    for moment in range(200):
        store = shutil.copytree(old.path, tmp_path / str(moment))
        deaths[0] = moment
        try:
            repatched(store, **CHANGES)
            break
        except Killed:
            deaths[0] = -1
        seen.append(patchers.index(Store.open(store).manifest.patcher))
        assert faults(store) == (), moment
        repatched(store, **CHANGES)
        assert tree(store) == whole, moment

    assert seen == sorted(seen)
    assert 5 < sum(seen) < moment - 5


def test_a_death_and_then_other_settings(small: tuple[Path, IngestConfig], tmp_path: Path, deaths: list[int]) -> None:
    """Whatever another repatch left half done, the one that ends decides, and nothing of the other is left."""
    old = ingest_bytes([small[0]], tmp_path / "old.bx", small[1]).store
    wanted = repatched(shutil.copytree(old.path, tmp_path / "wanted.bx"), mean_patch=5.0)
    for moment in range(0, 200, 5):
        store = shutil.copytree(old.path, tmp_path / str(moment))
        deaths[0] = moment
        try:
            repatched(store, **CHANGES)
            break
        except Killed:
            deaths[0] = -1
        repatched(store, mean_patch=5.0, max_patch=64)
        with local_runner(1) as runner:
            found = verify(str(store), runner)
        assert (found.faults, found.warnings) == ((), ())
        assert Store.open(store).fingerprint == wanted.fingerprint

    assert moment > 20


def test_nothing_to_do(store: Path, layout: str, tree: Tree) -> None:
    """A store that is cut so already keeps every byte, and loses what a repatch that was given up has left."""
    before = tree(store)
    (store / "parts" / "train" / "00000-next.tar").touch()
    if layout != "tar":  # a run that was killed while it removed them had come to the folders
        (store / "parts" / "train" / "00000.zarr" / "starts-next" / "c").mkdir(parents=True)
    (store / "receipts").mkdir()
    repatched(store)
    repatched(store, mean_patch=6.0)

    assert tree(store) == before


def test_rules_that_share_a_table(corpus: Path, config: IngestConfig, tmp_path: Path, tree: Tree) -> None:
    """Thresholds become fixed; entropy needs another table, which is said, and nothing is touched."""
    patch = {name: PatchConfig(rule=name, mean_patch=5.0) for name in ("threshold", "fixed")}  # type: ignore[arg-type]
    made = {
        name: ingest_bytes([corpus], tmp_path / f"{name}.bx", replace(config, patch=patch[name])).store.path
        for name in patch
    }
    with pytest.raises(ConfigError, match=r"threshold\.bx: .*needs a table of character .*ingest again with --rule"):
        repatched(made["threshold"], rule="entropy")
    assert faults(made["threshold"]) == ()
    repatched(made["threshold"], rule="fixed")

    assert tree(made["threshold"]) == tree(made["fixed"])


@pytest.mark.parametrize("layout", ["zstd", "tar"])
def test_an_appended_store(
    store: Path, layout: str, eights: dict[str, Path], tmp_path: Path, tree: Tree, corpus: Path
) -> None:
    """Parts of every version are cut anew, calibrated on the first as ingestion was; older versions are dropped."""
    (tmp_path / "later.txt").write_text("".join(f"line {number} of the sequel\n" for number in range(9000)))
    eight = Path(shutil.copytree(eights[layout], tmp_path / "eight.bx"))
    append_bytes(store, [tmp_path / "later.txt"])
    append_bytes(eight, [tmp_path / "later.txt"])
    repatched(store, **CHANGES)

    assert faults(store) == ()
    assert (store / "manifest.json").read_bytes() == (eight / "manifest.json").read_bytes()
    assert not (store / "versions").exists()


def test_a_store_under_a_url(stores: dict[str, Path], eights: dict[str, Path]) -> None:
    """An object store is repatched in the same steps."""
    memory = fsspec.filesystem("memory")
    memory.put(str(stores["zstd"]), "/repatch/s.bx", recursive=True)
    made = repatched("memory://repatch/s.bx", **CHANGES)

    assert made.fingerprint == Store.open(eights["zstd"]).fingerprint
    assert faults("memory://repatch/s.bx") == ()
    memory.rm("/repatch", recursive=True)


def test_damage_stops_it(stores: dict[str, Path], tmp_path: Path) -> None:
    """A part that cannot be read is named, and the store keeps its cut."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    path = store / "parts" / "val" / "00000.zarr" / "entropy" / "c" / "0"
    whole = path.read_bytes()
    path.write_bytes(whole[:9] + b"?" + whole[10:])
    with pytest.raises(StoreError, match=r"val/00000\.zarr/entropy/c/0"):
        repatched(store, **CHANGES)
    path.write_bytes(whole)

    assert faults(store) == ()
    assert Store.open(store).fingerprint == Store.open(stores["zstd"]).fingerprint


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"mean_patch": 99.0}, "mean patch length"), ({"min_patch": 7}, "move mean_patch or the limits")],
)
def test_values_that_cannot_work(stores: dict[str, Path], changes: dict[str, Any], said: str) -> None:
    """They are refused before anything is read."""
    with pytest.raises(BytropixError, match=said):
        repatched(stores["zstd"], **changes)


def test_a_store_of_format_1(tmp_path: Path) -> None:
    """An old store is cut anew, and readers find the new starts."""
    store = Path(shutil.copytree(Path(__file__).parents[1] / "store" / "data" / "version1.bx", tmp_path / "s.bx"))
    before = Store.open(store).parts("train")[0].arrays()
    made = repatched(store, mean_patch=9.0)
    after = made.parts("train")[0].arrays()

    assert faults(store) == ()
    np.testing.assert_array_equal(before.text, after.text)
    assert np.flatnonzero(after.starts)[1] == 9


def test_command(
    stores: dict[str, Path], eights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary is on stderr, or one object on stdout."""
    store = Path(shutil.copytree(stores["lz4"], tmp_path / "s.bx"))
    words = ["repatch", str(store), "--mean-patch", "8", "--max-patch", "48", "--workers", "1"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "aimed at a mean of 8 bytes" in err
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == Store.open(eights["lz4"]).fingerprint
    assert main([*words[:2], "--rule", "words"]) == 2
    assert "ingest again with --rule words" in capsys.readouterr().err
    assert open_storage(store).sizes("versions") == {}
