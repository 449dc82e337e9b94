"""Files of any kind are read once: hashed whole, cut, spooled where they must be, or refused with a reason."""

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import Storage, open_storage
from bytropix.errors import StoreError
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import document_ends, read_documents
from bytropix.pipelines.scan import HashingStream, ScannedFile, do_scan, scan, scan_tasks
from bytropix.pipelines.sources import ReadOptions, SourceFile, find_files

TEXT = "".join(f"line {number} – of some text\n" for number in range(3000)).encode()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Return where spool files go."""
    return open_storage(tmp_path / "s.bx")


def scan_one(path: Path, storage: Storage, config: IngestConfig | None = None, *, keep: bool = True) -> ScannedFile:
    """Return a file, scanned."""
    return scan(find_files([path])[0], 3, config or IngestConfig(document_bytes=1024), storage, keep=keep)


def test_scan_in_blocks_equals_the_file_at_once(tmp_path: Path, storage: Storage) -> None:
    """A file of several read blocks has the documents and hashes of its whole text."""
    generator = np.random.default_rng(0)
    data = generator.choice(np.frombuffer(b"ab \n\xe2\x82\xac", np.uint8), 9_000_000).tobytes()
    (tmp_path / "big").write_bytes(data)
    found = scan_one(tmp_path / "big", storage, IngestConfig(document_bytes=1 << 16))
    ends = document_ends(data, 1 << 16)
    pieces = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    assert np.diff(ends, prepend=0).tolist() == found.documents.lengths.tolist()
    assert [hashlib.sha256(piece).digest()[:16] for piece in pieces] == [
        int(first).to_bytes(8, "big") + int(second).to_bytes(8, "big")
        for first, second in zip(found.documents.digests, found.documents.seconds, strict=True)
    ]
    assert (hashlib.sha256(data).hexdigest(), len(data), "plain") == (found.sha256, found.size, found.kind)
    assert not storage.sizes("spool")


def archive(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar or a zip, whose second member is deflated, and return it."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for number, (name, data) in enumerate(members.items()):
                packed.writestr(name, data, zipfile.ZIP_DEFLATED if number == 1 else zipfile.ZIP_STORED)
        return path
    with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as packed:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "spooled"), [("a.tar", 0), ("a.tar.gz", 3), ("a.zip", 1)])
def test_members_of_archives(tmp_path: Path, storage: Storage, name: str, spooled: int) -> None:
    """Members are documents under their names; those that lie in the archive as such are not copied."""
    members = {"one.txt": TEXT, "deep/two.txt": b"two" * 500, "three": b"\xff" * 70_000}
    path = archive(tmp_path / name, members)
    found = scan_one(path, storage)
    read = read_documents((found.documents,), storage).tobytes()
    sizes = storage.sizes("spool")

    assert read == b"".join(members.values())
    assert found.documents.record_names() == list(members)
    assert int((found.documents.begins < 0).sum()) == spooled
    assert sum(sizes.values()) == (0 if not spooled else len(read) if spooled == 3 else 1500)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.size == path.stat().st_size


def test_rows_that_are_bad_are_listed(tmp_path: Path, storage: Storage) -> None:
    """Good rows of JSON Lines are documents; bad ones are listed with their number and reason, in order."""
    rows = [json.dumps({"text": f"row {number}"}) for number in range(6)]
    rows[2], rows[4] = "{", '{"text": 5}'
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    config = IngestConfig(read=ReadOptions(text_field="text"))
    found = scan_one(tmp_path / "a.jsonl", storage, config)

    assert read_documents((found.documents,), storage).tobytes() == b"row 0row 1row 3row 5"
    assert [record for record, _, _ in found.bad] == ["3", "5"]
    assert b'{"offset": 0, "record": "1", "source": "a.jsonl"}\n' in found.documents.meta()


def test_a_file_that_is_cut_off_leaves_nothing(tmp_path: Path, storage: Storage) -> None:
    """A truncated gzip is refused with its reason, and what was spooled of it is gone."""
    noise = np.random.default_rng(0).bytes(9_000_000)
    data = gzip.compress(noise, 1)
    (tmp_path / "a.gz").write_bytes(data[: len(data) // 2])
    found = scan_one(tmp_path / "a.gz", storage)

    assert "truncated" in found.refused
    assert (len(found.documents), storage.sizes()) == (0, {})
    assert 0 < found.size <= len(data) // 2


def test_without_keeping_nothing_is_written(tmp_path: Path, storage: Storage) -> None:
    """A scan that only compares has the same documents and no spool file."""
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT))
    kept, compared = (scan_one(tmp_path / "a.gz", storage, keep=keep).documents for keep in (True, False))
    size = storage.sizes()

    assert size == {"spool/00003.bin": len(TEXT)}
    assert kept.begins.tolist() == compared.begins.tolist()
    assert kept.digests.tolist() == compared.digests.tolist()


def test_files_that_cannot_be_read(tmp_path: Path, storage: Storage) -> None:
    """Empty, vanished and hollow files are refused in plain words."""
    (tmp_path / "empty").touch()
    with tarfile.open(tmp_path / "hollow.tar", "w"):
        pass
    gone = SourceFile("gone", str(tmp_path / "gone"))

    assert scan_one(tmp_path / "empty", storage).refused == "empty"
    assert scan_one(tmp_path / "hollow.tar", storage).refused == "holds no document"
    assert scan(gone, 0, IngestConfig(), storage).refused == "cannot be read: No such file or directory"


def test_spool_that_cannot_be_written_is_no_fault_of_the_source(tmp_path: Path) -> None:
    """A full or closed place for the store is an error of the store, not a row of quarantine."""
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT))
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError, match="cannot be written"):
        scan_one(tmp_path / "a.gz", open_storage(tmp_path / "file" / "s.bx"))


def test_memory_is_that_of_a_few_blocks(tmp_path: Path, storage: Storage) -> None:
    """A member of 150 MB takes no more memory than a document of it and some blocks."""
    (tmp_path / "big").write_bytes(TEXT[:50_000] * 3000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        packed.write(tmp_path / "big", "big")
    tracemalloc.start()
    found = scan_one(tmp_path / "a.zip", storage, IngestConfig(max_document=1 << 20, part_bytes=1 << 22), keep=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found.documents.n_bytes == 150_000_000
    assert peak < 32 << 20


def test_small_files_share_a_task_and_keep_their_numbers(tmp_path: Path, storage: Storage) -> None:
    """What many small files give, scanned in groups, is what each gives alone."""
    (tmp_path / "data").mkdir()
    for number in range(150):
        (tmp_path / "data" / f"{number:03}.gz").write_bytes(gzip.compress(f"text {number}".encode()))
    files = find_files([tmp_path / "data"])
    tasks = list(scan_tasks(files, storage.url, IngestConfig(), keep=True, strict=False))
    found = [one for task in tasks for one in do_scan(task)]

    assert 1 < len(tasks) < 10
    assert [one.documents.spool for one in found] == [f"spool/{number:05d}.bin" for number in range(150)]
    assert [read_documents((one.documents,), storage).tobytes() for one in found] == [
        f"text {number}".encode() for number in range(150)
    ]


@pytest.mark.parametrize(
    "moves",
    [
        [("read", 100)],
        [("read", 100), ("seek", 0), ("read", 5000)],
        [("seek", 9000), ("read", 10), ("seek", 0), ("read", 300)],
        [("seek", 50), ("read", 10)],
        [("read", 20_000), ("seek", 3), ("read", 1)],
    ],
)
def test_hash_is_of_the_whole_file_however_it_was_read(moves: list[tuple[str, int]]) -> None:
    """A reader may skip, go back and stop early; the hash and the size are the file's."""
    data = np.random.default_rng(0).bytes(10_000)
    stream = HashingStream(io.BytesIO(data), seekable=True)
    for what, amount in moves:
        getattr(stream, what)(amount)
    stream.finish()

    assert (hashlib.sha256(data).hexdigest(), len(data)) == (stream.sha256, stream.size)
