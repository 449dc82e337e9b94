"""A store of video made of its sources once more, to mend another one from.

manifest -> its config -> ingest of the same sources into a scratch store
"""

from collections.abc import Sequence
from pathlib import Path

from bytropix.config import from_plain
from bytropix.datasets.store import Manifest
from bytropix.errors import ConfigError, StoreError
from bytropix.pipelines.ingest import Progress
from bytropix.pipelines.ledger import Selection
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video


def ingest_again(manifest: Manifest, selections: Sequence[Selection], out: Path, progress: Progress) -> None:
    """Make the store of a manifest again.

    Args:
        manifest: Of the store to mend.
        selections: What it was made of.
        out: Where to make it.
        progress: See `Progress`.

    Raises:
        SourceError: A source is missing.
        StoreError: The config is none of a store of video, or the disk is full.
    """
    try:
        config = from_plain(VideoConfig, manifest.config)
    except ConfigError as error:
        raise StoreError(f"its config is none of this version of bytropix ({error}); restore it from a copy") from error
    ingest_video(
        [source for one in selections for source in one.sources],
        out,
        config,
        include=selections[0].include,
        exclude=selections[0].exclude,
        max_bad=1.0,
        progress=progress,
    )
