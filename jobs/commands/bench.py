"""`bytropix bench`: what this machine makes of it.

names -> benchmarks -> rows, a line on stderr each as they come -> one JSON object
"""

import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import tyro

from bytropix.errors import ConfigError
from bytropix.jobs.bench import BENCHES, BenchName
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Place, table
from bytropix.version import VERSION


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure speed and fairness, and what a damaged store does to its reader.

    Every figure is the median of some turns; ratios are taken turn by turn against a baseline that runs in between, so
    that other work on the machine hurts both. A table goes to stderr as it comes.
    """

    only: tyro.conf.Positional[tuple[BenchName, ...]] = ()
    """Benchmarks to run; all if none is named."""
    repeats: int = 5
    """Turns of each measurement."""
    megabytes: float = 64.0
    """Size of the text to work on, in 10**6 bytes; ingest, stream and remote take four times as much."""
    data: Path | None = None
    """A folder of files to measure on, in place of the sources of Python's standard library."""
    out: Path | None = None
    """Where to write the JSON object as well."""
    faults_page: Path | None = None
    """Where to write the table of `faults` as well, as a page in Markdown."""
    png: Path | None = None
    """Where to draw the table of `stream` as well, as a PNG."""
    json: bool = False
    """Print one JSON object; of `stream`, `rows` hold each loader once, `variants` the other ways to run it."""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError(f"--repeats must be at least 1, got {self.repeats}")
        if not 0.5 <= self.megabytes <= 10_000:
            raise ConfigError(f"--megabytes must lie in 0.5..10000, got {self.megabytes}")
        for flag, path in (("--out", self.out), ("--faults-page", self.faults_page), ("--png", self.png)):
            if path is not None and not path.parent.is_dir():
                raise ConfigError(f"{flag} {path}: there is no folder {path.parent}; make it first")

    def __call__(self) -> int:
        """Run the benchmarks and print their rows."""
        rows: list[BenchRow] = []
        for name in self.only or BENCHES:
            with tempfile.TemporaryDirectory(prefix="bytropix-bench-", ignore_cleanup_errors=True) as folder:
                settings = BenchSettings(
                    repeats=self.repeats,
                    megabytes=self.megabytes,
                    data=self.data,
                    folder=Path(folder),
                    faults_page=self.faults_page,
                    png=self.png,
                )
                found = BENCHES[name](settings)
            for row in found:
                if not row.detail:
                    print(table(row), file=sys.stderr, flush=True)
            rows += found
        report = json.dumps({"machine": machine()} | by_place(rows), indent=1)
        if self.out is not None:
            self.out.write_text(report + "\n", encoding="utf-8")
        if self.json:
            print(report)
        return 0


def by_place(rows: list[BenchRow]) -> dict[str, list[dict[str, Any]]]:
    """Return rows as plain data by the key they stand under; `rows` is always there."""
    places = sorted({"rows", *(row.place for row in rows)}, key=get_args(Place).index)
    return {place: [plain(row) for row in rows if row.place == place] for place in places}


def machine() -> dict[str, Any]:
    """Return what the figures depend on; no name of the machine or its user."""
    return {
        "bytropix": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


def plain(row: BenchRow) -> dict[str, Any]:
    """Return a row as plain data, each target with whether it is met."""
    left_out = {"detail", "figures", "place"}
    values = {name: value for name, value in asdict(row).items() if value not in (None, "") and name not in left_out}
    values |= row.figures
    values["targets"] = [asdict(target) | {"met": row.met(target)} for target in row.targets]
    return values
