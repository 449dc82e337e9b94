"""What a store's manifest holds, as frozen dataclasses; `manifest.json` is their plain form with sorted keys.

NAME.bx/manifest.json  versions/00001.json  babylon/  quarantine.jsonl  parts/{train,val}/00000.{zarr/,tar,index}
        lists/ of parts and sources, where they are too many for manifest.json

Fields with a default are those that format version 1 lacks: what it means by their absence is the default.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from bytropix.config import to_plain

FORMAT_VERSION = 2
LISTED_VERSION = 3  # of a store whose manifest names lists of parts or of sources in place of these
VIDEO_VERSION = 4  # of a store of video, with or without lists
NEXT = "-next"
VIDEO_FIELDS = ("frames", "frame_shape", "clip_frames")  # of the record of a part
BLOCK_BYTES = 1 << 18  # raw bytes under one checksum: an inner chunk of a compressed array, a stretch of a raw one


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """One file of the store."""

    path: str
    """Posix path below the folder that is being described."""
    size: int
    """Bytes."""
    sha256: str
    """Of the file."""

    @staticmethod
    def hash_of(*pieces: bytes | memoryview) -> str:
        """Return the sha256 of bytes that lie end to end, in hex."""
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSpan:
    """Documents of a part that come from one source, and how they were cut."""

    source: str
    """Name of the source in the manifest."""
    n_bytes: int
    """Bytes of these documents."""
    documents: int
    """How many."""
    patches: int
    """Patches in them."""
    at_cap: int
    """Patches of the greatest length or longer."""
    single: int
    """Patches of one byte."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRecord:
    """One part."""

    split: str
    """train or val."""
    name: str
    """Folder or tar below parts/<split>/."""
    n_bytes: int
    """Raw bytes."""
    documents: int
    """Documents."""
    compressed: bool
    """Whether arrays are sharded and compressed, or raw and mapped."""
    files: tuple[FileRecord, ...]
    """Every file of the part."""
    spans: tuple[SourceSpan, ...]
    """Where the bytes come from."""
    patch_lengths: tuple[int, ...]
    """How many patches have 0, 1, 2 ... bytes, up to the longest there is."""
    format: str = "zarr"
    """zarr or webdataset."""
    codec: str = "zstd"
    """What compresses it; of a part of format version 1 only `compressed` counts."""
    pieces: int = 0
    """Documents that are a piece of a longer one, which was cut."""
    version: int = 1
    """The version of the store that added it."""
    beside: bool = False
    """Whether its starts still lie under the second name that a repatch writes them to, see `beside_name`."""
    frames: int = 0
    """Frames of video; 0 of a part of bytes. Its raw bytes are then those of the frames, its documents its videos."""
    frame_shape: tuple[int, ...] = ()
    """Height and width of a frame, in pixels."""
    clip_frames: int = 0
    """Frames of a coded unit, or of a sample of a tar; the last one of a scene may have fewer."""

    @property
    def folder(self) -> str:
        """The folder, below the store, that `files` are named from."""
        return f"parts/{self.split}" if self.format == "webdataset" else f"parts/{self.split}/{self.name}"

    @property
    def patches(self) -> int:
        """Patches in the part."""
        return sum(self.patch_lengths)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord:
    """One input file."""

    name: str
    """Name of the source and posix path below it; never absolute."""
    size: int
    """Bytes."""
    sha256: str
    """Of its content."""
    kind: str = "plain"
    """How it was read."""
    version: int = 1
    """The version of the store that added it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything about a store."""

    format_version: int
    """Readers refuse a newer one."""
    kind: str
    """What the parts hold: bytes or video."""
    config: dict[str, Any]
    """The resolved ingest config."""
    patcher: dict[str, Any]
    """Settings of the patcher; its table is in babylon/."""
    babylon: tuple[FileRecord, ...]
    """Every file of babylon/."""
    sources: Sequence[SourceRecord]
    """Every input that was read, sorted by name; of a store with lists, those of each version for themselves."""
    parts: Sequence[PartRecord]
    """Every part, train before val, in order; a tuple, or `Rows` that read their lists when they are looked at."""
    quarantine: FileRecord
    """The list of what was refused."""
    quarantined: int
    """Its rows."""
    version: int = 1
    """1, and one more with each append."""
    documents_in: int | None = None
    """Documents that were stored, dropped or quarantined; a refused file is one. `None`: not counted."""
    dropped: dict[str, Any] = field(default_factory=dict)
    """How many documents were left out, by cause."""

    @property
    def documents(self) -> int:
        """Documents that are stored."""
        return sum(part.documents for part in self.parts)


def plain_row(row: object) -> dict[str, Any]:
    """Return a row of a manifest as plain data; what only video has is left out of a part of bytes."""
    plain: dict[str, Any] = to_plain(row)
    if isinstance(row, PartRecord) and not row.frames:
        for name in VIDEO_FIELDS:
            del plain[name]
    return plain


def beside_name(name: str) -> str:
    """Return the second name of what a repatch writes: starts-next/c/0 of starts/c/0, 00000-next.tar of 00000.tar."""
    first, slash, rest = name.partition("/")
    stem, dot, suffix = first.partition(".")
    return f"{stem}{NEXT}{dot}{suffix}{slash}{rest}"


def doc_meta_line(*, source: str, offset: int, record: str = "", of: int = 0) -> bytes:
    """Return a document's row of `doc_meta`.

    Args:
        source: Name of the source.
        offset: The document's first byte in its record, or in the source where that has no records.
        record: Name of the record in its source.
        of: Bytes of the whole record, if it was cut and this is a piece.
    """
    # As `dump_row` would have it, in an eighth of the time: a part has ten thousand of them.
    whole = f'"of": {of}, ' if of else ""
    name = f'"record": {_quoted(record)}, ' if record else ""
    return f'{{{whole}"offset": {offset}, {name}"source": {_quoted(source)}}}\n'.encode()


_quoted = lru_cache(maxsize=2)(json.dumps)  # documents of one source follow each other


def dump_row(row: dict[str, Any]) -> bytes:
    """Return a row as the one JSON line that stands for it."""
    return json.dumps(row, sort_keys=True).encode() + b"\n"
