"""Files and folders as sources.

    SOURCE ... -> walk -> every file once, sorted by a name that holds nothing of this machine
                       -> what is no readable file, with the reason

Links to files are files; links to folders are not followed, so that no walk is endless.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bytropix.errors import SourceError


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file."""

    name: str
    """Base name of the source and posix path below it."""
    path: str
    """Where it is on this machine."""
    size: int = 0
    """Bytes when it was found."""
    refused: str = ""
    """Why it is not read; empty if it is."""
    named: bool = False
    """Whether the user named this very file, so that a fault in it is an error and not a row in quarantine."""


def find_files(sources: Sequence[Path]) -> list[SourceFile]:
    """Return the files of all sources, sorted by name; a file that is reached twice counts once.

    Raises:
        SourceError: A source is missing or neither file nor folder, or a folder holds no file.
    """
    found: dict[str, SourceFile] = {}
    for source in sources:
        for file in _files_of(source):
            place = os.path.realpath(file.path)
            other = found.get(place, file)
            # The least name, and the strictest treatment, whatever the order of the sources.
            least = min(file, other, key=lambda one: (one.refused != "", one.name))
            named = file.named or other.named
            found[place] = SourceFile(least.name, least.path, least.size, least.refused, named)
    return sorted(found.values(), key=lambda file: (file.name, file.path))


def _files_of(source: Path) -> list[SourceFile]:
    """Return the files of one source."""
    base = source.resolve().name
    if source.is_file():
        return [SourceFile(base, str(source), source.stat().st_size, named=True)]
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder; check the path")
    if not source.is_dir():
        raise SourceError(f"{source}: neither a file nor a folder; give regular files or folders")
    files = list(_walk(source, base))
    if not files:
        raise SourceError(f"{source}: a folder with no files; give one that holds the data")
    return files


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
