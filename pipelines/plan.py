"""Which documents make which part: a function of sources and config alone.

scanned files in order of name -> documents -> split by content hash -> parts of about `part_bytes`
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from bytropix.config import to_plain
from bytropix.errors import SourceError
from bytropix.pipelines.config import STAGE_VERSION, IngestConfig
from bytropix.pipelines.documents import Document, ScannedFile


@dataclass(frozen=True, slots=True)
class Piece:
    """A document in a part."""

    source: str
    path: Path
    document: Document


@dataclass(frozen=True, slots=True)
class PartPlan:
    """The work of one part."""

    split: str
    name: str
    pieces: tuple[Piece, ...]

    @property
    def n_bytes(self) -> int:
        """Raw bytes of the part."""
        return sum(piece.document.length for piece in self.pieces)

    def key(self, config: IngestConfig, patcher: str) -> str:
        """Return what decides the part's bytes, as a hash: sources, config, patcher, version of this stage."""
        digest = hashlib.sha256()
        digest.update(json.dumps([to_plain(config), patcher, STAGE_VERSION], sort_keys=True).encode())
        for piece in self.pieces:
            digest.update(json.dumps([piece.source, piece.document.offset, piece.document.length]).encode())
            digest.update(piece.document.digest)
        return digest.hexdigest()


def plan_parts(files: list[ScannedFile], config: IngestConfig) -> list[PartPlan]:
    """Return the parts, train before val.

    Raises:
        SourceError: No document is left for training.
    """
    sides: dict[str, list[Piece]] = {"train": [], "val": []}
    for file in files:
        for document in file.documents:
            side = "val" if document.in_val(config.val_fraction) else "train"
            sides[side].append(Piece(file.name, file.path, document))
    if not sides["train"]:
        raise SourceError(
            "no document is left for training; give more data, a smaller --document-bytes or --val-fraction 0"
        )
    return [part for split, pieces in sides.items() for part in _pack(split, pieces, config.part_bytes)]


def _pack(split: str, pieces: list[Piece], part_bytes: int) -> list[PartPlan]:
    """Fill parts in order; a part closes before the document that would pass `part_bytes`."""
    parts: list[PartPlan] = []
    held: list[Piece] = []
    size = 0
    for piece in pieces:
        if held and size + piece.document.length > part_bytes:
            parts.append(PartPlan(split, f"{len(parts):05d}.zarr", tuple(held)))
            held, size = [], 0
        held.append(piece)
        size += piece.document.length
    if held:
        parts.append(PartPlan(split, f"{len(parts):05d}.zarr", tuple(held)))
    return parts
