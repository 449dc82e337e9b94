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
    load_patcher,
    open_storage,
    write_part,
)
from bytropix.datasets.store.patch_lengths import LONGEST, count_lengths
from bytropix.datasets.store.storage import same_files
from bytropix.errors import ConfigError, StoreError
from bytropix.patching import Patcher
from bytropix.pipelines.documents import FileDocuments, read_documents

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
    key: str
    """Hash of all that decides the part's bytes."""
    patcher: str
    """Settings of the patcher as JSON, whose table lies in the store."""


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part that is there."""

    record: PartRecord
    skipped: bool
    """Whether an earlier run wrote it."""


def do_part(task: PartTask) -> PartDone:
    """Write a part and its receipt unless an earlier run has, and return its record.

    Raises:
        SourceError: A source has changed or vanished.
        StoreError: The disk is full.
    """
    done = finished(task)
    if done is not None:
        return PartDone(done, skipped=True)
    patcher = _patcher(task.url, task.patcher)
    data = read_documents(task.files)
    ends = np.cumsum(np.concatenate([file.lengths for file in task.files]), dtype=np.int64)
    entropy, starts = patcher.patch(data, ends)
    spans, lengths = _count(task.files, starts, patcher.config.max_patch)
    arrays = PartArrays(data, entropy, starts, ends, _doc_meta(task.files))
    storage = open_storage(task.url)
    record = write_part(storage, task.split, task.name, arrays, layout=task.layout, spans=spans, patch_lengths=lengths)
    receipt = {"key": task.key, "record": to_plain(record)}
    storage.write(receipt_name(task), json.dumps(receipt, sort_keys=True).encode())
    return PartDone(record, skipped=False)


def receipt_name(task: PartTask) -> str:
    """Return where the receipt of a part lies until the store is published."""
    return f"{RECEIPTS}/{task.split}-{task.name}.json"


def finished(task: PartTask) -> PartRecord | None:
    """Return the record of a part that an earlier run finished under the same key and that is whole, else `None`."""
    try:
        storage = open_storage(task.url)
        receipt: dict[str, Any] = json.loads(storage.read(receipt_name(task)).tobytes())
        key, record = receipt["key"], from_plain(PartRecord, receipt["record"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError, StoreError):
        return None
    whole = key == task.key and same_files(storage, record.folder, record.files)
    return record if whole else None


@lru_cache(maxsize=1)
def _patcher(url: str, settings: str) -> Patcher:
    """Return the patcher, loaded once per process."""
    return load_patcher(open_storage(url), json.loads(settings))


def _doc_meta(files: tuple[FileDocuments, ...]) -> bytes:
    """Return one JSON line per document: its source, and the offset of its first byte there."""
    lines = []
    for file in files:
        source = json.dumps(file.source)
        lines += [f'{{"offset": {begin}, "source": {source}}}\n' for begin in file.begins.tolist()]
    return "".join(lines).encode()


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
                documents=len(file.begins),
                patches=int(lengths.sum()),
                at_cap=int(lengths[cap:].sum()),
                single=int(lengths[1]),
            )
        )
        begin = end
    return tuple(spans), tuple(total[: int(np.flatnonzero(total)[-1]) + 1].tolist())
