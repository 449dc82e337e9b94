"""A rerun that has nothing to do reads no source and writes nothing; anything else is found out."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bytropix.errors import StoreError
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.ledger import Selection, signatures, sources_of
from bytropix.pipelines.sources import find_files

OLD = 1_600_000_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache folder of this test."""
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(corpus: Path, small: IngestConfig, tmp_path: Path, cache: Path) -> Path:
    """Return a store of the corpus, whose files have stood still for a while."""
    time.sleep(0.1)
    ingest_bytes([corpus], tmp_path / "s.bx", small)
    return tmp_path / "s.bx"


@contextmanager
def opened() -> Iterator[list[str]]:
    """Give a list that gathers the names of the files that this process opens."""
    names: list[str] = []
    there = [names]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and there:
            there[0].append(str(arguments[0]))

    sys.addaudithook(hook)
    yield names
    there.clear()  # a hook cannot be taken away


def stages(corpus: Path, out: Path, config: IngestConfig, **options: object) -> list[str]:
    """Rerun and return the stages that there were."""
    seen: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in seen:
            seen.append(stage)

    ingest_bytes([corpus], out, config, resume=True, progress=progress, **options)  # type: ignore[arg-type]
    return seen


def test_nothing_to_do_reads_nothing(corpus: Path, small: IngestConfig, made: Path) -> None:
    """Not one source is opened, and not one file of the store is written."""
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in [made, *made.rglob("*")]}
    with opened() as names:
        found = stages(corpus, made, small, workers=2)

    assert found == []
    assert not [name for name in names if str(corpus) in name]
    assert str(made / "manifest.json") in names
    assert before == {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in [made, *made.rglob("*")]}


@pytest.mark.parametrize(
    "change",
    [
        lambda corpus: os.utime(corpus / "a.txt", (OLD, OLD)),
        lambda corpus: (corpus / "a.txt").replace(corpus / "b") and (corpus / "b").replace(corpus / "a.txt"),
        lambda corpus: (corpus / "empty.txt").unlink(),
    ],
    ids=["times", "names", "refused-file"],
)
def test_what_only_looks_changed_is_compared(
    corpus: Path, small: IngestConfig, made: Path, change: Callable[[Path], object]
) -> None:
    """Sources with other times are read again, found to be the same, and nothing is written."""
    change(corpus)

    assert stages(corpus, made, small) == ["scan"]


def test_a_change_that_keeps_size_and_time_is_found(corpus: Path, small: IngestConfig, made: Path) -> None:
    """A file whose content was replaced and whose time was set back is not taken for the old one."""
    path = corpus / "a.txt"
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"whale", b"snail"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    time.sleep(0.1)  # or it would be too new to be trusted anyway

    with pytest.raises(StoreError, match="a finished store of other sources"):
        stages(corpus, made, small)


def test_another_config_or_selection_is_found(corpus: Path, small: IngestConfig, made: Path) -> None:
    """The memory is of one config and one set of files."""
    with pytest.raises(StoreError, match="a finished store of other config"):
        stages(corpus, made, replace(small, val_fraction=0.2))
    with pytest.raises(StoreError, match="a finished store of other sources"):
        stages(corpus, made, small, exclude=["a.txt"])


def test_a_damaged_store_is_found(corpus: Path, small: IngestConfig, made: Path) -> None:
    """Even where no source is read, a store that lost a file is not called finished."""
    next((made / "parts").rglob("c/0")).unlink()

    with pytest.raises(StoreError, match="missing; the store is damaged"):
        stages(corpus, made, small)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"store": 5}', '{"fingerprint": "x"}'])
def test_a_memory_that_is_lost_costs_a_scan(
    corpus: Path, small: IngestConfig, made: Path, cache: Path, content: str | None
) -> None:
    """Whatever happens to the cache, the answer stays right."""
    (place,) = cache.iterdir()
    if content is None:
        place.unlink()
    else:
        place.write_text(content)

    assert stages(corpus, made, small) == ["scan"]
    assert stages(corpus, made, small) == []


def test_a_cache_that_cannot_be_written_is_no_error(
    corpus: Path, small: IngestConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is made all the same."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "file" / "cache"))

    assert ingest_bytes([corpus], tmp_path / "s.bx", small).store.splits == ["train", "val"]


def test_files_too_new_to_be_told_are_not_trusted(tmp_path: Path) -> None:
    """A file written this very moment may be written again in the same tick of the clock; whole seconds tick slowly."""
    path = tmp_path / "a"
    path.write_text("text")
    new = signatures(find_files([path]))
    time.sleep(0.1)
    settled = signatures(find_files([path]))
    whole = int(time.time()) * 1_000_000_000
    os.utime(path, ns=(whole, whole))

    assert (new, len(settled), signatures(find_files([path]))) == ((), 1, ())


def test_nothing_of_it_lies_in_the_store(made: Path, cache: Path) -> None:
    """Stores of two machines are the same, so what is known of this one lies elsewhere."""
    (place,) = cache.iterdir()
    known = json.loads(place.read_text())

    assert known["store"] == str(made.resolve())
    assert not [path for path in made.rglob("*") if path.is_file() and known["config"].encode() in path.read_bytes()]


@pytest.mark.usefixtures("cache")
def test_sources_are_remembered(
    corpus: Path, small: IngestConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a store was made from can be asked for, with paths that hold from any folder."""
    monkeypatch.chdir(corpus.parent)
    ingest_bytes(["corpus/more", "corpus/a.txt"], "s.bx", small, exclude=["*.bin"])

    assert sources_of(str(tmp_path / "s.bx")) == (
        Selection(sources=(str(corpus / "a.txt"), str(corpus / "more")), exclude=("*.bin",)),
    )
    with pytest.raises(StoreError, match=r"else\.bx: this machine does not remember its sources; name them"):
        sources_of(str(tmp_path / "else.bx"))
