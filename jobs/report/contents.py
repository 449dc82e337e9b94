"""What the manifest and the quarantine tell, as rows for the page.

files -> sizes by array      spans -> sources, largest first, and folders      quarantine -> refusals by reason
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bytropix.datasets.store import Store
from bytropix.jobs.store_report import source_rows

ARRAYS = ("bytes", "entropy", "starts", "doc_ends", "doc_meta")
TARS = ("tar", "index")
SOURCES_OPEN = 12
SOURCES_SHOWN = 500
FOLDERS_SHOWN = 14
FOLDER_STEPS = 4
REASONS_SHOWN = 40
EXAMPLES = 5
_NUMBER = re.compile(r"\d[\d,.]*")


@dataclass(frozen=True, slots=True)
class Shares:
    """Named amounts, largest first, the rest of a long list summed."""

    rows: list[tuple[str, int]]
    rest: int
    """Names that are not shown."""
    rest_amount: int
    """Of them together."""

    @property
    def most(self) -> int:
        """The largest amount that is shown, at least 1."""
        return max([amount for _, amount in self.rows] + [self.rest_amount, 1])


@dataclass(slots=True)
class Refusal:
    """Inputs that were refused for one reason."""

    reason: str
    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    """Path and full reason of the first ones."""


def disk_sizes(store: Store) -> list[tuple[str, int]]:
    """Return bytes on disk by what they hold: each array of Zarr parts, tar files, the entropy table, the rest."""
    sizes: Counter[str] = Counter()
    for record in store.manifest.parts:
        for file in record.files:
            top = file.path.split("/")[0]
            suffix = file.path.rpartition(".")[2]
            sizes[top if top in ARRAYS else suffix if suffix in TARS else "metadata"] += file.size
    sizes["table"] = sum(file.size for file in store.manifest.babylon)
    sizes["quarantine"] = store.manifest.quarantine.size
    order = (*ARRAYS, *TARS, "metadata", "table", "quarantine")
    return [(name, sizes[name]) for name in order if sizes[name]]


def settings(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of the ingest but those of patches, innermost names only; what is empty is left out."""
    found = []
    for name, value in sorted(config.items()):
        if isinstance(value, dict):
            found += settings(value) if name != "patch" else []
        elif value not in ("", None, [], ()):
            found.append((name, f"{value:g}" if isinstance(value, float) else str(value)))
    return found


def largest_sources(store: Store) -> list[dict[str, Any]]:
    """Return the rows of all sources, largest first."""
    return sorted(source_rows(store), key=lambda row: (-row["bytes"], row["source"]))


def by_folder(rows: list[dict[str, Any]]) -> Shares:
    """Return the bytes of the sources by folder, as many steps deep as leave them few enough to look at."""
    totals: Counter[str] = Counter()
    for steps in range(1, FOLDER_STEPS + 1):
        deeper: Counter[str] = Counter()
        for row in rows:
            deeper["/".join(row["source"].split("/")[:steps])] += row["bytes"]
        if steps > 1 and len(deeper) > 2 * FOLDERS_SHOWN:
            break
        totals = deeper
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    rest = ranked[FOLDERS_SHOWN:]
    return Shares(ranked[:FOLDERS_SHOWN], len(rest), sum(amount for _, amount in rest))


def refusals(rows: list[dict[str, Any]]) -> list[Refusal]:
    """Return the rows of a quarantine by reason, the most frequent first; reasons that differ in numbers are one."""
    groups: dict[str, Refusal] = {}
    for row in rows:
        group = groups.setdefault(_NUMBER.sub("N", row["reason"]), Refusal(row["reason"]))
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append((_place(row), row["reason"]))
    return sorted(groups.values(), key=lambda group: (-group.count, group.reason))


def _place(row: dict[str, Any]) -> str:
    """Return what was refused: a file, or a record of it."""
    return f"{row['path']} : {row['record']}" if row.get("record") else str(row["path"])
