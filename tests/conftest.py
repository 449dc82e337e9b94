"""What tests of every room share."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files (`text/`, `dna/`, `hostile/`), in `shared/data` beside the checkout, or in BYTROPIX_SHARED_DATA.

    A clone without them still passes: the tests that need them are skipped, with this reason.
    """
    folder = Path(os.environ.get("BYTROPIX_SHARED_DATA", PROJECT.parent / "shared" / "data"))
    if not (folder / "text").is_dir():
        pytest.skip(f"no real files at {folder}; BYTROPIX_SHARED_DATA names another folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What ingestion remembers of stores goes to a folder of this run, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTROPIX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models on many threads are slower, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a real S3-compatible server in a process of its own, which the environment then points to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    patience = time.monotonic() + 60
    while not _answers(port):
        if server.poll() is not None or time.monotonic() > patience:
            raise RuntimeError("moto's S3 server did not start")
        time.sleep(0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


def _answers(port: int) -> bool:
    """Return whether somebody listens at a port of this machine."""
    with socket.socket() as test:
        return test.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def s3_bucket(s3_server: str) -> str:
    """Return the URL of a fresh bucket on the server."""
    import s3fs

    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Return what reads a folder whole: relative path to content, folders included."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"(folder)"
            for path in sorted(folder.rglob("*"))
        }

    return read
