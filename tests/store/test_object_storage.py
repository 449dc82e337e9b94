"""A store on a real S3-compatible server: written, read, published by conditional requests, never seen in part."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import PartArrays, PartLayout, Store, doc_meta_line, open_part, open_storage, write_part
from bytropix.datasets.store.storage import Storage
from bytropix.errors import StoreError


@pytest.fixture
def storage(s3_bucket: str) -> Storage:
    """Return the storage of a fresh place on the server."""
    return open_storage(f"{s3_bucket}/folder/s.bx")


def test_files_come_and_go(storage: Storage) -> None:
    """What is written is there with its size, under its name, until it is removed."""
    storage.write("manifest.json", b"{}")
    storage.write("parts/train/00000.zarr/bytes/c/0", b"abc")
    storage.link("parts/train/00000.zarr/bytes/c/0", "parts/copy")

    assert storage.sizes() == {"manifest.json": 2, "parts/copy": 3, "parts/train/00000.zarr/bytes/c/0": 3}
    assert storage.sizes("parts/train") == {"parts/train/00000.zarr/bytes/c/0": 3}
    assert (storage.size("parts/copy"), storage.size("parts"), storage.size("none")) == (3, None, None)
    assert storage.read("parts/copy").tobytes() == b"abc"
    storage.remove(["parts/copy", "manifest.json", "none"])
    assert list(storage.sizes()) == ["parts/train/00000.zarr/bytes/c/0"]


def test_create_is_decided_by_the_server(storage: Storage) -> None:
    """The second of two creations is refused by a conditional request and changes nothing."""
    answers = [storage.create("manifest.json", b"one"), storage.create("manifest.json", b"two")]

    assert (answers, storage.read("manifest.json").tobytes()) == ([True, False], b"one")


@pytest.mark.parametrize("megabytes", [0, 1, 130])
def test_a_stream_appears_when_it_is_whole(storage: Storage, megabytes: int) -> None:
    """An upload of several requests is invisible until it ends, and leaves nothing if it fails."""
    block = bytes(1 << 20)

    def stream(*, fail: bool) -> None:
        with storage.open_write("spool/00000.bin") as file:
            for _ in range(megabytes):
                file.write(block)
            assert storage.sizes() == {}
            if fail:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stream(fail=True)
    assert storage.sizes() == {}
    stream(fail=False)
    assert storage.sizes() == {"spool/00000.bin": megabytes << 20}


def test_an_upload_whose_process_is_killed_is_never_seen(s3_bucket: str, tmp_path: Path) -> None:
    """A process that dies between the requests of an upload leaves no object behind, whole or cut."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom bytropix.datasets.store import open_storage\n"
        "with open_storage(sys.argv[1]).open_write('spool/00000.bin') as file:\n"
        "    for number in range(10**6):\n        file.write(bytes(1 << 20))\n"
        "        Path(sys.argv[2]).write_text(str(number))\n"
    )
    (tmp_path / "upload.py").write_text(script)
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    count = tmp_path / "count"
    run = subprocess.Popen([sys.executable, tmp_path / "upload.py", f"{s3_bucket}/k.bx", count], env=environment)
    patience = time.monotonic() + 60
    while run.poll() is None and time.monotonic() < patience and not (count.exists() and count.read_text() > "7"):
        time.sleep(0.01)
    run.kill()

    assert run.wait() < 0
    assert open_storage(f"{s3_bucket}/k.bx").sizes() == {}


@pytest.mark.parametrize("layout", [PartLayout(), PartLayout(format="webdataset")], ids=["zarr", "webdataset"])
def test_parts_come_back(storage: Storage, layout: PartLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part on the server holds what was written; a flipped byte there is an error that names it."""
    text = np.arange(600_000).astype(np.uint8)
    meta = doc_meta_line(source="a", offset=0) * 2
    arrays = PartArrays(text, text % 7, text < 50, np.array([5, 600_000]), meta)
    name = layout.part_name(0)
    record = write_part(storage, "train", name, arrays, layout=layout, spans=(), patch_lengths=(0, 1))
    found = open_part(storage, record).arrays()
    file = max(storage.sizes().items(), key=lambda item: item[1])[0]
    data = bytearray(storage.read(file).tobytes())
    data[len(data) // 3] ^= 4
    storage.write(file, bytes(data))
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path))  # a reader who has not read it before
    other = open_storage(storage.url)

    assert (found.text == text).all()
    assert (found.starts == arrays.starts).all()
    assert found.doc_meta == meta
    with pytest.raises(StoreError, match=rf"{name}.*at byte \d+ of the file, is damaged"):
        open_part(other, record).arrays()


def test_what_is_not_there_is_one_line(s3_bucket: str) -> None:
    """A place with no store, a bucket that does not exist, and a protocol that nobody speaks are named."""
    for place, said in (
        (f"{s3_bucket}/none.bx", "no such store; make one with"),
        ("s3://no-such-bucket-here/s.bx", "no-such-bucket-here/s.bx"),
        ("gopher://x/s.bx", "gopher://x/s.bx"),
    ):
        with pytest.raises(StoreError, match=said) as caught:
            Store.open(place)
        assert "\n" not in str(caught.value)
