"""Files, folders, globs, URLs and stdin as sources.

    SOURCE ... -> walk -> every file once, sorted by a name that holds nothing of this machine
                       -> what is no readable file, with the reason

Links to files are files; links to folders are not followed, so that no walk is endless.
"""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from bytropix.errors import SourceError
from bytropix.pipelines.sources.remote import is_url, local_path, open_url, remote_files

STDIN = "-"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file."""

    name: str
    """Base name of the source and posix path below it."""
    path: str
    """Where it is: a path on this machine, a URL, or "-" for stdin."""
    size: int = 0
    """Bytes when it was found; 0 where that is not known."""
    refused: str = ""
    """Why it is not read; empty if it is."""


def find_files(
    sources: Sequence[str | Path], include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
) -> list[SourceFile]:
    """Return the files of all sources, sorted by name; a file that is reached twice counts once.

    Args:
        sources: Files, folders, globs, URLs of files, folders or globs, and "-" for stdin.
        include: Globs; only files whose name, or its last step, is like one of them are taken. None: all are.
        exclude: Globs; files like one of them are not.

    Raises:
        SourceError: A source is missing or neither file nor folder, or holds no file, or none is left.
    """
    found: dict[str, SourceFile] = {}
    for source in sources:
        for file in _files_of(str(source)):
            place = file.path if file.path == STDIN or is_url(file.path) else os.path.realpath(file.path)
            other = found.get(place, file)
            # The least name, and the strictest treatment, whatever the order of the sources.
            found[place] = min(file, other, key=lambda one: (one.refused != "", one.name))
    kept = [file for file in found.values() if _wanted(file.name, include, exclude)]
    if not kept:
        raise SourceError(f"--include and --exclude leave none of {len(found):,} files; widen them")
    return sorted(kept, key=lambda file: (file.name, file.path))


def open_source(path: str) -> BinaryIO:
    """Open a source file for reading, from its first byte in order.

    Args:
        path: As in `SourceFile.path`. What is remote cannot seek.

    Raises:
        OSError: It cannot be read, here or remote; also while it is read.
    """
    if path == STDIN:
        return sys.stdin.buffer
    return open_url(path) if is_url(path) else Path(path).open("rb")


def _wanted(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Whether the user's globs leave a name in."""
    names = (name, name.rpartition("/")[2])
    return (not include or _like(names, include)) and not _like(names, exclude)


def _like(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _files_of(source: str) -> Iterator[SourceFile]:
    """Give the files of one source."""
    if source == STDIN:
        yield SourceFile("stdin", STDIN)
        return
    source = local_path(source)
    if is_url(source):
        for name, url, size in remote_files(source):
            yield SourceFile(name, url, size)
    elif glob.has_magic(source) and not os.path.lexists(source):
        yield from _matches(source)
    else:
        yield from _local(Path(source), Path(source).resolve().name)


def _matches(pattern: str) -> Iterator[SourceFile]:
    """Give the files that a glob finds, named from the last folder before its first wildcard on."""
    steps = Path(pattern).parts
    fixed = Path(*steps[: next(number for number, step in enumerate(steps) if glob.has_magic(step))])
    base = fixed.resolve().name
    # Path.glob takes no pattern that begins at the root.
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = [path for path in map(Path, matches) if not path.is_dir()]
    if not files:
        raise SourceError(f"{pattern}: no file is like it; check the pattern, and quote it for the shell")
    for path in files:
        yield _entry(f"{base}/{path.relative_to(fixed).as_posix()}", path)


def _local(source: Path, name: str) -> Iterator[SourceFile]:
    """Give the file, or the files in the folder, that the user named."""
    if source.is_file():
        yield SourceFile(name, str(source), source.stat().st_size)
        return
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder; check the path")
    if not source.is_dir():
        raise SourceError(f"{source}: neither a file nor a folder; give regular files or folders")
    files = list(_walk(source, name))
    if not files:
        raise SourceError(f"{source}: a folder with no files; give one that holds the data")
    yield from files


def _walk(folder: Path, name: str) -> Iterator[SourceFile]:
    """Give what lies in a folder and below it."""
    faults: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=faults.append):
        below = Path(place).relative_to(folder).as_posix()
        prefix = name if below == "." else f"{name}/{below}"
        for entry in folders:
            path = Path(place) / entry
            if path.is_symlink():
                yield SourceFile(f"{prefix}/{entry}", str(path), 0, "a link to a folder; links are not followed")
        for entry in files:
            yield _entry(f"{prefix}/{entry}", Path(place) / entry)
    for fault in faults:
        place = os.fsdecode(fault.filename)
        below = Path(place).relative_to(folder).as_posix()
        yield SourceFile(f"{name}/{below}", place, 0, f"a folder that cannot be listed: {fault.strerror}")


def _entry(name: str, path: Path) -> SourceFile:
    """Return one entry of a folder; what is no regular file would hang or never end when read."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return SourceFile(name, str(path), 0, f"cannot be read: {error.strerror}")
    return SourceFile(name, str(path), size, "" if path.is_file() else "not a regular file")
