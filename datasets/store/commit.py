"""Writing so that a reader sees all of a file or folder, or none of it.

write beside -> flush to disk -> rename -> flush the folder's entry
"""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bytropix.errors import StoreError

BESIDE = ".writing-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_file(path: Path, data: bytes) -> None:
    """Write a file as a whole.

    Raises:
        StoreError: The disk is full, or the place cannot be written.
    """
    beside = path.with_name(f"{BESIDE}{path.name}")
    with room_for(path):
        try:
            with beside.open("wb") as file:
                write_pieces(file, [data])
                flush(file)
            rename(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes its name `path` when the block ends well and vanishes otherwise.

    Raises:
        StoreError: The disk is full, or the place cannot be written.
    """
    beside = path.with_name(f"{BESIDE}{path.name}")
    with room_for(path):
        _remove(beside)
        try:
            beside.mkdir(parents=True)
            yield beside
            for entry in sorted(beside.rglob("*")):
                if entry.is_dir():
                    flush_folder(entry)
                else:
                    flush_file(entry)
            flush_folder(beside)
            _remove(path)
            rename(beside, path)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        flush_folder(path.parent)
        flush_folder(path.parent.parent)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn a full disk, or a place that cannot be written, into a StoreError that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreError(
                f"{path}: no space left to write it ({error.strerror}); free some or choose another --out, "
                "then run again with --resume"
            ) from error
        raise StoreError(
            f"{path}: cannot be written ({error.strerror}); check its folder and permissions or choose another --out"
        ) from error


def write_pieces(file: BinaryIO, pieces: Sequence[bytes | memoryview]) -> None:
    """Write bytes to a file, piece after piece."""
    for piece in pieces:
        file.write(piece)


def flush(file: BinaryIO) -> None:
    """Wait until what was written to a file is on disk."""
    file.flush()
    os.fsync(file.fileno())


def rename(old: Path, new: Path) -> None:
    """Give a file or folder another name, in place of a file that has it."""
    old.replace(new)


def flush_file(path: Path) -> None:
    """Wait until a file is on disk."""
    with path.open("rb+") as file:
        flush(file)


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk; Windows does it on its own."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
