"""Loaders that `bytropix bench stream` sets side by side, one file for each format."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bytropix.jobs.bench.loaders.rows import Loader

# Name -> file, in the table's order. A file is imported where its loader runs: memory is measured there.
LOADERS = {
    "bytropix": "ours",
    "bytropix+crc": "ours",
    "bytropix+zstd": "ours",
    "memmap": "memmap",
    "memmap-batched": "memmap",
    "webdataset": "tars",
    "MDS": "mds",
    "litdata": "litdata_chunks",
}


def loader_called(name: str) -> "Loader":
    """Return a loader, importing its file, though not yet the library that it measures."""
    file = importlib.import_module(f"bytropix.jobs.bench.loaders.{LOADERS[name]}")
    found: Loader = next(loader for loader in file.LOADERS if loader.name == name)
    return found
