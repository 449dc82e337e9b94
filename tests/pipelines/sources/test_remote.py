"""Sources behind URLs: a web server on this machine, and fsspec's file system in memory."""

import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bytropix.errors import SourceError
from bytropix.pipelines.sources import ReadOptions, find_files, open_source, read_records

TEXT = b"line\n" * 100_000


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Short(BaseHTTPRequestHandler):
    """A server that promises more than it sends."""

    def do_HEAD(self) -> None:
        """Promise."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()

    def do_GET(self) -> None:
        """Send too little."""
        self.do_HEAD()
        self.wfile.write(TEXT)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def serve(handler: Callable[..., Any]) -> Iterator[str]:
    """Give the address of a server that runs meanwhile."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Give the address of a server of `tmp_path`, which knows no ranges."""
    yield from serve(partial(Quiet, directory=str(tmp_path)))


@pytest.fixture
def short_web() -> Iterator[str]:
    """Give the address of a server whose connections break."""
    yield from serve(Short)


@pytest.fixture
def bucket() -> Iterator[str]:
    """Give the URL of a folder in memory with a few files."""
    memory = fsspec.filesystem("memory")
    name = f"bucket-{uuid.uuid4().hex}"
    for path in ("a.txt", "deep/b.txt", "deep/er/c.csv"):
        memory.pipe(f"{name}/data/{path}", path.encode())
    yield f"memory://{name}/data"
    memory.rm(name, recursive=True)


def test_web_files(web: str, tmp_path: Path, samples: dict[str, bytes]) -> None:
    """A file on a web server has its name, decoded and without query, and its size; it is read in one go."""
    (tmp_path / "two words.txt").write_bytes(TEXT)
    (tmp_path / "a.zip").write_bytes(samples["a.zip"])

    (file,) = find_files([f"{web}/two%20words.txt?token=secret"])
    assert (file.name, file.size) == ("two words.txt", len(TEXT))
    with open_source(file.path) as stream:
        assert not stream.seekable()
        assert stream.read() == TEXT
    (file,) = find_files([f"{web}/a.zip"])
    with open_source(file.path) as stream:
        kind, blocks = read_records(stream, file.name, ReadOptions())
        assert (kind, len(list(blocks))) == ("zip", 3)


def test_web_file_that_is_not_there(web: str) -> None:
    """A missing file is known before anything is read, with the remedy."""
    with pytest.raises(SourceError, match=r"gone\.txt: cannot be listed \(not found\); check the URL"):
        find_files([f"{web}/gone.txt"])
    with pytest.raises(OSError, match="not found"):
        open_source(f"{web}/gone.txt")


def test_connection_that_breaks(short_web: str) -> None:
    """A file that ends before its length is an error of reading, and not a shorter file."""
    with open_source(f"{short_web}/a.txt") as stream, pytest.raises(OSError, match="ayload"):
        stream.read()


def test_no_server() -> None:
    """A server that does not answer is named."""
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:9/a: cannot be listed"):
        find_files(["http://127.0.0.1:9/a"])


def test_folders_files_and_globs(bucket: str) -> None:
    """A URL of a folder lists what is below it, one of a file is that file, globs are globs; each file comes once."""

    def names(*urls: str) -> list[str]:
        return [file.name for file in find_files(urls)]

    assert names(bucket) == names(f"{bucket}/", bucket) == ["data/a.txt", "data/deep/b.txt", "data/deep/er/c.csv"]
    assert names(f"{bucket}/deep/b.txt") == ["b.txt"]
    assert names(f"{bucket}/*/*.txt") == names(f"{bucket}/d*/*.txt") == ["data/deep/b.txt"]
    assert names(f"{bucket}/**/*.csv") == ["data/deep/er/c.csv"]
    assert names(f"{bucket}/deep/b.txt", bucket) == ["b.txt", "data/a.txt", "data/deep/er/c.csv"]
    with pytest.raises(SourceError, match="gone: no file is there; check the URL"):
        find_files([f"{bucket}/gone"])


def test_new_files_are_seen(bucket: str) -> None:
    """What was added since the last look is found."""
    before = find_files([bucket])
    fsspec.filesystem("memory").pipe(f"{bucket}/new.txt", b"new")

    assert len(find_files([bucket])) == len(before) + 1


def test_stream_in_memory(bucket: str) -> None:
    """A remote file is read in order, whole."""
    (file,) = find_files([f"{bucket}/deep/b.txt"])
    with open_source(file.path) as stream:
        assert stream.read() == b"deep/b.txt"


def test_unknown_scheme() -> None:
    """A scheme that no library knows is named, with what may bring it."""
    with pytest.raises(SourceError, match=r"gopher://x/y: .*; pip install 'bytropix\[remote\]'"):
        find_files(["gopher://x/y"])
