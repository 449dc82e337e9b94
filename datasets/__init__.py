"""Stores, the order of their windows, and the streams that read them."""

if __name__ != "bytropix.datasets":
    raise ImportError(
        "this folder is bytropix.datasets; `import datasets` found it because the checkout is on sys.path. "
        "Import bytropix.datasets, or set PYTHONSAFEPATH=1 to reach another package of that name."
    )

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bytropix.datasets.batch import ByteBatch
    from bytropix.datasets.clip_batch import ClipBatch
    from bytropix.datasets.clip_stream import ClipStream
    from bytropix.datasets.mixture import Mixture, Stage
    from bytropix.datasets.state import StreamWarning
    from bytropix.datasets.stream import ByteStream
    from bytropix.datasets.tar_stream import TarStream
    from bytropix.datasets.validation import ValidationBatch, ValidationWindows

__all__ = [
    "ByteBatch",
    "ByteStream",
    "ClipBatch",
    "ClipStream",
    "Mixture",
    "Stage",
    "StreamWarning",
    "TarStream",
    "ValidationBatch",
    "ValidationWindows",
]

# Streams need torch, which takes a second to import; ingestion workers import this package for its store alone.
_MODULES = {
    "ByteBatch": "batch",
    "ByteStream": "stream",
    "ClipBatch": "clip_batch",
    "ClipStream": "clip_stream",
    "Mixture": "mixture",
    "Stage": "mixture",
    "StreamWarning": "state",
    "TarStream": "tar_stream",
    "ValidationBatch": "validation",
    "ValidationWindows": "validation",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
