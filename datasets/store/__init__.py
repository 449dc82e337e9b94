"""The store format: its schema, its writers, its readers. Pipelines write it, streams read it."""

from bytropix.datasets.store.manifest import Store, load_patcher, patcher_files, publish, write_patcher
from bytropix.datasets.store.part_reader import Part
from bytropix.datasets.store.part_writer import CODECS, PartArrays, write_part
from bytropix.datasets.store.schema import (
    FORMAT_VERSION,
    FileRecord,
    Manifest,
    PartRecord,
    SourceRecord,
    SourceSpan,
)

__all__ = [
    "CODECS",
    "FORMAT_VERSION",
    "FileRecord",
    "Manifest",
    "Part",
    "PartArrays",
    "PartRecord",
    "SourceRecord",
    "SourceSpan",
    "Store",
    "load_patcher",
    "patcher_files",
    "publish",
    "write_part",
    "write_patcher",
]
