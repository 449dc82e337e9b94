"""What a store's manifest holds, as frozen dataclasses; `manifest.json` is their plain form with sorted keys.

NAME.bx/manifest.json  babylon/  quarantine.jsonl  parts/{train,val}/00000.zarr/
"""

from dataclasses import dataclass
from typing import Any

FORMAT_VERSION = 1
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
    """Folder below parts/<split>/."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything about a store."""

    format_version: int
    """Readers refuse a newer one."""
    kind: str
    """What the parts hold: bytes."""
    config: dict[str, Any]
    """The resolved ingest config."""
    patcher: dict[str, Any]
    """Settings of the patcher; its table is in babylon/."""
    babylon: tuple[FileRecord, ...]
    """Every file of babylon/."""
    sources: tuple[SourceRecord, ...]
    """Every input that was read, sorted by name."""
    parts: tuple[PartRecord, ...]
    """Every part, train before val, in order."""
    quarantine: FileRecord
    """The file quarantine.jsonl."""
    quarantined: int
    """Its rows."""
