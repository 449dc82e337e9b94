"""`bytropix append`: more sources for a store that is finished.

STORE SOURCE ... -> append_bytes -> summary of the new version
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import tyro

from bytropix.jobs.ingest_run import RunOptions, run
from bytropix.pipelines.append import append_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Append:
    """Add files, folders and URLs to a store, under the settings that it was made with, as its next version."""

    store: tyro.conf.Positional[str]
    """The store: a folder or a URL. It stays readable while the new parts are written."""
    sources: tyro.conf.Positional[tuple[str, ...]]
    """Files, folders, globs, URLs, or - for the standard input. Files that the store has already are left out."""
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RunOptions)
    """How the work is done."""

    def __call__(self) -> int:
        """Add them and say what is in the store."""
        run(self.run, partial(append_bytes, self.store, self.sources))
        return 0
