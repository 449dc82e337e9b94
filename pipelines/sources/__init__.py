"""Where documents come from: one file per kind of source."""

from bytropix.pipelines.sources.files import SourceFile, find_files, open_source
from bytropix.pipelines.sources.records import BadRecord, Block, ReadOptions, SourceFault
from bytropix.pipelines.sources.registry import KINDS, Kind, read_records

__all__ = [
    "KINDS",
    "BadRecord",
    "Block",
    "Kind",
    "ReadOptions",
    "SourceFault",
    "SourceFile",
    "find_files",
    "open_source",
    "read_records",
]
