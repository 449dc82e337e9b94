"""The store format: its schema, its writers, its readers. Pipelines write it, streams read it."""

from bytropix.datasets.store.babylon import load_patcher, write_patcher
from bytropix.datasets.store.codecs import CODECS
from bytropix.datasets.store.formats import PartLayout, open_part, settled, write_part, write_starts
from bytropix.datasets.store.manifest import publish
from bytropix.datasets.store.part import Part, PartArrays
from bytropix.datasets.store.parts import Parts
from bytropix.datasets.store.rows import Listing, grown, part_bytes
from bytropix.datasets.store.schema import (
    FORMAT_VERSION,
    LISTED_VERSION,
    VIDEO_VERSION,
    FileRecord,
    Manifest,
    PartRecord,
    SourceRecord,
    SourceSpan,
    doc_meta_line,
)
from bytropix.datasets.store.storage import Storage, StoredFile, open_storage
from bytropix.datasets.store.store import Store
from bytropix.datasets.store.video_formats import VideoLayout, open_video_part, write_video_part
from bytropix.datasets.store.video_part import CodedFrames, VideoArrays, VideoPart, video_meta_line

__all__ = [
    "CODECS",
    "FORMAT_VERSION",
    "LISTED_VERSION",
    "VIDEO_VERSION",
    "CodedFrames",
    "FileRecord",
    "Listing",
    "Manifest",
    "Part",
    "PartArrays",
    "PartLayout",
    "PartRecord",
    "Parts",
    "SourceRecord",
    "SourceSpan",
    "Storage",
    "Store",
    "StoredFile",
    "VideoArrays",
    "VideoLayout",
    "VideoPart",
    "doc_meta_line",
    "grown",
    "load_patcher",
    "open_part",
    "open_storage",
    "open_video_part",
    "part_bytes",
    "publish",
    "settled",
    "video_meta_line",
    "write_part",
    "write_patcher",
    "write_starts",
    "write_video_part",
]
