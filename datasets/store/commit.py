"""Writing so that a reader sees all of a file or folder, or none of it.

write beside -> flush to disk -> rename -> flush the folder's entry
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bytropix.errors import StoreError

BESIDE = ".writing-"


def write_file(path: Path, data: bytes) -> None:
    """Write a file as a whole."""
    beside = path.with_name(f"{BESIDE}{path.name}")
    with room_for(path), beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    flush_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes its name `path` when the block ends well and vanishes otherwise."""
    beside = path.with_name(f"{BESIDE}{path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    try:
        with room_for(path):
            beside.mkdir(parents=True)
            yield beside
            for file in sorted(beside.rglob("*")):
                if file.is_file():
                    flush_file(file)
            beside.replace(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    flush_folder(path.parent)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn a full disk into a StoreError that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StoreError(
            f"{path}: no space left to write it ({error.strerror}); free some or choose another --out, "
            "then run again with --resume"
        ) from error


def flush_file(path: Path) -> None:
    """Wait until a file is on disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk; Windows does it on its own."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
