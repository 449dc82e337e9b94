"""The work of one part, in a worker process or in this one.

plan -> read documents, checked against the plan -> score and cut -> write, commit -> receipt
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store import PartArrays, PartRecord, SourceSpan, load_patcher, write_part
from bytropix.datasets.store.commit import write_file
from bytropix.patching import Patcher
from bytropix.pipelines.documents import read_document
from bytropix.pipelines.plan import PartPlan

RECEIPTS = "receipts"


@dataclass(frozen=True, slots=True)
class PartTask:
    """One part to write."""

    root: Path
    plan: PartPlan
    codec: str
    key: str
    patcher: str
    """Settings of the patcher as JSON, whose table lies in the store."""


@lru_cache(maxsize=1)
def _patcher(root: Path, settings: str) -> Patcher:
    """Return the patcher, loaded once per process."""
    return load_patcher(root, json.loads(settings))


def do_part(task: PartTask) -> PartRecord:
    """Write a part and its receipt, and return its record.

    Raises:
        SourceError: A source has changed or vanished.
        StoreError: The disk is full.
    """
    plan, patcher = task.plan, _patcher(task.root, task.patcher)
    data = np.concatenate([read_document(piece.path, piece.document) for piece in plan.pieces])
    ends = np.cumsum([piece.document.length for piece in plan.pieces], dtype=np.int64)
    entropy, starts = patcher.patch(data, ends)
    meta = [json.dumps({"offset": p.document.offset, "source": p.source}, sort_keys=True) for p in plan.pieces]
    arrays = PartArrays(data, entropy, starts, ends, "".join(f"{line}\n" for line in meta).encode())
    spans = _spans(plan, starts, ends, patcher.config.max_patch)
    record = write_part(task.root, plan.split, plan.name, arrays, codec=task.codec, spans=spans)
    receipt = {"key": task.key, "record": to_plain(record)}
    write_file(receipt_path(task.root, plan), json.dumps(receipt, sort_keys=True).encode())
    return record


def receipt_path(root: Path, plan: PartPlan) -> Path:
    """Return where the receipt of a part lies until the store is published."""
    return root / RECEIPTS / f"{plan.split}-{plan.name}.json"


def finished(task: PartTask) -> PartRecord | None:
    """Return the record of a part that an earlier run finished under the same key, `None` otherwise."""
    try:
        receipt: dict[str, Any] = json.loads(receipt_path(task.root, task.plan).read_text("utf-8"))
        record = from_plain(PartRecord, receipt["record"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    folder = task.root / "parts" / task.plan.split / task.plan.name
    whole = all((folder / file.path).is_file() for file in record.files)
    return record if receipt["key"] == task.key and whole else None


def _spans(plan: PartPlan, starts: NDArray[np.bool_], ends: NDArray[np.int64], cap: int) -> tuple[SourceSpan, ...]:
    """Return the counts of each source in the part."""
    begins = np.flatnonzero(starts)
    lengths = np.diff(np.append(begins, len(starts)))
    spans = []
    rows = zip(plan.pieces, ends.tolist(), strict=True)
    for source, group in groupby(rows, key=lambda row: row[0].source):
        members = list(group)
        low = members[0][1] - members[0][0].document.length
        first, last = np.searchsorted(begins, (low, members[-1][1]))
        spans.append(
            SourceSpan(
                source=source,
                n_bytes=members[-1][1] - low,
                documents=len(members),
                patches=int(last - first),
                at_cap=int((lengths[first:last] >= cap).sum()),
            )
        )
    return tuple(spans)
