"""More sources become the next version of a store; what was there stays, byte for byte, and can still be read."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import Store
from bytropix.errors import SourceError, StoreError, TooManyBadError
from bytropix.jobs.cli import main
from bytropix.pipelines import job as job_module
from bytropix.pipelines.append import append_bytes
from bytropix.pipelines.config import CleanConfig, IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.ledger import Selection, sources_of
from bytropix.pipelines.part_task import PartDone, PartTask, do_part

Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def store(shared_store: Path, tmp_path: Path) -> Path:
    """Return a copy of the store of the corpus."""
    return Path(shutil.copytree(shared_store, tmp_path / "s.bx"))


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Return a folder of three new files: text, compressed text, and an empty one."""
    folder = tmp_path / "new"
    folder.mkdir()
    words = np.random.default_rng(3).choice(["snow ", "ice ", "wind ", "seal\n"], 9000)
    (folder / "a.txt").write_text("".join(words))
    (folder / "b.txt.gz").write_bytes(gzip.compress("".join(words[::-1]).encode()))
    (folder / "empty").touch()
    return folder


def files_of(found: dict[str, bytes]) -> dict[str, bytes]:
    """Return files without folders and the manifest."""
    return {name: data for name, data in found.items() if data != b"(folder)" and name != "manifest.json"}


def test_what_was_stored_stays(store: Path, more: Path, tree: Tree) -> None:
    """No file of the first version changes but the manifest, which is kept; both versions can be opened."""
    before, first = tree(store), Store.open(store)
    second = append_bytes(store, [more]).store
    after = tree(store)

    assert {name: after[name] for name in files_of(before)} == files_of(before)
    assert after["versions/00001.json"] == before["manifest.json"]
    assert second.manifest.version == 2
    assert Store.open(store, version=1).fingerprint == first.fingerprint
    assert [part.record for part in first.parts("train")] == [
        part.record for part in second.parts("train")[: len(first.parts("train"))]
    ]
    assert {part.version for part in second.manifest.parts} == {1, 2}
    assert not [name for name in after if name.startswith(("receipts", "spool"))]


def test_what_is_new_is_all_there(store: Path, more: Path) -> None:
    """Text, counts, sources and quarantine of the new version are those of both together, and add up."""
    old = Store.open(store).manifest
    new = append_bytes(store, [more]).store
    text = b"".join(
        part.read("bytes", 0, part.n_bytes).tobytes()
        for split in new.splits
        for part in new.parts(split)
        if part.record.version == 2
    )
    manifest = new.manifest

    assert len(text) == 2 * (more / "a.txt").stat().st_size
    assert [source.name for source in manifest.sources if source.version == 2] == ["new/a.txt", "new/b.txt.gz"]
    assert manifest.sources == tuple(sorted(manifest.sources, key=lambda source: source.name))
    assert [row["path"] for row in new.quarantine()] == ["corpus/empty.txt", "new/empty"]
    assert manifest.documents_in == manifest.documents + sum(manifest.dropped.values()) + manifest.quarantined
    assert manifest.documents_in is not None
    assert old.documents_in is not None
    assert manifest.documents_in > old.documents_in
    assert [part.split for part in manifest.parts] == sorted(part.split for part in manifest.parts)
    assert len({(part.split, part.name) for part in manifest.parts}) == len(manifest.parts)


def test_new_text_is_cut_by_the_old_patcher(store: Path, more: Path) -> None:
    """The table is not fitted again: appended text is scored by the table of the first version."""
    patcher = Store.open(store).patcher()
    new = append_bytes(store, [more]).store
    part = new.parts("train")[-1]
    text, entropy = part.read("bytes", 0, part.n_bytes), part.read("entropy", 0, part.n_bytes)

    assert part.record.version == 2
    assert new.manifest.babylon == Store.open(store, version=1).manifest.babylon
    np.testing.assert_array_equal(patcher.patch(text, part.doc_ends)[0], entropy)


def test_sources_that_are_there_are_left_out(store: Path, more: Path, corpus: Path, tree: Tree) -> None:
    """To append again what a store has, refused files included, makes no version and changes nothing."""
    append_bytes(store, [more])
    before = tree(store)
    summary = append_bytes(store, [corpus, more])

    assert summary.store.manifest.version == 2
    assert before == tree(store)


def test_order_and_workers_make_no_difference(store: Path, more: Path, tmp_path: Path, tree: Tree) -> None:
    """Two workers and another order give the same version."""
    other = Path(shutil.copytree(store, tmp_path / "t.bx"))
    append_bytes(store, [more / "a.txt", more / "b.txt.gz"])
    append_bytes(other, [more / "b.txt.gz", more / "a.txt"], workers=2)

    assert tree(store) == tree(other)


def test_duplicates_of_stored_documents(tmp_path: Path, small: IngestConfig) -> None:
    """Where the store drops duplicates, what it has already is not added, exactly or nearly."""
    pytest.importorskip("datasketch")
    texts = ["".join(f"{word} {n} " for word in ("one", "two", "three")) for n in range(300)]
    (tmp_path / "a.txt").write_text("".join(texts))
    near = "".join(texts).replace("one 7 ", "one seven ")
    (tmp_path / "b.txt").write_text("".join(texts))
    (tmp_path / "c.txt").write_text(near)
    (tmp_path / "d.txt").write_text("".join(texts[::-1]))
    clean = CleanConfig(drop_duplicates=True, near_duplicates=0.7)
    config = replace(small, document_bytes=16384, clean=clean, val_fraction=0)
    ingest_bytes([tmp_path / "a.txt"], tmp_path / "s.bx", config)
    manifest = append_bytes(tmp_path / "s.bx", [tmp_path / name for name in ("b.txt", "c.txt", "d.txt")]).store.manifest

    assert manifest.dropped == {"duplicate": 1, "near_duplicate": 1}
    assert [span.source for part in manifest.parts for span in part.spans] == ["a.txt", "d.txt"]
    assert manifest.documents_in == 4


def test_a_run_that_dies_leaves_the_old_version(
    store: Path, more: Path, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure in the second new part the store is as it was to readers; the same command completes it."""
    first = Store.open(store).fingerprint
    done: list[str] = []

    def stop(task: PartTask) -> PartDone:
        if done:
            raise ZeroDivisionError
        done.append(task.name)
        return do_part(task)

    whole = Path(shutil.copytree(store, tmp_path / "whole.bx"))
    append_bytes(whole, [more])
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "do_part", stop)
        with pytest.raises(ZeroDivisionError):
            append_bytes(store, [more])
    assert Store.open(store).fingerprint == first
    summary = append_bytes(store, [more])

    assert summary.skipped == 1
    assert tree(whole) == tree(store)


def test_bad_input_leaves_the_store_alone(store: Path, more: Path, tmp_path: Path, tree: Tree) -> None:
    """Nothing left, too much bad, a store inside its source: each is refused, and all versions stay."""
    (more / "c.gz").write_bytes(gzip.compress(b"text" * 1000)[:-4])
    before = tree(store)
    with pytest.raises(TooManyBadError, match=r"refused\.jsonl"):
        append_bytes(store, [more])
    (store / "refused.jsonl").unlink()
    with pytest.raises(SourceError, match=r"c\.gz: truncated.*no document is left"):
        append_bytes(store, [more / "c.gz"])
    with pytest.raises(StoreError, match="lie in one another"):
        append_bytes(store, [tmp_path])
    with pytest.raises(StoreError, match="no such store"):
        append_bytes(tmp_path / "none.bx", [more])

    assert before == tree(store)


def test_sources_of_every_version_are_remembered(corpus: Path, more: Path, small: IngestConfig, tmp_path: Path) -> None:
    """The ledger knows what each version was given."""
    ingest_bytes([corpus], tmp_path / "s.bx", small)
    append_bytes(tmp_path / "s.bx", [more], exclude=["empty"])

    assert sources_of(str(tmp_path / "s.bx")) == (
        Selection(sources=(str(corpus),)),
        Selection(sources=(str(more),), exclude=("empty",)),
    )


def test_the_command(store: Path, more: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bytropix append STORE SOURCE` says what the store is now, and takes the flags of an ingestion."""
    code = main(["append", str(store), str(more), "--json", "--exclude", "*.gz", "--workers", "1"])
    report = json.loads(capsys.readouterr().out)

    assert (code, report["version"], report["sources"], report["quarantined"]) == (0, 2, 5, 2)
    assert report["fingerprint"] == Store.open(store).fingerprint
