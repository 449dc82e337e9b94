"""`bytropix verify --repair`: damaged files come back as the very bytes they were, or it says why not."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.errors import BytropixError, SourceError, StoreError
from bytropix.jobs.cli import main
from bytropix.pipelines.append import append_bytes
from bytropix.pipelines.config import CleanConfig, IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.runner import local_runner
from bytropix.pipelines.tools.repair import Repaired, repair
from bytropix.pipelines.tools.repatch import repatch
from bytropix.pipelines.tools.verify import verify
from tests.tools.conftest import LAYOUTS, Tree, forge


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every test remember what it made, and nothing else."""
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "cache"))


def repaired(place: Path, *sources: Path | str) -> Repaired:
    """Check a store and mend it, in this process."""
    with local_runner(1) as runner:
        done = repair(verify(str(place), runner), runner, sources=[str(source) for source in sources])
        assert verify(str(place), runner).faults == ()
    return done


def flip(path: Path) -> None:
    """Change a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Let a file be shorter."""
    path.write_bytes(path.read_bytes()[:-7])


HARMS: list[Callable[[Path], object]] = [flip, cut, Path.unlink]


def files_of(store: Path) -> list[Path]:
    """Return what can be mended: all but the manifest."""
    return [path for path in sorted(store.rglob("*")) if path.is_file() and path.name != "manifest.json"]


@pytest.fixture
def small_store(small: tuple[Path, IngestConfig], layout: str, tmp_path: Path) -> Path:
    """Return the store of a small file in each layout; this machine does not remember from what it is."""
    store = ingest_bytes([small[0]], tmp_path / "small.bx", replace(small[1], layout=LAYOUTS[layout])).store.path
    shutil.rmtree(tmp_path / "cache")
    return store


def test_every_file_comes_back_from_the_sources(
    small_store: Path, small: tuple[Path, IngestConfig], tree: Tree
) -> None:
    """Whichever file is flipped, cut or gone."""
    before = tree(small_store)
    for path, harm in zip(files_of(small_store), HARMS * 99, strict=False):
        if path.stat().st_size:
            harm(path)
            repaired(small_store, small[0])
            assert tree(small_store) == before, path


def test_all_files_at_once(store: Path, corpus: Path, tree: Tree) -> None:
    """Of a store of which the manifest is left, all comes back."""
    before = tree(store)
    for path in files_of(store):
        path.unlink()
    done = repaired(store, corpus)

    assert tree(store) == before
    assert done.from_store == ()


def follows(name: str) -> bool:
    """Whether a file follows from others of the store."""
    arrays = "/starts/" in name or "/entropy/" in name
    return arrays or name.startswith("babylon/") or name.endswith((".index", ".zarr/zarr.json"))


def test_what_follows_from_the_rest_needs_no_source(small_store: Path, tree: Tree) -> None:
    """The table, entropies, starts, a group's metadata and a tar's index are made from what is left of the store."""
    before = tree(small_store)
    names = [path.relative_to(small_store).as_posix() for path in files_of(small_store)]
    for name, harm in zip(filter(follows, names), HARMS * 99, strict=False):
        harm(small_store / name)
        done = repaired(small_store)
        assert tree(small_store) == before, name
        assert done.from_sources == ()


def test_swapped_files(store: Path, corpus: Path, tree: Tree) -> None:
    """Two whole files in each other's place come back to their own."""
    before = tree(store)
    one, other = [path for path in files_of(store) if path.name in ("00000.tar", "0")][-2:]
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)
    repaired(store, corpus)

    assert tree(store) == before


def test_sources_that_changed_harm_nothing(stores: dict[str, Path], corpus: Path, tmp_path: Path, tree: Tree) -> None:
    """A source that is another now, or gone, ends in one line that names it, and the store is as it was before."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    flip(store / "parts" / "train" / "00000.zarr" / "bytes" / "c" / "0")
    before = tree(store)
    copy = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    (copy / "a.txt").write_text("something else")
    with pytest.raises(StoreError, match=r"corpus/a\.txt: this source of .* is not there as it was"):
        repaired(store, copy)
    with pytest.raises(StoreError, match=r"does not remember its sources; name them with --sources"):
        repaired(store)
    with pytest.raises(SourceError, match="gone"):
        repaired(store, tmp_path / "gone")

    assert tree(store) == before


def test_only_the_recorded_bytes_are_put_in_place(
    stores: dict[str, Path], corpus: Path, tmp_path: Path, tree: Tree
) -> None:
    """A part that was recorded otherwise than it can be made is left as it is, and named."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    forge(store, arrays=lambda arrays: replace(arrays, starts=np.roll(arrays.starts, 1)))
    flip(store / "parts" / "train" / "00000.zarr" / "starts" / "c" / "0")
    before = tree(store)
    with pytest.raises(StoreError, match=r"train/00000\.zarr: its sources do not give the part that was recorded"):
        repaired(store, corpus)

    assert tree(store) == before


def test_sources_are_remembered(corpus: Path, config: IngestConfig, tmp_path: Path, tree: Tree) -> None:
    """What this machine ingested it can repair without being told from what."""
    store = ingest_bytes([corpus], tmp_path / "s.bx", config).store.path
    before = tree(store)
    shutil.rmtree(store / "parts" / "val")
    done = repaired(store)

    assert tree(store) == before
    assert done.from_sources == ("val/00000.zarr",)


@pytest.mark.parametrize("told", [True, False])
def test_compressed_records_and_appended_versions(tmp_path: Path, small: Any, told: bool, tree: Tree) -> None:
    """Parts of each version are made from the files of that version, without the duplicates that were dropped."""
    source, config = small
    config = replace(config, clean=CleanConfig(drop_duplicates=True))
    text = source.read_bytes()
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "text.gz").write_bytes(gzip.compress(text))
    (one / "empty").touch()
    (other / "more.gz").write_bytes(gzip.compress(text[:20_000] + b"and then some\n" * 3000))
    (other / "bad.gz").write_bytes(gzip.compress(text)[:-9])
    store = ingest_bytes([one], tmp_path / "s.bx", config, max_bad=1.0).store.path
    append_bytes(store, [other], max_bad=1.0)
    before = tree(store)
    for path in files_of(store):
        if path.parent.name != "versions":
            flip(path) if path.stat().st_size else None
    if told:
        (store / "quarantine-00002.jsonl").write_bytes(before["quarantine-00002.jsonl"])
    repaired(store, *([one, other] if told else []))

    assert tree(store) == before


def test_while_a_repatch_is_under_way(
    stores: dict[str, Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Tree
) -> None:
    """Starts that lie under their second name are mended there."""
    store = Path(shutil.copytree(stores["tar"], tmp_path / "s.bx"))
    monkeypatch.setattr("bytropix.pipelines.tools.repatch._settle", lambda store: store)
    with local_runner(1) as runner:
        repatch(str(store), {"mean_patch": 8.0}, runner)
    before = tree(store)
    for harmed in ("00000-next.tar", "00000-next.index"):
        flip(store / "parts" / "train" / harmed)
        repaired(store, corpus)
        assert tree(store) == before


def test_a_damaged_manifest_cannot_be_mended(stores: dict[str, Path], tmp_path: Path, corpus: Path) -> None:
    """It says so, and what to do."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    flip(store / "manifest.json")
    with pytest.raises(BytropixError, match=r"manifest\.json: damaged, and nothing else tells what it said; restore"):
        repaired(store, corpus)


def test_command(stores: dict[str, Path], corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 once it is whole; what was mended is said."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    words = ["verify", str(store), "--workers", "1", "--repair"]
    flip(store / "parts" / "val" / "00000.zarr" / "bytes" / "c" / "0")
    assert main(words) == 2
    assert "--sources" in capsys.readouterr().err
    assert main([*words, "--sources", str(corpus)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{store}: whole\n")
    assert "mended from sources: val/00000.zarr" in err
    flip(store / "babylon" / "order2" / "c" / "0")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mended"] == {
        "from_store": ["babylon"],
        "from_sources": [],
        "from_copy": [],
    }
    assert main([*words, "--version", "1"]) == 2
