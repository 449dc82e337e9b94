"""Damage is noticed on opening or on first touch, and no wrong byte is ever delivered."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numcodecs.zstd import Zstd

from bytropix.datasets.store import VIDEO_VERSION, FileRecord, PartRecord, Store, open_part, open_storage
from bytropix.datasets.store.zarr_group import with_crc
from bytropix.errors import StoreError


@pytest.fixture
def store(shared_store: Path, tmp_path: Path) -> Path:
    """Return a copy of the store that a test may harm."""
    return Path(shutil.copytree(shared_store, tmp_path / "s.bx"))


def touch_everything(path: Path) -> list[bytes]:
    """Open a store and read all that readers read."""
    store = Store.open(path)
    found = [repr(store.patcher().settings()).encode(), repr(store.quarantine()).encode()]
    for split in store.splits:
        for part in store.parts(split):
            sizes = {"bytes": part.n_bytes, "entropy": part.n_bytes, "starts": -(-part.n_bytes // 8)}
            found += [part.read(name, 0, size).tobytes() for name, size in sizes.items()]
            found += [part.doc_ends.tobytes(), repr(part.doc_meta()).encode()]
    return found


def files(store: Path) -> list[Path]:
    """Return one file of every kind: all but further parts of a split."""
    return [path for path in sorted(store.rglob("*")) if path.is_file() and "00001.zarr" not in path.parts]


def test_any_flipped_byte_is_an_error(store: Path) -> None:
    """One changed byte at the start, in the middle or at the end of any file raises StoreError."""
    touch_everything(store)
    silent = []
    for path in files(store):
        data = path.read_bytes()
        for place in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:place] + bytes([data[place] ^ 0x01]) + data[place + 1 :])
            try:
                touch_everything(store)
                silent.append((path.relative_to(store).as_posix(), place))
            except StoreError:
                pass
        path.write_bytes(data)

    assert len(files(store)) == 33
    assert silent == []


def test_any_missing_or_cut_file_is_an_error(store: Path) -> None:
    """A file that is gone, empty, or shorter by a byte is noticed on opening, before anything is read."""
    silent = []
    for path in files(store):
        data = path.read_bytes()
        for harm in (lambda path: path.unlink(), lambda path: path.write_bytes(b""), _cut):
            harm(path)
            try:
                Store.open(store)
                silent.append(path.relative_to(store).as_posix())
            except StoreError:
                pass
            path.write_bytes(data)

    assert silent == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_file_that_shrinks_after_opening(store: Path) -> None:
    """A part that is cut while the store is open is an error on first touch, not a crash."""
    opened = Store.open(store)
    for name in ("bytes", "entropy", "starts", "doc_ends", "doc_meta"):
        path = store / "parts" / "train" / "00000.zarr" / name / "c" / "0"
        path.write_bytes(path.read_bytes()[:100])
    part = opened.parts("train")[0]
    for touch in (
        lambda: part.block("bytes", 0),
        lambda: part.block("entropy", 0),
        lambda: part.block("starts", 0),
        lambda: part.doc_ends,
        part.doc_meta,
    ):
        with pytest.raises(StoreError, match=r"00000\.zarr"):
            touch()


def test_chunk_that_does_not_decode(store: Path) -> None:
    """A chunk with a right checksum that is no zstd frame, or one of another length, is a StoreError."""
    part = Store.open(store).parts("train")[0]
    if not part.record.compressed:
        pytest.skip("raw parts have no frames")
    for chunk in (b"this is no frame", Zstd().encode(np.zeros(1000, np.uint8))):
        whole = with_crc(chunk)
        index = np.array([[0, len(whole)]] + [[0, len(whole)]] * (-(-part.n_bytes // (1 << 18)) - 1), "<u8")
        folder = Path(part.url) / "bytes"
        (folder / "c" / "0").write_bytes(whole + with_crc(index.tobytes()))
        meta = json.loads((folder / "zarr.json").read_text())
        meta["attributes"]["block_crc32c"] = [int.from_bytes(whole[-4:], "little")] * len(index)
        (folder / "zarr.json").write_text(json.dumps(meta))
        fresh = open_part(open_storage(store), signed_anew(part.record, store))
        with pytest.raises(StoreError, match="block 0 of 'bytes', at byte 0 of the file, is damaged"):
            fresh.block("bytes", 0)


def signed_anew(record: PartRecord, store: Path) -> PartRecord:
    """Return the record of a part with the hashes of the files that lie there."""
    files = []
    for file in record.files:
        data = (store / record.folder / file.path).read_bytes()
        files.append(FileRecord(path=file.path, size=len(data), sha256=FileRecord.hash_of(data)))
    return replace(record, files=tuple(files))


def rewrite(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Return what changes a manifest and signs it again, as a forger would."""

    def harm(store: Path) -> None:
        plain = json.loads((store / "manifest.json").read_text())
        change(plain)
        plain["checksum"] = ""
        text = json.dumps(plain, indent=1, sort_keys=True) + "\n"
        digest = hashlib.sha256(text.encode()).hexdigest()
        (store / "manifest.json").write_text(text.replace('"checksum": ""', f'"checksum": "{digest}"', 1))

    return harm


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a//b", "..", "C:\\x", "a/./b", ""])
def test_paths_outside_the_store_are_refused(store: Path, name: str) -> None:
    """A manifest that names a path outside the store is not followed, whichever field it stands in."""
    whole = (store / "manifest.json").read_bytes()
    for change in (
        lambda plain: plain["parts"][0]["files"][0].update(path=name),
        lambda plain: plain["parts"][0].update(name=name),
        lambda plain: plain["parts"][0].update(split=name),
        lambda plain: plain["babylon"][0].update(path=name),
        lambda plain: plain["quarantine"].update(path=name),
    ):
        rewrite(change)(store)
        with pytest.raises(StoreError, match="no path inside the store"):
            Store.open(store)
        (store / "manifest.json").write_bytes(whole)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda store: shutil.rmtree(store), r"no such store; make one with `bytropix ingest"),
        (lambda store: (store / "manifest.json").unlink(), r"unfinished or not a store.*--resume"),
        (rewrite(lambda plain: plain.update(format_version=VIDEO_VERSION + 1)), r"newer than this.*upgrade bytropix"),
        (lambda store: (store / "manifest.json").write_text("[]"), r"manifest.json: damaged"),
        (lambda store: (store / "manifest.json").write_bytes(b"\xff\x00"), r"manifest.json: damaged"),
        (rewrite(lambda plain: plain.pop("parts")), r"manifest.json: damaged.*missing key 'parts'"),
        (rewrite(lambda plain: plain.update(quarantined="3")), r"manifest.json: damaged.*quarantined must be"),
    ],
)
def test_store_that_cannot_be_opened(store: Path, harm: Callable[[Path], None], message: str) -> None:
    """Missing, unfinished, newer, or with a manifest that is none: one line each that names the remedy."""
    harm(store)

    with pytest.raises(StoreError, match=message) as caught:
        Store.open(store)
    assert "\n" not in str(caught.value)
