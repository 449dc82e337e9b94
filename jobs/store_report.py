"""What is in a store, as plain rows: from the manifest alone, so that a store of any size answers at once.

manifest -> rows by split, rows by source, counts by patch length      quarantine -> refusals by reason
"""

import re
from dataclasses import dataclass, field
from typing import Any

from bytropix.datasets.store import Store

SPLITS = ("train", "val")
EXAMPLES = 5
ROWS_SHOWN = 20
_NUMBER = re.compile(r"\d[\d,.]*")


@dataclass(slots=True)
class Refusal:
    """Inputs that were refused for one reason."""

    reason: str
    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    """Path and full reason of the first ones."""
    differ: bool = False
    """Whether their reasons are not all the same, but for numbers."""

    @property
    def said(self) -> str:
        """The reason of all of them, with dots for numbers that differ."""
        return _NUMBER.sub("...", self.reason) if self.differ else self.reason


def store_facts(store: Store) -> dict[str, Any]:
    """Return name, fingerprint, version, formats and codecs, and what became of the documents that came in.

    A store that did not count those takes each refused file for one document.
    """
    manifest = store.manifest
    left_out = sum(manifest.dropped.values()) + manifest.quarantined
    return {
        "name": store.name,
        "fingerprint": store.fingerprint,
        "kind": manifest.kind,
        "format_version": manifest.format_version,
        "version": manifest.version,
        "format": ", ".join(sorted({part.format for part in manifest.parts})),
        "codec": ", ".join(sorted({part.codec if part.compressed else "none" for part in manifest.parts})),
        "documents_in": manifest.documents + left_out if manifest.documents_in is None else manifest.documents_in,
        "documents_stored": manifest.documents,
        "dropped": dict(manifest.dropped),
        "quarantined": manifest.quarantined,
    }


def split_rows(store: Store) -> list[dict[str, Any]]:
    """Return parts, documents, bytes, patches and mean patch of each split; 0 throughout if it is empty."""
    rows = []
    for split in SPLITS:
        records = list(store.parts(split).records())
        n_bytes, patches = sum(record.n_bytes for record in records), sum(record.patches for record in records)
        rows.append(
            {
                "split": split,
                "parts": len(records),
                "documents": sum(record.documents for record in records),
                "bytes": n_bytes,
                "patches": patches,
                "mean_patch": round(n_bytes / max(patches, 1), 4),
            }
        )
    return rows


def source_rows(store: Store) -> list[dict[str, Any]]:
    """Return, for each source, its bytes, documents and patches, their mean, and the shares at the cap and of one byte.

    Sorted by name. Sources of one name count as one.
    """
    totals: dict[str, list[int]] = {}
    for record in store.manifest.parts:
        for span in record.spans:
            row = totals.setdefault(span.source, [0] * 5)
            for place, value in enumerate((span.n_bytes, span.documents, span.patches, span.at_cap, span.single)):
                row[place] += value
    return [
        {
            "source": source,
            "bytes": n_bytes,
            "documents": documents,
            "patches": patches,
            "mean_patch": round(n_bytes / patches, 4),
            "at_cap": round(at_cap / patches, 6),
            "single": round(single / patches, 6),
        }
        for source, (n_bytes, documents, patches, at_cap, single) in sorted(totals.items())
    ]


def length_counts(store: Store) -> list[int]:
    """Return how many patches of the store have 0, 1, 2 ... bytes."""
    counts: list[int] = []
    for record in store.manifest.parts:
        counts += [0] * (len(record.patch_lengths) - len(counts))
        for length, count in enumerate(record.patch_lengths):
            counts[length] += count
    return counts


def refusals(rows: list[dict[str, Any]]) -> list[Refusal]:
    """Return the rows of a quarantine by reason, the most frequent first; reasons that differ in numbers are one."""
    groups: dict[str, Refusal] = {}
    for row in rows:
        group = groups.setdefault(_NUMBER.sub("N", row["reason"]), Refusal(row["reason"]))
        group.count += 1
        group.differ |= row["reason"] != group.reason
        if len(group.examples) < EXAMPLES:
            group.examples.append((_place(row), row["reason"]))
    return sorted(groups.values(), key=lambda group: (-group.count, group.reason))


def _place(row: dict[str, Any]) -> str:
    """Return what was refused: a file, or a record of it."""
    return f"{row['path']} : {row['record']}" if row.get("record") else str(row["path"])


def printable(text: str) -> str:
    """Return a name or a reason with everything that a terminal would obey or cannot show as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def cut(lines: list[str]) -> list[str]:
    """Return the first lines and how many more there are."""
    rest = len(lines) - ROWS_SHOWN
    return lines if rest <= 0 else [*lines[:ROWS_SHOWN], f"... and {rest:,} more (all of them with --json)"]
