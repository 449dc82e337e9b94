"""Raw sources to a finished store.

    sources -> scan (hash, cut) -> take in (duplicates, quarantine) -> plan -> fit the patcher on a sample
            -> parts, in N processes or on a cluster -> manifest, last

A run that dies leaves a folder without manifest, which readers refuse and `resume` completes to the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bytropix.config import to_plain
from bytropix.datasets.store import FORMAT_VERSION, FileRecord, Manifest, SourceRecord, Storage, Store, open_storage
from bytropix.datasets.store.commit import BESIDE
from bytropix.datasets.store.manifest import MANIFEST, publish, quarantine_name, tidy
from bytropix.datasets.store.rows import LISTS
from bytropix.errors import ConfigError, SourceError, StoreError
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ledger import Remembered, Selection, config_hash, recall, remember, selection, signatures
from bytropix.pipelines.reasons import count_reasons
from bytropix.pipelines.sources import SourceFile, find_files
from bytropix.pipelines.sources.files import STDIN
from bytropix.pipelines.sources.remote import is_url

if TYPE_CHECKING:  # with kernels and codecs these take most of a second to import, and a rerun may have nothing to do
    import numpy as np
    from numpy.typing import NDArray

    from bytropix.pipelines.intake import Intake
    from bytropix.pipelines.job import Job, Patching
    from bytropix.pipelines.scan import ScannedFile

OURS = {MANIFEST, LISTS, "versions", "babylon", "parts", "receipts", "spool", "refused.jsonl"}


Progress = Callable[[str, int, int], None]
"""Called with the stage (scan, clean, fit, parts), what is done and what there is in all: bytes, or documents."""


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def print_nothing(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestSummary:
    """What an ingestion did."""

    store: Store
    """The finished store."""
    skipped: int
    """Parts that an earlier run had finished."""

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why inputs are in quarantine, with their number, the most frequent reason first."""
        return count_reasons(self.store.quarantine())


def ingest_bytes(
    sources: Sequence[str | Path],
    out: str | Path,
    config: IngestConfig,
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
    """Make a store of sources.

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
        overwrite: Remove a store that is there, once the sources are known to be good.
        strict: Stop at the first input that is bad.
        max_bad: Largest share of the inputs that may be bad.
        progress: See `Progress`.
        say: Told in one line each what a user should know of a cluster: its dashboard, workers that come and go.

    Raises:
        ConfigError: Options that cannot work.
        SourceError: A source is missing, nothing is left of all of them, or one is bad and `strict`.
        TooManyBadError: More is bad than `max_bad` allows.
        StoreError: `out` is in the way, the disk is full, or a worker died.
    """
    check_options(sources, workers=workers, max_bad=max_bad)
    check_cleaning(config)

    def job(storage: Storage) -> "Job":
        from bytropix.pipelines.job import Job

        return Job(
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
        return same_store(storage, source_records([file for file in scanned if not file.refused]), config)

    def make(storage: Storage, files: list[SourceFile]) -> IngestSummary:
        return _make(job(storage), files, overwrite=overwrite)

    selected = selection(sources, include, exclude)
    return make_store(selected, sources, out, config, resume=resume, overwrite=overwrite, compare=compare, make=make)


def make_store(
    selected: Selection,
    sources: Sequence[str | Path],
    out: str | Path,
    config: object,
    *,
    resume: bool,
    overwrite: bool,
    compare: Callable[[Storage, list[SourceFile]], IngestSummary],
    make: Callable[[Storage, list[SourceFile]], IngestSummary],
) -> IngestSummary:
    """Make a store of whatever kind, or find that it is there; see `ingest_bytes`.

    Args:
        selected: What the run was given, for this machine to remember.
        sources: See `ingest_bytes`.
        out: See there.
        config: What decides the store's bytes, a dataclass.
        resume: See there.
        overwrite: See there.
        compare: Returns the finished store that is there, if it is the one asked for.
        make: Makes the store and publishes it.

    Raises:
        ConfigError: Options that cannot work.
        SourceError: A source is missing, or no file is left.
        StoreError: `out` is in the way.
    """
    if resume and overwrite:
        raise ConfigError("--resume completes a store and --overwrite replaces it; give one of them")
    storage = open_storage(out)
    check_apart(storage, map(str, sources))
    refuse_in_the_way(storage, there_is_leave=resume or overwrite)
    files = find_files(sources, selected.include, selected.exclude)
    check_apart(storage, (file.path for file in files))
    there = Remembered(fingerprint="", config=config_hash(config), runs=(selected,), files=signatures(files))
    finished = resume and storage.size(MANIFEST) is not None
    if finished:
        tidy(storage)
    if finished and (store := _as_remembered(storage, there)):
        return IngestSummary(store=store, skipped=len(store.manifest.parts))
    summary = compare(storage, files) if finished else make(storage, files)
    remember(storage.url, replace(there, fingerprint=summary.store.fingerprint))
    return summary


def check_options(sources: Sequence[str | Path], *, workers: int, max_bad: float) -> None:
    """Refuse options that cannot work, before anything is read.

    Raises:
        ConfigError: They cannot.
        SourceError: There is no source.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if not 0 <= max_bad <= 1:
        raise ConfigError(f"max_bad must lie in [0, 1], got {max_bad}")
    if not sources:
        raise SourceError("no source; give at least one file or folder")


def check_cleaning(config: IngestConfig) -> None:
    """Refuse settings that need a package which is not installed.

    Raises:
        ConfigError: One is not.
    """
    if config.clean.near_duplicates:
        from bytropix.pipelines.cleaning import check_installed

        check_installed(config.clean)


def check_apart(storage: Storage, sources: Iterable[str]) -> None:
    """Refuse sources that lie in the store, or around it.

    Raises:
        StoreError: One does.
    """
    place = storage.local.resolve() if storage.local else storage.url
    for source in sources:
        if not _apart(source, place):
            raise StoreError(
                f"{storage.url}: the store and the source {source} lie in one another; choose another --out"
            )


def source_records(files: Sequence["ScannedFile"], version: int = 1) -> tuple[SourceRecord, ...]:
    """Return what a manifest says of files that were read."""
    return tuple(
        SourceRecord(name=file.file.name, size=file.size, sha256=file.sha256, kind=file.kind, version=version)
        for file in files
    )


def quarantine_record(lines: bytes, version: int) -> FileRecord:
    """Return what a manifest says of the list of what was refused."""
    return FileRecord(path=quarantine_name(version), size=len(lines), sha256=FileRecord.hash_of(lines))


def _apart(source: str, place: str | Path) -> bool:
    """Return whether a source and the store's place are not in one another."""
    if source == STDIN or is_url(source) != isinstance(place, str):
        return True
    if isinstance(place, str):
        one, other = source.rstrip("/"), place.rstrip("/")
        return not (f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"))
    path = Path(source).resolve()
    return place != path and path not in place.parents and place not in path.parents


def refuse_in_the_way(storage: Storage, *, there_is_leave: bool) -> None:
    """Refuse a place for a store that holds something else, or a store unless there is leave to complete or replace it.

    Raises:
        StoreError: It does.
    """
    if storage.local and storage.local.exists() and not storage.local.is_dir():
        raise StoreError(f"{storage.url}: exists and is not a store; choose another --out")
    tops = {name.split("/")[0] for name in storage.sizes()}
    if any(top not in OURS and not top.startswith((BESIDE, "quarantine")) for top in tops):
        raise StoreError(f"{storage.url}: exists and is not a store; choose another --out")
    if tops and not there_is_leave:
        raise StoreError(
            f"{storage.url}: exists; complete it with --resume, replace it with --overwrite, or choose another --out"
        )


def _as_remembered(storage: Storage, there: Remembered) -> Store | None:
    """Return the finished store if it was made here of these very files, none of which has been touched since."""
    known = recall(storage.url)
    if known is None or not there.files or (known.config, known.files) != (there.config, there.files):
        return None
    store = Store.open(storage.url)
    return store if store.fingerprint == known.fingerprint else None


def same_store(storage: Storage, asked: Sequence[SourceRecord], config: object) -> IngestSummary:
    """Return the finished store if it is one of these sources and this config.

    Raises:
        StoreError: It is not.
    """
    store = Store.open(storage.url)
    wanted = [(source.name, source.size, source.sha256) for source in asked]
    there = [(source.name, source.size, source.sha256) for source in store.manifest.sources]
    for what, same in (("config", store.manifest.config == to_plain(config)), ("sources", wanted == there)):
        if not same:
            raise StoreError(
                f"{store.url}: a finished store of other {what}; replace it with --overwrite or choose another --out"
            )
    return IngestSummary(store=store, skipped=len(store.manifest.parts))


def _make(job: "Job", files: list[SourceFile], *, overwrite: bool) -> IngestSummary:
    """Make the store and publish it."""

    def prepare(intake: "Intake") -> "Patching":
        if overwrite:
            clear(job.storage)
        return _fit(job, intake)

    built = job.build(files, prepare, quarantine=quarantine_name(1))
    assert built is not None  # as nothing was seen before
    records = tuple(part.record for part in built.parts if part.record)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind="bytes",
        config=to_plain(job.config),
        patcher=built.patching.settings,
        babylon=built.patching.files,
        sources=source_records(built.intake.files),
        parts=records,
        quarantine=quarantine_record(built.intake.quarantine_lines, 1),
        quarantined=len(built.intake.quarantine),
        documents_in=built.intake.documents_in,
        dropped=built.intake.dropped,
    )
    publish(job.storage, manifest)
    return IngestSummary(store=Store.open(job.storage.url), skipped=sum(part.skipped for part in built.parts))


def clear(storage: Storage) -> None:
    """Remove a finished store, its manifest first; what this run has spooled and written stays."""
    if storage.size(MANIFEST) is not None:
        storage.remove([MANIFEST])
        storage.remove([name for name in storage.sizes() if not name.startswith("spool/")])


def _fit(job: "Job", intake: "Intake") -> "Patching":
    """Fit the patcher on a sample of the train documents and keep it in the store."""
    import numpy as np

    from bytropix.datasets.store import write_patcher
    from bytropix.patching import fit_patcher
    from bytropix.pipelines.documents import read_documents
    from bytropix.pipelines.job import Patching
    from bytropix.pipelines.plan import sample_files

    files = sample_files(intake.documents, job.config)
    total = sum(file.n_bytes for file in files)

    def sample() -> "Iterator[NDArray[np.uint8]]":
        read = 0
        for file in files:
            data = read_documents((file,), job.storage)
            yield from np.split(data, np.cumsum(file.lengths[:-1], dtype=np.int64))
            read += len(data)
            job.progress("fit", read, total)

    job.progress("fit", 0, total)
    settings, table = write_patcher(job.storage, fit_patcher(sample(), job.config.patch))
    return Patching(settings=settings, files=table)
