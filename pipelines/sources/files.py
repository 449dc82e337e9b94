"""Files and folders as sources.

SOURCE ... -> every regular file, sorted by a name that holds nothing of this machine
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bytropix.errors import SourceError


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file."""

    name: str
    """Base name of the source and posix path below it."""
    path: Path
    """Where it is on this machine."""
    named: bool
    """Whether the user named this very file, so that a fault in it is an error and not a row in quarantine."""


def find_files(sources: Sequence[Path]) -> list[SourceFile]:
    """Return the files of all sources, sorted by name; a file that is named twice counts once.

    Raises:
        SourceError: A source is missing or neither file nor folder, or a folder holds no file.
    """
    found: dict[Path, SourceFile] = {}
    for source in sources:
        for file in _files_of(source):
            found.setdefault(file.path.resolve(), file)
    return sorted(found.values(), key=lambda file: file.name)


def _files_of(source: Path) -> list[SourceFile]:
    """Return the files of one source."""
    base = source.resolve().name
    if source.is_file():
        return [SourceFile(base, source, named=True)]
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder; check the path")
    if not source.is_dir():
        raise SourceError(f"{source}: neither a file nor a folder; give regular files or folders")
    try:
        paths = [path for path in source.rglob("*") if path.is_file()]
    except OSError as error:
        raise SourceError(f"{source}: cannot be listed ({error.strerror}); check its permissions") from error
    if not paths:
        raise SourceError(f"{source}: a folder with no files; give one that holds the data")
    return [SourceFile(f"{base}/{path.relative_to(source).as_posix()}", path, named=False) for path in paths]
