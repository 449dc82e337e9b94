"""`bytropix repatch`: other patches for a store, in place.

STORE, what changes -> repatch, with a progress bar -> summary lines on stderr, or one JSON object on stdout
"""

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bytropix.jobs.progress import stage_bars
from bytropix.jobs.store_report import printable
from bytropix.jobs.working import Working
from bytropix.patching import RuleName
from bytropix.pipelines.tools.repatch import repatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Repatch:
    """Cut a store into other patches, in place.

    Bytes, entropies and documents stay as they are; the rule is calibrated anew on the documents that the store's table
    was fitted on, so the result is the store that ingestion makes with these settings. Older versions of the store are
    dropped. Stop what reads the store before. A run that dies leaves a store that can be read; run it again.
    """

    store: tyro.conf.Positional[str]
    """The store, a folder or a URL."""
    mean_patch: float | None = None
    """Mean patch length to aim at, in bytes."""
    rule: RuleName | None = None
    """The rule; threshold, words and fixed share one kind of table, entropy needs another."""
    min_patch: int | None = None
    """Least length of a patch in bytes."""
    max_patch: int | None = None
    """Greatest length of a patch in bytes."""
    working: Annotated[Working, tyro.conf.OmitArgPrefixes] = field(default_factory=Working)
    """Who does the work."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""

    def __call__(self) -> int:
        """Cut the store and say how."""
        begin = time.perf_counter()
        asked = {name: getattr(self, name) for name in ("mean_patch", "rule", "min_patch", "max_patch")}
        changes = {name: value for name, value in asked.items() if value is not None}
        with stage_bars() as progress, self.working.runner(self.store) as runner:
            store = repatch(self.store, changes, runner, progress)
        seconds = time.perf_counter() - begin
        n_bytes = sum(part.n_bytes for part in store.manifest.parts)
        patches = sum(part.patches for part in store.manifest.parts)
        report = {
            "store": store.url,
            "fingerprint": store.fingerprint,
            "patch": store.manifest.patcher["config"],
            "bytes": n_bytes,
            "patches": patches,
            "mean_patch": round(n_bytes / patches, 4),
            "seconds": round(seconds, 3),
            "mb_per_second": round(n_bytes / 1e6 / seconds, 1),
        }
        if self.json:
            print(json.dumps(report, sort_keys=True))
            return 0
        lines = [
            f"store        {printable(store.url)}",
            f"rule         {report['patch']['rule']}, aimed at a mean of {report['patch']['mean_patch']:g} bytes",
            f"patches      {patches:,}, mean {report['mean_patch']:.2f} bytes",
            f"time         {seconds:.1f} s, {report['mb_per_second']:,} MB/s",
        ]
        print("\n".join(lines), file=sys.stderr)
        return 0
