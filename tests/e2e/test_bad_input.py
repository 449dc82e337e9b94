"""Every bad input of the list is one line that names the thing and the remedy, code 2, nothing half-written."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bytropix.jobs.cli import main

INGEST = ("--workers", 1, "--document-bytes", 4096, "--val-fraction", 0.2)


@dataclass(frozen=True)
class Place:
    """A folder with good files in it."""

    root: Path
    """For whatever a case writes."""
    sources: Path
    """A folder of good files."""
    store: Path
    """A store of them."""
    recipe: Path
    """A good recipe."""

    def snapshot(self) -> dict[str, bytes]:
        """Return all files with their bytes."""
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file() and os.access(path, 4)}


@pytest.fixture(scope="session")
def made(sources: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The good store, made once."""
    root = tmp_path_factory.mktemp("bad")
    place = Place(root, sources, root / "good.bx", tiny)
    assert main(["ingest", "bytes", str(sources), "--out", str(place.store), *map(str, INGEST)]) == 0
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """A copy of the good store in a folder of its own."""
    shutil.copytree(made.store, tmp_path / "good.bx")
    return Place(tmp_path, made.sources, tmp_path / "good.bx", made.recipe)


Words = tuple[object, ...]


def ingest(place: Place, source: object, *flags: object) -> Words:
    """Return the words of an ingestion to new.bx."""
    return ("ingest", "bytes", source, "--out", place.root / "new.bx", *INGEST, *flags)


def train(place: Place, *flags: object) -> Words:
    """Return the words of a training."""
    return ("train", "bytes", "--store", place.store, "--run", place.root / "run", "--recipe", place.recipe, *flags)


def written(path: Path, data: bytes) -> Path:
    """Write a file and return it."""
    path.write_bytes(data)
    return path


def folder(path: Path) -> Path:
    """Make a folder and return it."""
    path.mkdir()
    return path


def newer(place: Place) -> Words:
    """Make the store one of a later version."""
    file = place.store / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    manifest["format_version"] = 99
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return train(place)


def unfinished(place: Place) -> Words:
    """Make the store one whose ingestion died."""
    (place.store / "manifest.json").unlink()
    return train(place)


def damaged(place: Place) -> Words:
    """Cut the largest file of the store."""
    file = max((path for path in place.store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    return train(place)


def misspelt(place: Place) -> Words:
    """Write a recipe with a slip of the pen."""
    recipe = written(place.root / "recipe.toml", b"[train]\nstpes = 3\n")
    return ("train", "bytes", "--store", place.store, "--run", place.root / "run", "--recipe", recipe)


CASES: dict[str, tuple[Callable[[Place], Words], list[str]]] = {
    "missing source": (lambda place: ingest(place, place.root / "none.txt"), ["none.txt"]),
    "empty source": (lambda place: ingest(place, written(place.root / "empty", b"")), ["empty"]),
    "folder with no files": (lambda place: ingest(place, folder(place.root / "nothing")), ["nothing"]),
    "output exists": (
        lambda place: ("ingest", "bytes", place.sources, "--out", place.store, *INGEST),
        ["good.bx", "--resume", "--overwrite"],
    ),
    "output is another thing": (
        lambda place: ("ingest", "bytes", place.sources, "--out", written(place.root / "letter", b"dear"), *INGEST),
        ["letter"],
    ),
    "mean patch of 0": (lambda place: ingest(place, place.sources, "--mean-patch", 0), ["64", "0"]),
    "mean patch of 65": (lambda place: ingest(place, place.sources, "--mean-patch", 65), ["64", "65"]),
    "no workers": (lambda place: ingest(place, place.sources, "--workers", 0), ["workers", "0"]),
    "val fraction of 1": (lambda place: ingest(place, place.sources, "--val-fraction", 1), ["val_fraction", "1"]),
    "missing store": (
        lambda place: ("train", "bytes", "--store", place.root / "none.bx", "--run", place.root / "run"),
        ["none.bx", "bytropix ingest bytes|video SOURCE --out"],
    ),
    "missing store to inspect": (lambda place: ("inspect", place.root / "none.bx"), ["none.bx"]),
    "unfinished store": (unfinished, ["good.bx", "--resume"]),
    "newer store": (newer, ["good.bx", "99"]),
    "damaged store": (damaged, ["good.bx"]),
    "context longer than a split": (lambda place: train(place, "--train.context", 1 << 24), [str(1 << 24), "context"]),
    "unknown key in a recipe": (misspelt, ["recipe.toml", "train.stpes", "'steps'"]),
    "no run to evaluate": (
        lambda place: ("evaluate", "--run", place.root / "none", "--store", place.store),
        ["none", "bytropix train bytes"],
    ),
    "no run to generate with": (lambda place: ("generate", "--run", place.root / "none"), ["none"]),
    "no run to score with": (
        lambda place: ("score", place.recipe, "--run", place.root / "none", "--out", place.root / "nats.npy"),
        ["none"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(name: str, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """The line names the thing and the remedy; what was there stays, and no store or run is begun."""
    make, wanted = CASES[name]
    words = [str(word) for word in make(place)]
    before = place.snapshot()
    capfd.readouterr()
    code = main(words)
    said = capfd.readouterr()

    lines = [line for line in said.err.splitlines() if line and not re.search(r"\[\d\d:\d\d", line)]  # no bars
    assert (code, said.out, len(lines)) == (2, "", 1), said.err
    assert lines[0].startswith("bytropix: ")
    assert all(part in lines[0] for part in wanted), lines[0]
    assert place.snapshot() == before
    assert not (place.root / "new.bx").exists()
    assert not (place.root / "run").exists()


def test_an_unreadable_source_is_one_line(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that may not be read is named."""
    source = written(place.root / "secret.txt", b"dear" * 5000)
    source.chmod(0)
    if os.access(source, os.R_OK):
        pytest.skip("this user may read every file")
    code = main([str(word) for word in ingest(place, source)])

    assert code == 2
    assert "secret.txt" in capfd.readouterr().err
    assert not (place.root / "new.bx").exists()


def test_a_single_error_has_no_trace_in_a_process_of_its_own(
    bytropix_program: Callable[..., "object"], tmp_path: Path
) -> None:
    """As a person sees it: one line on stderr, nothing on stdout, code 2."""
    done = bytropix_program("train", "bytes", "--store", tmp_path / "none.bx", "--run", tmp_path / "run")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []
