"""What is published last is what a reader sees; what was published before stays readable."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bytropix.datasets.store import FileRecord, Manifest, PartLayout, Store, open_storage, publish, write_part
from bytropix.datasets.store.manifest import quarantine_name, tidy
from bytropix.errors import StoreError

OLD = Path(__file__).parent / "data" / "version1.bx"


@pytest.fixture
def store(shared_store: Path, tmp_path: Path) -> Store:
    """Return a store that a test may harm."""
    return Store.open(shutil.copytree(shared_store, tmp_path / "s.bx"))


def appended(store: Store) -> Manifest:
    """Write one more part, a copy of the first, and a quarantine of its own; return the next version's manifest."""
    first = store.parts("train")[0]
    layout = PartLayout(codec=first.record.codec)  # type: ignore[arg-type]
    record = write_part(
        store.storage,
        "train",
        layout.part_name(99),
        first.arrays(),
        layout=layout,
        spans=first.record.spans,
        patch_lengths=first.record.patch_lengths,
        version=2,
    )
    store.storage.write(quarantine_name(2), b"")
    empty = FileRecord(path=quarantine_name(2), size=0, sha256=FileRecord.hash_of(b""))
    return replace(store.manifest, parts=(*store.manifest.parts, record), quarantine=empty, quarantined=0, version=2)


def test_append_keeps_the_version_before(store: Store) -> None:
    """Both versions open, each with its parts and its quarantine, and the old one is what it was."""
    publish(store.storage, appended(store), replaces=store.fingerprint)
    new, old = Store.open(store.url), Store.open(store.url, version=1)

    assert (new.manifest.version, old.manifest.version, old.fingerprint) == (2, 1, store.fingerprint)
    assert len(new.parts("train")) == len(old.parts("train")) + 1
    assert new.parts("train")[-1].arrays().text.tobytes() == old.parts("train")[0].arrays().text.tobytes()
    assert (new.quarantine(), len(old.quarantine())) == ([], store.manifest.quarantined)
    with pytest.raises(StoreError, match=r"no version 3; the newest is 2, older ones that are kept: \[1\]"):
        Store.open(store.url, version=3)


def test_only_what_some_version_names_is_kept(store: Store) -> None:
    """Left-overs go when a version is published; files of older versions stay until they are forgotten."""
    store.storage.write("receipts/train-00007.zarr.json", b"{}")
    store.storage.write("parts/train/.writing-00007.zarr-abc/bytes/c/0", b"half")
    manifest = appended(store)
    publish(store.storage, manifest, replaces=store.fingerprint)
    names = set(store.storage.sizes())

    assert not [name for name in names if "receipts" in name or ".writing" in name]
    assert {"versions/00001.json", "quarantine.jsonl", "quarantine-00002.jsonl"} <= names
    publish(store.storage, replace(manifest, version=3), replaces=Store.open(store.url).fingerprint, forget=True)
    assert {"versions/00001.json", "quarantine.jsonl"} & set(store.storage.sizes()) == set()


def test_a_job_that_was_overtaken_publishes_nothing(store: Store) -> None:
    """Of two jobs that began with the same version the second learns that it has changed; so do two first ones."""
    publish(store.storage, appended(store), replaces=store.fingerprint)
    before = store.storage.read("manifest.json").tobytes()

    with pytest.raises(StoreError, match="another job has changed the store"):
        publish(store.storage, replace(store.manifest, version=2), replaces=store.fingerprint)
    with pytest.raises(StoreError, match="another job has finished a store here"):
        publish(store.storage, store.manifest)
    assert store.storage.read("manifest.json").tobytes() == before


def test_create_lets_one_succeed(tmp_path: Path) -> None:
    """A file is created once, whatever there was to say; nothing is left beside it."""
    for storage in (open_storage(tmp_path / "a"), open_storage("memory://versions/create.bx")):
        answers = [storage.create("x/manifest.json", b"one"), storage.create("x/manifest.json", b"two")]

        assert (answers, storage.read("x/manifest.json").tobytes()) == ([True, False], b"one")
        assert list(storage.sizes()) == ["x/manifest.json"]


def test_stores_of_format_version_1_are_read() -> None:
    """A store that the first release wrote opens, reads, and cuts as it did."""
    store = Store.open(OLD)
    parts = [*store.parts("train"), *store.parts("val")]
    lines = [
        f"line {i} of file {n}: the store keeps what it was given, byte for byte" for n in range(4) for i in range(60)
    ]
    found = sorted(
        line
        for part in parts
        for line in part.arrays().text.tobytes().decode().replace("byteline", "byte\nline").splitlines()
    )

    assert (store.manifest.format_version, store.manifest.version, store.manifest.documents_in) == (1, 1, None)
    assert found == sorted(lines)
    assert store.quarantine() == [{"bytes_read": 0, "path": "v1src/empty.txt", "reason": "empty"}]
    for part in parts:
        arrays = part.arrays()
        entropy, starts = store.patcher().patch(arrays.text, arrays.doc_ends)
        assert (entropy == arrays.entropy).all()
        assert (starts == arrays.starts).all()


def test_what_the_last_step_leaves_is_removed(store: Store) -> None:
    """A job that is killed when its manifest has two names leaves one beside; the next run of it tidies up."""
    store.storage.write(".writing-manifest.json-0123", b"{}")
    before = set(store.storage.sizes())
    tidy(store.storage)

    assert before - set(store.storage.sizes()) == {".writing-manifest.json-0123"}
