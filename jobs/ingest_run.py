"""What `ingest` and `append` share: how the work is done, bars while it is, and the report at the end.

options -> ingest_..., append_bytes, with a bar per stage -> summary lines on stderr, or one JSON object on stdout
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from bytropix.jobs.progress import stage_bars
from bytropix.jobs.store_report import printable, split_rows
from bytropix.jobs.working import Working
from bytropix.pipelines.ingest import IngestSummary

TOP = 5  # reasons that are shown


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How the work is done. The store is the same whatever the number of workers and wherever they are."""

    include: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Read only files whose name, or its last step, matches this glob; may be given several times."""
    exclude: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Leave out files whose name, or its last step, matches this glob; may be given several times."""
    working: Annotated[Working, tyro.conf.OmitArgPrefixes] = field(default_factory=Working)
    """Who does it; workers of a cluster must see the sources and the store under the same names."""
    strict: bool = False
    """Stop at the first bad file or record instead of listing it in the store's quarantine."""
    max_bad: float = 0.05
    """Largest share of the files, and of the documents, that may be bad; with more, nothing is written but the list of
    them, and the exit code is 3. Empty files are listed and are not bad."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""


def run(
    options: RunOptions,
    work: Callable[..., IngestSummary],
    report_of: "Callable[[IngestSummary, float], dict[str, Any]] | None" = None,
    lines_of: "Callable[[dict[str, Any]], str] | None" = None,
) -> dict[str, Any]:
    """Do the work, say what was done, and return it as plain data.

    Args:
        options: How.
        work: Takes the options of `ingest_bytes` as keywords.
        report_of: Returns what was done, in so many seconds; that of bytes if `None`.
        lines_of: Returns it for people; the same.
    """
    begin = time.perf_counter()
    with stage_bars() as progress:
        summary = work(
            include=options.include,
            exclude=options.exclude,
            workers=options.working.workers,
            scheduler=options.working.scheduler,
            dask=options.working.dask,
            strict=options.strict,
            max_bad=options.max_bad,
            progress=progress,
            say=lambda line: print(line, file=sys.stderr),
        )
    report = (report_of or _report)(summary, time.perf_counter() - begin)
    if options.json:
        print(json.dumps(report, sort_keys=True))
    else:
        print((lines_of or _lines)(report), file=sys.stderr)
    return report


def _report(summary: IngestSummary, seconds: float) -> dict[str, Any]:
    """Return what was done as plain data."""
    manifest = summary.store.manifest
    splits = {row["split"]: row for row in split_rows(summary.store)}
    n_bytes = sum(row["bytes"] for row in splits.values())
    patches = sum(row["patches"] for row in splits.values())
    return {
        "store": summary.store.url,
        "version": manifest.version,
        "fingerprint": summary.store.fingerprint,
        "sources": len(manifest.sources),
        "documents_in": manifest.documents_in,
        "documents": sum(row["documents"] for row in splits.values()),
        "cut": sum(part.pieces for part in manifest.parts),
        "dropped": manifest.dropped,
        "quarantined": manifest.quarantined,
        "reasons": summary.reasons[:TOP],
        "bytes": n_bytes,
        "patches": patches,
        "mean_patch": round(n_bytes / patches, 4),
        "splits": splits,
        "parts": len(manifest.parts),
        "parts_skipped": summary.skipped,
        "seconds": round(seconds, 3),
        "mb_per_second": round(n_bytes / 1e6 / seconds, 3),
    }


def _lines(report: dict[str, Any]) -> str:
    """Return the report for people."""
    splits = report["splits"]
    cut = f", {report['cut']:,} of them pieces of longer records" if report["cut"] else ""
    dropped = [f"dropped      {count:,} {cause.replace('_', ' ')}" for cause, count in report["dropped"].items()]
    refused = [f"quarantined  {count:,} {printable(reason)}" for reason, count in report["reasons"]]
    lines = [
        f"store        {printable(report['store'])}",
        f"sources      {report['sources']:,}, {report['quarantined']:,} quarantined",
        *refused,
        *dropped,
        f"documents    {report['documents']:,} ({splits['val']['documents']:,} in val){cut}",
        f"bytes        {report['bytes']:,} ({splits['val']['bytes']:,} in val)",
        f"patches      {report['patches']:,}, mean {report['mean_patch']:.2f} bytes",
        f"parts        {report['parts']:,}, {report['parts_skipped']:,} there from an earlier run",
        f"time         {report['seconds']:.1f} s, {report['mb_per_second']:.1f} MB/s",
    ]
    return "\n".join(lines)
