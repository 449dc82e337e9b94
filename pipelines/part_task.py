"""The work of one part, in a worker process or in this one.

plan -> read documents, checked against the plan -> score and cut -> write, commit -> receipt
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.config import from_plain, to_plain
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
from bytropix.datasets.store.storage import same_files
from bytropix.errors import ChangedSourceError, ConfigError, StoreError
from bytropix.patching import Patcher
from bytropix.pipelines.documents import FileDocuments, read_documents
from bytropix.pipelines.plan import part_key

RECEIPTS = "receipts"


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


def do_part(task: PartTask) -> PartDone:
    """Write a part and its receipt unless an earlier run has.

    Raises:
        StoreError: The disk is full, or a spool file is damaged.
    """
    storage, key = open_storage(task.url), task.key
    done = finished(task, storage, key)
    if done is not None:
        return PartDone(done, skipped=True)
    patcher = _patcher(task.url, task.patcher)
    try:
        data = read_documents(task.files, storage)
    except ChangedSourceError as error:
        return PartDone(None, changed=(error.place, error.what))
    ends = np.cumsum(np.concatenate([file.lengths for file in task.files]), dtype=np.int64)
    entropy, starts = patcher.patch(data, ends)
    spans, lengths = _count(task.files, starts, patcher.config.max_patch)
    record = write_part(
        storage,
        task.split,
        task.name,
        PartArrays(data, entropy, starts, ends, b"".join(file.meta() for file in task.files)),
        layout=task.layout,
        spans=spans,
        patch_lengths=lengths,
        pieces=sum(file.pieces for file in task.files),
        version=task.version,
    )
    receipt = {"key": key, "record": to_plain(record)}
    storage.write(receipt_name(task), json.dumps(receipt, sort_keys=True).encode())
    return PartDone(record)


def receipt_name(task: PartTask) -> str:
    """Return where the receipt of a part lies until the store is published."""
    return f"{RECEIPTS}/{task.split}-{task.name}.json"


def finished(task: PartTask, storage: Storage, key: str) -> PartRecord | None:
    """Return the record of a part that an earlier run finished under the same key and that is whole, else `None`."""
    try:
        receipt: dict[str, Any] = json.loads(storage.read(receipt_name(task)).tobytes())
        same, record = receipt["key"] == key, from_plain(PartRecord, receipt["record"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError, StoreError):
        return None
    return record if same and same_files(storage, record.folder, record.files) else None


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
