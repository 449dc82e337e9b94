"""`bytropix ingest bytes`: files, folders and URLs to a store.

SOURCE ... -> ingest_bytes -> summary, and a warning where a split is empty
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import tyro

from bytropix.jobs.ingest_run import RunOptions, run
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestBytes:
    """Turn files, folders and URLs into a store of bytes, cut into patches."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Files, folders, globs, URLs (s3://, gs://, https://), or - for the standard input, in any order. What cannot be
    read is listed in the store's quarantine."""
    out: str
    """The store to make, by custom NAME.bx: a folder or a URL."""
    config: Annotated[IngestConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=IngestConfig)
    """What decides the bytes of the store."""
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RunOptions)
    """How the work is done."""
    resume: bool = False
    """Complete what an earlier run with the same sources and settings left, or begin."""
    overwrite: bool = False
    """Replace a store that is there."""

    def __call__(self) -> int:
        """Make the store and say what is in it."""
        work = partial(ingest_bytes, self.sources, self.out, self.config, resume=self.resume, overwrite=self.overwrite)
        report = run(self.run, work)
        for split, remedy in (("train", "smaller"), ("val", "larger")):
            if not report["splits"][split]["documents"] and self.config.val_fraction > 0:
                print(
                    f"warning: no document landed in {split}; ingest more data, or with a smaller --document-bytes "
                    f"or a {remedy} --val-fraction",
                    file=sys.stderr,
                )
        return 0
