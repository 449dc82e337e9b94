"""Video files to a finished store.

sources -> scan (hash, header) -> plan -> groups: decode, scenes, regions, parts, in N processes or on a cluster
        -> manifest, last

A run that dies leaves a folder without manifest, which readers refuse and `resume` completes to the same bytes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from bytropix.config import to_plain
from bytropix.datasets.store import FORMAT_VERSION, Manifest, SourceRecord, Storage, Store
from bytropix.datasets.store.manifest import publish, quarantine_name
from bytropix.pipelines.ingest import (
    IngestSummary,
    Progress,
    check_options,
    clear,
    make_store,
    print_nothing,
    quarantine_record,
    same_store,
    silent,
)
from bytropix.pipelines.ledger import selection
from bytropix.pipelines.sources import SourceFile
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.job import VideoJob, lines_of
from bytropix.pipelines.video.scan import ScannedVideo

NOTHING_LEFT = "nothing_left"


def ingest_video(
    sources: Sequence[str | Path],
    out: str | Path,
    config: VideoConfig,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 1,
    scheduler: str = "",
    dask: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    strict: bool = False,
    max_bad: float = 0.05,
    progress: Progress = silent,
    say: Callable[[str], None] = print_nothing,
) -> IngestSummary:
    """Make a store of videos.

    Args:
        sources: Files, folders, globs, URLs, "-" for the standard input, in any order.
        out: The store's folder or URL.
        config: What decides its bytes.
        include: Read only files whose name matches one of these globs.
        exclude: Leave out files whose name matches one of these.
        workers: Processes; the result is the same for any number.
        scheduler: Address of a Dask scheduler whose workers do the work.
        dask: Let a Dask cluster on this machine do it.
        resume: Complete what an earlier run left, or begin.
        overwrite: Remove a store that is there, once the headers of the sources are known to be good.
        strict: Stop at the first input that is bad.
        max_bad: Largest share of the files that may be bad; judged after the scan, and again when all is decoded.
        progress: See `Progress`; the stages are scan and decode.
        say: Told in one line each what a user should know: what is fetched, workers that come and go.

    Raises:
        ConfigError: Options that cannot work.
        SourceError: A source is missing, nothing is left of all of them, or one is bad and `strict`.
        TooManyBadError: More is bad than `max_bad` allows.
        StoreError: `out` is in the way, the disk is full, or a worker died.
    """
    check_options(sources, workers=workers, max_bad=max_bad)

    def job(storage: Storage) -> VideoJob:
        return VideoJob(
            storage=storage,
            config=config,
            workers=workers,
            scheduler=scheduler,
            dask=dask,
            strict=strict,
            max_bad=max_bad,
            progress=progress,
            say=say,
        )

    def compare(storage: Storage, files: list[SourceFile]) -> IngestSummary:
        with job(storage).runner(files) as runner:
            scanned = job(storage).scan(files, runner, keep=False)
        return same_store(storage, _source_records([video for video in scanned if not video.refused]), config)

    def make(storage: Storage, files: list[SourceFile]) -> IngestSummary:
        return _make(job(storage), files, overwrite=overwrite)

    selected = selection(sources, include, exclude)
    return make_store(selected, sources, out, config, resume=resume, overwrite=overwrite, compare=compare, make=make)


def _make(job: VideoJob, files: list[SourceFile], *, overwrite: bool) -> IngestSummary:
    """Make the store and publish it."""

    def make_way() -> None:
        if overwrite:
            clear(job.storage)

    built = job.build(files, make_way, quarantine_name(1))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind="video",
        config=to_plain(job.config),
        patcher={},
        babylon=(),
        sources=_source_records(built.videos),
        parts=built.records,
        quarantine=quarantine_record(lines_of(list(built.quarantine)), 1),
        quarantined=len(built.quarantine),
        documents_in=built.videos_in,
        dropped={NOTHING_LEFT: built.nothing_left} if built.nothing_left else {},
    )
    publish(job.storage, manifest)
    return IngestSummary(store=Store.open(job.storage.url), skipped=built.skipped)


def _source_records(videos: Sequence[ScannedVideo]) -> tuple[SourceRecord, ...]:
    """Return what a manifest says of videos whose headers were good; one may be refused when it is decoded."""
    return tuple(
        SourceRecord(name=video.file.name, size=video.size, sha256=video.sha256, kind=video.kind) for video in videos
    )
