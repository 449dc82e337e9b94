"""The settings of an ingestion that decide what the store holds; how many processes do the work is not among them."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bytropix.datasets.store import PartLayout
from bytropix.errors import ConfigError
from bytropix.patching import PatchConfig

STAGE_VERSION = 1  # raised when the same source and config would give other bytes in a part
MOST_DOCUMENT_BYTES = 1 << 24
MOST_PART_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """What decides the bytes of a store."""

    patch: PatchConfig = field(default_factory=PatchConfig)
    """How bytes are grouped into patches."""
    val_fraction: float = 0.05
    """Share of documents, chosen by a hash of their content, that go to the val split."""
    document_bytes: int = 16384
    """Most bytes of a document. A file is cut after the first newline past half of that, at the latest here."""
    part_bytes: int = 32 << 20
    """Raw bytes of a part, the unit of work and of commit; a worker holds about five times as much."""
    layout: Annotated[PartLayout, tyro.conf.OmitArgPrefixes] = field(default_factory=PartLayout)
    """How a part lies on disk."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction must lie in [0, 1), got {self.val_fraction}")
        if not 1024 <= self.document_bytes <= MOST_DOCUMENT_BYTES:
            raise ConfigError(f"document_bytes must lie in 1024..{MOST_DOCUMENT_BYTES}, got {self.document_bytes}")
        if not 4096 <= self.part_bytes <= MOST_PART_BYTES:
            raise ConfigError(f"part_bytes must lie in 4096..{MOST_PART_BYTES}, got {self.part_bytes}")
