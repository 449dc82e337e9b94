"""The sample that a store's patcher was fitted on, taken from the store itself.

    parts of the first version -> documents of the least hashes, as ingestion takes them -> read, in order

So a table can be fitted again, and a rule calibrated again, without a source.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import PartRecord, Store, open_part, open_storage
from bytropix.patching import SAMPLE_BYTES
from bytropix.pipelines.plan import hash_limit
from bytropix.pipelines.runner import Runner

ROW = np.dtype([("digest", "u8"), ("part", "i8"), ("begin", "i8"), ("length", "i8")])


@dataclass(frozen=True, kw_only=True, slots=True)
class DigestTask:
    """One part whose documents are to be hashed."""

    url: str
    record: PartRecord
    number: int
    """Of the part in the sample's split."""
    share: float
    """Documents whose hash is above this share of all are left out."""

    def __str__(self) -> str:
        return f"{self.record.split}/{self.record.name}"


def stored_sample(store: Store, runner: Runner) -> list[NDArray[np.uint8]]:
    """Return the documents that `plan.sample_files` chose when the store was made, in their order.

    Appended parts hold none of them.

    Raises:
        StoreError: A part is damaged.
    """
    first = [record for record in store.manifest.parts if record.version == 1]
    split = "train" if any(record.split == "train" for record in first) else "val"
    records = [record for record in first if record.split == split]
    total = sum(record.n_bytes for record in first)
    share = min(1.0, float(store.manifest.config["val_fraction"]) + 1.25 * SAMPLE_BYTES / total)
    rows = _rows(store.url, records, share, runner)
    while share < 1.0 and int(rows["length"].sum()) < SAMPLE_BYTES:
        share = min(1.0, 2 * share)
        rows = _rows(store.url, records, share, runner)
    rows.sort(order=["digest", "part", "begin"])
    enough = int(np.searchsorted(np.cumsum(rows["length"]), SAMPLE_BYTES)) + 1
    return list(_documents(store, records, np.sort(rows[:enough], order=["part", "begin"])))


def do_digests(task: DigestTask) -> NDArray[np.void]:
    """Return a row for each document of a part whose hash is small enough.

    Raises:
        StoreError: The part is damaged.
    """
    part = open_part(open_storage(task.url), task.record)
    text = part.read("bytes", 0, part.n_bytes).data
    ends = part.doc_ends
    rows = np.empty(len(ends), ROW)
    rows["part"], rows["begin"], rows["length"] = task.number, np.append(0, ends[:-1]), np.diff(ends, prepend=0)
    for number, (begin, end) in enumerate(zip(rows["begin"].tolist(), ends.tolist(), strict=True)):
        rows["digest"][number] = int.from_bytes(hashlib.sha256(text[begin:end]).digest()[:8], "big")
    chosen: NDArray[np.void] = rows[rows["digest"] <= hash_limit(task.share)]
    return chosen


def _rows(url: str, records: list[PartRecord], share: float, runner: Runner) -> NDArray[np.void]:
    """Return the rows of all parts."""
    tasks = (DigestTask(url=url, record=record, number=number, share=share) for number, record in enumerate(records))
    return np.concatenate([np.empty(0, ROW), *runner.map(do_digests, tasks)])


def _documents(store: Store, records: list[PartRecord], rows: NDArray[np.void]) -> Iterator[NDArray[np.uint8]]:
    """Give the documents of rows that are sorted by part."""
    numbers, firsts = np.unique(rows["part"], return_index=True)
    for number, group in zip(numbers.tolist(), np.split(rows, firsts[1:]), strict=True):
        part = open_part(store.storage, records[number])
        for begin, length in zip(group["begin"].tolist(), group["length"].tolist(), strict=True):
            yield part.read("bytes", begin, begin + length)
