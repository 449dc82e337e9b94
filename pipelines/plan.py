"""Which documents make which part: a function of sources and config alone.

    scanned files by name -> sides by content hash -> parts of about `part_bytes`, as ranges of documents
                                                   -> the sample that the patcher is fitted on

A plan holds no document: ranges of the scan's arrays, from which the list of one part is made when it is its turn.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytropix.config import to_plain
from bytropix.errors import SourceError
from bytropix.patching import SAMPLE_BYTES
from bytropix.pipelines.config import STAGE_VERSION, IngestConfig
from bytropix.pipelines.documents import FileDocuments, ScannedFile

SPLITS = ("train", "val")


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The documents of one side among documents `first` to `last` of a file."""

    scanned: ScannedFile
    first: int
    last: int
    offset: int
    """First byte of document `first` in the file."""


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


def plan_parts(scanned: list[ScannedFile], config: IngestConfig) -> list[PartPlan]:
    """Return the parts, train before val.

    Raises:
        SourceError: No document is left.
    """
    if not scanned:
        raise SourceError("no document: every file is empty or cannot be read; give files that hold something")
    return [part for split in SPLITS for part in _pack(split, scanned, config)]


def part_key(files: tuple[FileDocuments, ...], config: IngestConfig, patcher: str) -> str:
    """Return what decides a part's bytes, as a hash: documents, config, patcher, version of this stage."""
    digest = hashlib.sha256(json.dumps([to_plain(config), patcher, STAGE_VERSION], sort_keys=True).encode())
    for file in files:
        digest.update(json.dumps([file.source, len(file.begins)]).encode())
        for column in (file.begins.astype("<i8"), file.lengths.astype("<u4"), file.digests.astype("<u8")):
            digest.update(column.tobytes())
    return digest.hexdigest()


def sample_files(scanned: list[ScannedFile], config: IngestConfig) -> list[FileDocuments]:
    """Return the train documents of the least hashes, `SAMPLE_BYTES` of them or all, file by file in order.

    Only hashes up to some limit are sorted; hashes are spread evenly, so a limit in proportion holds about enough.
    Where all documents, one short file say, are val's, the sample is theirs.
    """
    split = "train" if any(_on_side(file.digests, "train", config).any() for file in scanned) else "val"
    total = sum(int(file.lengths.sum(dtype=np.int64)) for file in scanned)
    share = min(1.0, config.val_fraction + 1.25 * SAMPLE_BYTES / total)
    rows = _rows_below(scanned, split, config, share)
    while share < 1.0 and int(rows["length"].sum()) < SAMPLE_BYTES:
        share = min(1.0, 2 * share)
        rows = _rows_below(scanned, split, config, share)
    rows.sort(order=["digest", "file", "begin"])
    enough = int(np.searchsorted(np.cumsum(rows["length"]), SAMPLE_BYTES)) + 1
    rows = np.sort(rows[:enough], order=["file", "begin"])
    numbers, firsts = np.unique(rows["file"], return_index=True)
    return [
        FileDocuments(
            source=scanned[number].file.name,
            path=scanned[number].file.path,
            begins=group["begin"].copy(),
            lengths=group["length"].astype(np.uint32),
            digests=group["digest"].copy(),
        )
        for number, group in zip(numbers.tolist(), np.split(rows, firsts[1:]), strict=True)
    ]


def _rows_below(scanned: list[ScannedFile], split: str, config: IngestConfig, share: float) -> NDArray[np.void]:
    """Return (digest, file, begin, length) of a split's documents whose hash is below `share` of all hashes."""
    kind = np.dtype([("digest", "u8"), ("file", "i8"), ("begin", "i8"), ("length", "i8")])
    found = [np.empty(0, kind)]
    for number, file in enumerate(scanned):
        chosen = np.flatnonzero(_on_side(file.digests, split, config) & (file.digests <= _limit(share)))
        rows = np.empty(len(chosen), kind)
        rows["digest"], rows["length"], rows["file"] = file.digests[chosen], file.lengths[chosen], number
        rows["begin"] = _begins(file.lengths)[chosen]
        found.append(rows)
    return np.concatenate(found)


def _limit(share: float) -> np.uint64:
    """Return the hash that a share of all hashes is below."""
    return np.uint64(min(int(share * 2**64), 2**64 - 1))


def _on_side(digests: NDArray[np.uint64], split: str, config: IngestConfig) -> NDArray[np.bool_]:
    """Return which documents go to `split`: the least hashes are val's."""
    in_val = digests < _limit(config.val_fraction)
    return in_val if split == "val" else ~in_val


def _begins(lengths: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return where documents that lie end to end begin."""
    return np.cumsum(lengths, dtype=np.int64) - lengths


def _select(piece: Piece, split: str, config: IngestConfig) -> FileDocuments:
    """Return the documents of a piece."""
    scan = piece.scanned
    lengths, digests = scan.lengths[piece.first : piece.last], scan.digests[piece.first : piece.last]
    chosen = _on_side(digests, split, config)
    return FileDocuments(
        source=scan.file.name,
        path=scan.file.path,
        begins=(piece.offset + _begins(lengths))[chosen],
        lengths=lengths[chosen],
        digests=digests[chosen],
    )


def _pack(split: str, scanned: list[ScannedFile], config: IngestConfig) -> Iterator[PartPlan]:
    """Fill parts in order; a part closes before the document that would pass `part_bytes`."""
    number, size = 0, 0
    held: list[Piece] = []
    for scan in scanned:
        begins = _begins(scan.lengths)
        chosen = np.flatnonzero(_on_side(scan.digests, split, config))
        ends = np.cumsum(scan.lengths[chosen], dtype=np.int64)
        done = 0
        while done < len(chosen):
            before = int(ends[done - 1]) if done else 0
            fit = int(np.searchsorted(ends, before + config.part_bytes - size, side="right"))
            if fit == done and not held:
                fit = done + 1
            if fit > done:
                first, last = int(chosen[done]), int(chosen[fit - 1]) + 1
                held.append(Piece(scan, first, last, int(begins[first])))
                size += int(ends[fit - 1]) - before
                done = fit
            if done < len(chosen):
                yield PartPlan(split, config.layout.part_name(number), size, tuple(held))
                number, size, held = number + 1, 0, []
    if held:
        yield PartPlan(split, config.layout.part_name(number), size, tuple(held))
