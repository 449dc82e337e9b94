"""Which documents make which part: a function of sources and config alone.

    documents of files by name -> sides by content hash -> parts of about `part_bytes`, as ranges of documents
                                                        -> the sample that the patcher is fitted on

A plan holds no document: ranges of the scan's arrays, from which the list of one part is made when it is its turn.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.config import to_plain
from bytropix.datasets.store import PartLayout
from bytropix.patching import SAMPLE_BYTES
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import FileDocuments

SPLITS = ("train", "val")
STAGE_VERSION = 2  # raised when the same documents and layout would give other bytes in a part


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The documents of one side among documents `first` to `last` of a file."""

    documents: FileDocuments
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class PartPlan:
    """The work of one part."""

    split: str
    name: str
    n_bytes: int
    pieces: tuple[Piece, ...]

    def files(self, config: IngestConfig) -> tuple[FileDocuments, ...]:
        """Return the part's documents, file by file."""
        return tuple(_select(piece, self.split, config) for piece in self.pieces)


def plan_parts(
    files: Sequence[FileDocuments], config: IngestConfig, taken: Mapping[str, int] | None = None
) -> list[PartPlan]:
    """Return the parts, train before val.

    Args:
        files: All documents, file by file.
        config: How large parts are, and how many documents go to val.
        taken: How many parts of each split there are already.
    """
    return [part for split in SPLITS for part in _pack(split, files, config, (taken or {}).get(split, 0))]


def part_key(files: tuple[FileDocuments, ...], layout: PartLayout, patcher: str) -> str:
    """Return what decides a part's bytes, as a hash: documents, layout, patcher, version of this stage."""
    digest = hashlib.sha256(json.dumps([to_plain(layout), patcher, STAGE_VERSION], sort_keys=True).encode())
    for file in files:
        digest.update(json.dumps([file.source, len(file), len(file.names), len(file.wholes)]).encode())
        columns: list[NDArray[Any]] = [file.record_offsets(), file.name_ends, file.wholes, file.lengths]
        for column in (*columns, file.digests, file.seconds):
            digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
        digest.update(file.names)
    return digest.hexdigest()


def sample_files(files: Sequence[FileDocuments], config: IngestConfig) -> list[FileDocuments]:
    """Return the train documents of the least hashes, `SAMPLE_BYTES` of them or all, file by file in order.

    Only hashes up to some limit are sorted; hashes are spread evenly, so a limit in proportion holds about enough.
    Where all documents, one short file say, are val's, the sample is theirs.
    """
    split = "train" if any(_on_side(file.digests, "train", config).any() for file in files) else "val"
    total = sum(file.n_bytes for file in files)
    share = min(1.0, config.val_fraction + 1.25 * SAMPLE_BYTES / total)
    rows = _rows_below(files, split, config, share)
    while share < 1.0 and int(rows["length"].sum()) < SAMPLE_BYTES:
        share = min(1.0, 2 * share)
        rows = _rows_below(files, split, config, share)
    rows.sort(order=["digest", "file", "number"])
    enough = int(np.searchsorted(np.cumsum(rows["length"]), SAMPLE_BYTES)) + 1
    rows = np.sort(rows[:enough], order=["file", "number"])
    places, firsts = np.unique(rows["file"], return_index=True)
    groups = np.split(rows["number"], firsts[1:])
    return [files[place].take(group) for place, group in zip(places.tolist(), groups, strict=True)]


def _rows_below(files: Sequence[FileDocuments], split: str, config: IngestConfig, share: float) -> NDArray[np.void]:
    """Return (digest, file, number, length) of a split's documents whose hash is below `share` of all hashes."""
    kind = np.dtype([("digest", "u8"), ("file", "i8"), ("number", "i8"), ("length", "i8")])
    found = [np.empty(0, kind)]
    for place, file in enumerate(files):
        chosen = np.flatnonzero(_on_side(file.digests, split, config) & (file.digests <= hash_limit(share)))
        rows = np.empty(len(chosen), kind)
        rows["digest"], rows["length"] = file.digests[chosen], file.lengths[chosen]
        rows["file"], rows["number"] = place, chosen
        found.append(rows)
    return np.concatenate(found)


def hash_limit(share: float) -> np.uint64:
    """Return the hash that a share of all hashes is below: documents below that of `val_fraction` go to val."""
    return np.uint64(min(int(share * 2**64), 2**64 - 1))


def _on_side(digests: NDArray[np.uint64], split: str, config: IngestConfig) -> NDArray[np.bool_]:
    """Return which documents go to `split`: the least hashes are val's."""
    in_val = digests < hash_limit(config.val_fraction)
    return in_val if split == "val" else ~in_val


def _select(piece: Piece, split: str, config: IngestConfig) -> FileDocuments:
    """Return the documents of a piece."""
    chosen = _on_side(piece.documents.digests[piece.first : piece.last], split, config)
    return piece.documents.take(piece.first + np.flatnonzero(chosen))


def _pack(split: str, files: Sequence[FileDocuments], config: IngestConfig, number: int) -> Iterator[PartPlan]:
    """Fill parts in order; a part closes before the document that would pass `part_bytes`."""
    size = 0
    held: list[Piece] = []
    for file in files:
        chosen = np.flatnonzero(_on_side(file.digests, split, config))
        ends = np.cumsum(file.lengths[chosen], dtype=np.int64)
        done = 0
        while done < len(chosen):
            before = int(ends[done - 1]) if done else 0
            fit = int(np.searchsorted(ends, before + config.part_bytes - size, side="right"))
            if fit == done and not held:
                fit = done + 1
            if fit > done:
                held.append(Piece(file, int(chosen[done]), int(chosen[fit - 1]) + 1))
                size += int(ends[fit - 1]) - before
                done = fit
            if done < len(chosen):
                yield PartPlan(split, config.layout.part_name(number), size, tuple(held))
                number, size, held = number + 1, 0, []
    if held:
        yield PartPlan(split, config.layout.part_name(number), size, tuple(held))
