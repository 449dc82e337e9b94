"""More sources for a finished store, which gets one more version.

store + sources -> scan, without what it has already -> take in -> parts, numbered on, cut by the store's own patcher
                -> manifest of the next version, last; those before stay readable

What was stored stays as it is, byte for byte, and on its side: train or val. A run that dies leaves the store as it
was, and the same command completes it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bytropix.config import from_plain
from bytropix.datasets.store import (
    FORMAT_VERSION,
    Manifest,
    PartRecord,
    Store,
    grown,
    open_part,
    open_storage,
)
from bytropix.datasets.store.manifest import publish, quarantine_name
from bytropix.pipelines.cleaning import Known, signer
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import digest_of
from bytropix.pipelines.ingest import (
    IngestSummary,
    Progress,
    check_apart,
    check_cleaning,
    check_options,
    print_nothing,
    quarantine_record,
    silent,
    source_records,
)
from bytropix.pipelines.intake import Intake, rows_of
from bytropix.pipelines.job import Built, Job, Patching
from bytropix.pipelines.ledger import Remembered, config_hash, recall, remember, selection
from bytropix.pipelines.plan import SPLITS
from bytropix.pipelines.receipts import RECEIPTS
from bytropix.pipelines.runner import Runner
from bytropix.pipelines.scan import ScannedFile
from bytropix.pipelines.sources import find_files


@dataclass(frozen=True, slots=True)
class KnownTask:
    """A part whose documents are to be hashed."""

    url: str
    record: PartRecord
    near_duplicates: float

    def __str__(self) -> str:
        return f"hash {self.record.split}/{self.record.name}"


def append_bytes(
    place: str | Path,
    sources: Sequence[str | Path],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 1,
    scheduler: str = "",
    dask: bool = False,
    strict: bool = False,
    max_bad: float = 0.05,
    progress: Progress = silent,
    say: Callable[[str], None] = print_nothing,
) -> IngestSummary:
    """Add sources to a store under the settings that it was made with. Files that it has already are left out.

    Args:
        place: The store's folder or URL.
        sources: As for `ingest_bytes`; so are the options.
        include: See there.
        exclude: See there.
        workers: See there.
        scheduler: See there.
        dask: See there.
        strict: See there.
        max_bad: See there.
        progress: See there.
        say: See there.

    Raises:
        ConfigError: Options that cannot work.
        SourceError: A source is missing, nothing is left of all of them, or one is bad and `strict`.
        TooManyBadError: More is bad than `max_bad` allows.
        StoreError: The store is damaged, another job changes it, the disk is full, or a worker died.
    """
    store = Store.open(place)
    store.require("bytes")
    config = config_of(store.manifest)
    check_options(sources, workers=workers, max_bad=max_bad)
    check_cleaning(config)
    check_apart(store.storage, map(str, sources))
    files = find_files(sources, tuple(include), tuple(exclude))
    check_apart(store.storage, (file.path for file in files))
    store.patcher()  # checks the table
    job = Job(
        storage=store.storage,
        config=config,
        workers=workers,
        scheduler=scheduler,
        dask=dask,
        strict=strict,
        max_bad=max_bad,
        progress=progress,
        say=say,
        version=store.manifest.version + 1,
    )
    built = job.build(
        files,
        lambda intake: Patching(settings=store.manifest.patcher, files=store.manifest.babylon),
        quarantine=quarantine_name(job.version),
        before=_lines(store.quarantine()),
        known=lambda runner: _known(job, store, runner),
        seen=_seen(store),
        taken={split: len(store.parts(split)) for split in SPLITS},
    )
    if built is None:
        # A run that was killed when it had published has not removed its receipts.
        store.storage.remove(list(store.storage.sizes(RECEIPTS)))
        return IngestSummary(store=store, skipped=0)
    publish(store.storage, _next(store, built), replaces=store.fingerprint)
    earlier = recall(store.url)
    store = Store.open(place)
    remember(
        store.url,
        Remembered(
            fingerprint=store.fingerprint,
            config=config_hash(config),
            runs=(*(earlier.runs if earlier else ()), selection(sources, include, exclude)),
        ),
    )
    return IngestSummary(store=store, skipped=sum(part.skipped for part in built.parts))


def config_of(manifest: Manifest) -> IngestConfig:
    """Return the settings that a store was made with.

    Raises:
        ConfigError: They are of a later version.
    """
    plain = dict(manifest.config)
    if "codec" in plain:  # format version 1
        plain["layout"] = {"codec": plain.pop("codec")}
    return from_plain(IngestConfig, plain)


def do_known(task: KnownTask) -> Known:
    """Return the digests of a part's documents, and their signatures where those are wanted.

    Raises:
        StoreError: The part is damaged.
    """
    part = open_part(open_storage(task.url), task.record)
    sign = signer(task.near_duplicates)
    digests, signatures = [], []
    begin = 0
    for end in part.doc_ends.tolist():
        document = part.read("bytes", begin, end).data
        digests.append(digest_of(document))
        if sign:
            signatures.append(sign(document))
        begin = end
    words = np.array(digests, np.uint64)
    return words[:, 0], words[:, 1], np.array(signatures, np.uint32)


def _known(job: Job, store: Store, runner: Runner) -> Known | None:
    """Return the documents of a store, where duplicates of them are to be dropped."""
    clean = job.config.clean
    if not (clean.drop_duplicates or clean.near_duplicates):
        return None
    tasks = (KnownTask(job.place, record, clean.near_duplicates) for record in store.manifest.parts)
    first, second, signatures = zip(*runner.map(do_known, tasks), strict=True)
    return np.concatenate(first), np.concatenate(second), np.concatenate(signatures)


def _seen(store: Store) -> Callable[[ScannedFile], bool]:
    """Return whether a store has a file already, or has refused it for the same reason."""
    there = {(source.name, source.size, source.sha256) for source in store.manifest.sources}
    rows = set(_lines(store.quarantine()).splitlines())

    def seen(file: ScannedFile) -> bool:
        if file.refused:
            return set(_lines(rows_of(file)).splitlines()) <= rows
        return (file.file.name, file.size, file.sha256) in there

    return seen


def _next(store: Store, built: Built) -> Manifest:
    """Return the manifest of the next version."""
    old, intake = store.manifest, built.intake
    version = old.version + 1
    records = [part.record for part in built.parts if part.record]
    lines = _lines(store.quarantine()) + intake.quarantine_lines
    known = old.documents_in if old.documents_in is not None else old.documents + old.quarantined
    return replace(
        old,
        format_version=FORMAT_VERSION,
        version=version,
        sources=grown(old.sources, source_records(intake.files, version), lambda source: (source.name, source.sha256)),
        parts=grown(old.parts, records, lambda part: part.split),
        quarantine=quarantine_record(lines, version),
        quarantined=old.quarantined + len(intake.quarantine),
        documents_in=known + intake.documents_in,
        dropped=dict(sorted(_sum(old.dropped, intake).items())),
    )


def _sum(dropped: dict[str, Any], intake: Intake) -> dict[str, int]:
    """Return counts by cause, those of an intake added."""
    return {cause: dropped.get(cause, 0) + intake.dropped.get(cause, 0) for cause in {**dropped, **intake.dropped}}


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """Return rows of quarantine as JSON lines."""
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()
