"""`bytropix ingest bytes`: files and folders to a store.

SOURCE ... -> ingest_bytes, with a progress bar -> summary lines on stderr, or one JSON object on stdout
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from bytropix.jobs.progress import progress_bar
from bytropix.jobs.store_report import printable, split_rows
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import IngestSummary, Progress, ingest_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestBytes:
    """Turn files and folders into a store of bytes, cut into patches."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Files and folders, in any order. What cannot be read in a folder is listed in the store's quarantine."""
    out: Path
    """The store to make, by custom NAME.bx."""
    config: Annotated[IngestConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=IngestConfig)
    """What decides the bytes of the store."""
    workers: int = os.cpu_count() or 1
    """Processes; the store is the same for any number."""
    resume: bool = False
    """Complete what an earlier run with the same sources and settings left."""
    overwrite: bool = False
    """Replace a store that is there."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""

    def __call__(self) -> int:
        """Make the store and say what is in it."""
        begin = time.perf_counter()
        with _bars() as progress:
            summary = ingest_bytes(
                self.sources,
                self.out,
                self.config,
                workers=self.workers,
                resume=self.resume,
                overwrite=self.overwrite,
                progress=progress,
            )
        report = _report(summary, time.perf_counter() - begin)
        if self.json:
            print(json.dumps(report, sort_keys=True))
        else:
            print(_lines(report), file=sys.stderr)
        for split, remedy in (("train", "smaller"), ("val", "larger")):
            if not report["splits"][split]["documents"] and self.config.val_fraction > 0:
                print(
                    f"warning: no document landed in {split}; ingest more data, or with a smaller --document-bytes "
                    f"or a {remedy} --val-fraction",
                    file=sys.stderr,
                )
        return 0


@contextmanager
def _bars() -> Iterator[Progress]:
    """Give a function that draws one bar per stage on stderr, with MB/s and the time left."""
    with ExitStack() as stack:
        bars: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                stack.close()
                bars[stage] = stack.enter_context(progress_bar(f"{stage:<5}", total))
            bars[stage].update(done - bars[stage].n)

        yield progress


def _report(summary: IngestSummary, seconds: float) -> dict[str, Any]:
    """Return what was done as plain data."""
    manifest = summary.store.manifest
    splits = {row["split"]: row for row in split_rows(summary.store)}
    n_bytes = sum(row["bytes"] for row in splits.values())
    patches = sum(row["patches"] for row in splits.values())
    return {
        "store": summary.store.url,
        "fingerprint": summary.store.fingerprint,
        "sources": len(manifest.sources),
        "documents": sum(row["documents"] for row in splits.values()),
        "bytes": n_bytes,
        "patches": patches,
        "mean_patch": round(n_bytes / patches, 4),
        "splits": splits,
        "quarantined": manifest.quarantined,
        "parts": len(manifest.parts),
        "parts_skipped": summary.skipped,
        "seconds": round(seconds, 3),
        "mb_per_second": round(n_bytes / 1e6 / seconds, 3),
    }


def _lines(report: dict[str, Any]) -> str:
    """Return the report for people."""
    splits = report["splits"]
    lines = [
        f"store        {printable(report['store'])}",
        f"sources      {report['sources']:,}, {report['quarantined']:,} quarantined",
        f"documents    {report['documents']:,} ({splits['val']['documents']:,} in val)",
        f"bytes        {report['bytes']:,} ({splits['val']['bytes']:,} in val)",
        f"patches      {report['patches']:,}, mean {report['mean_patch']:.2f} bytes",
        f"parts        {report['parts']:,}, {report['parts_skipped']:,} there from an earlier run",
        f"time         {report['seconds']:.1f} s, {report['mb_per_second']:.1f} MB/s",
    ]
    return "\n".join(lines)
