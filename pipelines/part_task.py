"""The work of one part, in a worker process or in this one.

plan -> read documents, checked against the plan -> score and cut -> write, commit -> receipt
"""

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import (
    PartArrays,
    PartLayout,
    PartRecord,
    SourceSpan,
    Storage,
    load_patcher,
    open_storage,
    write_part,
)
from bytropix.datasets.store.patch_lengths import LONGEST, count_lengths
from bytropix.errors import ChangedSourceError
from bytropix.patching import Patcher
from bytropix.pipelines.documents import FileDocuments, read_documents
from bytropix.pipelines.plan import part_key
from bytropix.pipelines.receipts import finished, keep_receipt


@dataclass(frozen=True, slots=True, eq=False)
class PartTask:
    """One part to write."""

    url: str
    """Where the store lies."""
    split: str
    name: str
    files: tuple[FileDocuments, ...]
    layout: PartLayout
    patcher: str
    """Settings of the patcher as JSON, whose table lies in the store, and the hashes of that table's files."""
    version: int
    """The version of the store that the part is added in."""

    def __str__(self) -> str:
        return f"{self.split}/{self.name}"

    @property
    def key(self) -> str:
        """Hash of all that decides the part's bytes and record."""
        return f"{part_key(self.files, self.layout, self.patcher)}-{self.version}"


@dataclass(frozen=True, slots=True)
class PartDone:
    """What became of a part."""

    record: PartRecord | None
    """What is there; `None` where a source has changed."""
    skipped: bool = False
    """Whether an earlier run wrote it."""
    changed: tuple[str, str] = ("", "")
    """Path of the source that has changed, and what has happened to it."""


@dataclass(frozen=True, slots=True, eq=False)
class MadePart:
    """A part in memory."""

    arrays: PartArrays
    spans: tuple[SourceSpan, ...]
    """Where its bytes come from."""
    patch_lengths: tuple[int, ...]
    """How many patches have 0, 1, 2 ... bytes."""
    pieces: int
    """Documents that are a piece of a longer record."""


def do_part(task: PartTask) -> PartDone:
    """Write a part and its receipt unless an earlier run has.

    Raises:
        StoreError: The disk is full, or a spool file is damaged.
    """
    storage, key = open_storage(task.url), task.key
    done = finished(storage, task.split, task.name, key)
    if done is not None:
        return PartDone(done, skipped=True)
    try:
        part = make_part(task.files, _patcher(task.url, task.patcher), storage)
    except ChangedSourceError as error:
        return PartDone(None, changed=(error.place, error.what))
    record = write_part(
        storage,
        task.split,
        task.name,
        part.arrays,
        layout=task.layout,
        spans=part.spans,
        patch_lengths=part.patch_lengths,
        pieces=part.pieces,
        version=task.version,
    )
    keep_receipt(storage, record, key)
    return PartDone(record)


def make_part(files: tuple[FileDocuments, ...], patcher: Patcher, storage: Storage) -> MadePart:
    """Read documents, score and cut them.

    Args:
        files: The documents, file by file.
        patcher: Scores and cuts.
        storage: Holds the spool files.

    Raises:
        ChangedSourceError: A source has changed or vanished.
        StoreError: A spool file is damaged.
    """
    data = read_documents(files, storage)
    ends = np.cumsum(np.concatenate([file.lengths for file in files]), dtype=np.int64)
    entropy, starts = patcher.patch(data, ends)
    spans, lengths = _count(files, starts, patcher.config.max_patch)
    meta = b"".join(file.meta() for file in files)
    return MadePart(PartArrays(data, entropy, starts, ends, meta), spans, lengths, sum(file.pieces for file in files))


@lru_cache(maxsize=1)
def _patcher(url: str, patcher: str) -> Patcher:
    """Return the patcher, loaded once per process."""
    return load_patcher(open_storage(url), json.loads(patcher)["settings"])


def _count(
    files: tuple[FileDocuments, ...], starts: NDArray[np.bool_], cap: int
) -> tuple[tuple[SourceSpan, ...], tuple[int, ...]]:
    """Return the counts of each source in the part, and how many patches have 0, 1, 2 ... bytes."""
    spans = []
    total = np.zeros(LONGEST + 1, np.int64)
    begin = 0
    for file in files:
        end = begin + file.n_bytes
        lengths = count_lengths(starts, begin, end)
        total += lengths
        spans.append(
            SourceSpan(
                source=file.source,
                n_bytes=end - begin,
                documents=len(file),
                patches=int(lengths.sum()),
                at_cap=int(lengths[cap:].sum()),
                single=int(lengths[1]),
            )
        )
        begin = end
    return tuple(spans), tuple(total[: int(np.flatnonzero(total)[-1]) + 1].tolist())
