"""The text that benchmarks work on.

--data FOLDER, or else the sources of Python's standard library -> files -> n bytes
"""

import sysconfig
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import SourceError

DOCUMENT_BYTES = 16384


def corpus_files(data: Path | None) -> list[Path]:
    """Return the files that are not empty, in order of their names.

    Raises:
        SourceError: The folder is missing or holds none.
    """
    if data is not None:
        return _files(data, "*")
    library = Path(sysconfig.get_paths()["stdlib"])
    return [path for path in _files(library, "*.py") if "site-packages" not in path.parts]


def some_text(data: Path | None, n_bytes: int) -> bytes:
    """Return the first `n_bytes` of the files; what there is is repeated as often as needed."""
    found = bytearray()
    for path in corpus_files(data):
        found += path.read_bytes()
        if len(found) >= n_bytes:
            break
    return bytes(found * (-(-n_bytes // len(found))))[:n_bytes]


def documents(text: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return text as u8 [n] and the ends of documents of 16 KiB."""
    ends = np.append(np.arange(DOCUMENT_BYTES, len(text), DOCUMENT_BYTES), len(text)).astype(np.int64)
    return np.frombuffer(text, dtype=np.uint8), ends


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(path for path in folder.rglob(pattern) if path.is_file() and path.stat().st_size)
    if not found:
        raise SourceError(f"{folder}: no files to measure on; give --data a folder that holds some")
    return found
