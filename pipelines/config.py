"""The settings of an ingestion that decide what the store holds; how many processes do the work is not among them."""

from dataclasses import dataclass, field
from typing import Literal

from bytropix.datasets.store import PartLayout
from bytropix.errors import ConfigError
from bytropix.patching import PatchConfig
from bytropix.pipelines.sources import ReadOptions

MOST_DOCUMENT_BYTES = 1 << 24
MOST_PART_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanConfig:
    """What is left out. Lengths are those of a whole record, a file, member, row or page, before it is cut."""

    drop_duplicates: bool = False
    """Drop a document whose bytes an earlier one has, of any source, in order of their names."""
    near_duplicates: float = 0.0
    """Drop a document that shares this part of its runs of five words with an earlier one, judged by MinHash; 0: keep
    them. Takes about 1.5 kB of memory a document, and the package datasketch."""
    min_length: int = 0
    """Drop a record of fewer bytes."""
    max_length: int = 0
    """Drop a record of more bytes; 0: none is too long."""
    utf8: Literal["keep", "drop"] = "keep"
    """drop: leave out documents that are not UTF-8; of a record that is cut, each piece is judged."""

    def __post_init__(self) -> None:
        if not 0 <= self.near_duplicates <= 1:
            raise ConfigError(f"near_duplicates must lie in [0, 1], got {self.near_duplicates}")
        if self.min_length < 0 or self.max_length < 0:
            raise ConfigError(f"lengths must be at least 0, got {self.min_length} and {self.max_length}")
        if 0 < self.max_length < self.min_length:
            raise ConfigError(
                f"max_length {self.max_length} is below min_length {self.min_length}: nothing would be left"
            )
        if self.utf8 not in ("keep", "drop"):
            raise ConfigError(f"utf8 must be keep or drop, got {self.utf8!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """What decides the bytes of a store."""

    patch: PatchConfig = field(default_factory=PatchConfig)
    """How bytes are grouped into patches."""
    val_fraction: float = 0.05
    """Share of documents, chosen by a hash of their content, that go to the val split."""
    document_bytes: int = 16384
    """Most bytes of a document of a plain file, which is cut after the first newline past half of that, at the latest
    here."""
    max_document: int = 0
    """Most bytes of a document that is a record: a member of an archive, a row, a page. A longer one is cut, as plain
    files are; 0: where a part ends."""
    part_bytes: int = 64 << 20
    """Raw bytes of a part, the unit of work and of commit; a worker holds about five times as much."""
    layout: PartLayout = field(default_factory=PartLayout)
    """How a part lies on disk."""
    read: ReadOptions = field(default_factory=ReadOptions)
    """How files are read."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """What is left out."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction must lie in [0, 1), got {self.val_fraction}")
        if not 1024 <= self.document_bytes <= MOST_DOCUMENT_BYTES:
            raise ConfigError(f"document_bytes must lie in 1024..{MOST_DOCUMENT_BYTES}, got {self.document_bytes}")
        if not 4096 <= self.part_bytes <= MOST_PART_BYTES:
            raise ConfigError(f"part_bytes must lie in 4096..{MOST_PART_BYTES}, got {self.part_bytes}")
        if self.max_document and not 1024 <= self.max_document <= self.part_bytes:
            raise ConfigError(
                f"max_document must be 0 or lie in 1024..part_bytes ({self.part_bytes}), got {self.max_document}"
            )
