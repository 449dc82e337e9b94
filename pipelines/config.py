"""The settings of an ingestion that decide what the store holds; how many processes do the work is not among them."""

from dataclasses import dataclass, field
from typing import Literal

from bytropix.errors import ConfigError
from bytropix.patching import PatchConfig

STAGE_VERSION = 1  # raised when the same source and config would give other bytes in a part


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestConfig:
    """What decides the bytes of a store."""

    patch: PatchConfig = field(default_factory=PatchConfig)
    """How bytes are grouped into patches."""
    val_fraction: float = 0.05
    """Share of documents, chosen by a hash of their content, that go to the val split."""
    document_bytes: int = 262144
    """Files longer than this are cut into documents near newlines; 0 never cuts."""
    part_bytes: int = 64 << 20
    """Raw bytes of a part, the unit of work and of commit."""
    codec: Literal["zstd", "none"] = "zstd"
    """zstd: compressed; none: raw files that readers map."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction must lie in [0, 1), got {self.val_fraction}")
        if self.document_bytes < 0 or 0 < self.document_bytes < 1024:
            raise ConfigError(f"document_bytes must be 0 (never cut) or at least 1024, got {self.document_bytes}")
        if self.part_bytes < 4096:
            raise ConfigError(f"part_bytes must be at least 4096, got {self.part_bytes}")
