"""What the manifest tells, as rows for the page.

files -> sizes by array      spans -> sources, largest first, and folders      config -> settings
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from bytropix.datasets.store import Store
from bytropix.jobs.store_report import source_rows

ARRAYS = {
    "bytes": "bytes",
    "entropy": "entropy",
    "starts": "patch starts",
    "doc_ends": "document ends",
    "doc_meta": "document origins",
    "frames": "frames",
    "unit_ends": "ends of coded units",
    "unit_stops": "frames of coded units",
    "regions": "regions",
    "motion": "motion regions",
    "pts": "times",
    "video_ends": "video ends",
    "scene_ends": "scene ends",
    "video_meta": "video origins",
}
"""What lies in a folder of its own in a Zarr part."""
TARS = {"tar": "tar parts", "index": "indexes of tars"}
OTHERS = {"metadata": "metadata of parts", "table": "entropy table", "quarantine": "quarantine"}
SOURCES_OPEN = 12
SOURCES_SHOWN = 500
FOLDERS_SHOWN = 14
FOLDER_STEPS = 4
REASONS_SHOWN = 40


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
    return [(said, sizes[name]) for name, said in (ARRAYS | TARS | OTHERS).items() if sizes[name]]


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
