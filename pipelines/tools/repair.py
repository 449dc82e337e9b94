"""Damaged files of a store, made again and put back if they are the very bytes that were recorded.

    any file -> from a copy of the store, where one is named; of video, from a store made of the sources again
    table -> fitted on the store's own documents, or on those of the sources
    damaged parts -> from what is left of them -> or from the sources, as ingestion made them
    lists -> a later version's list begins with an earlier one's -> or from the sources

Nothing is put in place that has not the recorded hash, so a source that has changed harms nothing.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bytropix.datasets.store import FileRecord, Store, load_patcher, open_storage, write_patcher
from bytropix.datasets.store.babylon import BABYLON
from bytropix.datasets.store.formats import encode
from bytropix.datasets.store.manifest import MANIFEST
from bytropix.datasets.store.rows import LISTS
from bytropix.datasets.store.store import find_manifest
from bytropix.errors import StoreError
from bytropix.patching import Patcher, fit_patcher
from bytropix.pipelines.append import config_of
from bytropix.pipelines.documents import read_documents
from bytropix.pipelines.ingest import Progress
from bytropix.pipelines.ledger import Selection, sources_of
from bytropix.pipelines.part_task import make_part
from bytropix.pipelines.runner import Runner
from bytropix.pipelines.tools.from_copy import mend_from_copies
from bytropix.pipelines.tools.part_check import patcher_key
from bytropix.pipelines.tools.rescan import Rescan
from bytropix.pipelines.tools.salvage import SalvageTask, do_salvage, write_damaged
from bytropix.pipelines.tools.sample import stored_sample
from bytropix.pipelines.tools.verify import Verified


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """What was mended, as files or parts below the store."""

    from_store: tuple[str, ...]
    """From what was left."""
    from_sources: tuple[str, ...]
    """From the sources."""
    from_copy: tuple[str, ...] = ()
    """From a copy."""


def repair(
    verified: Verified,
    runner: Runner,
    *,
    sources: Sequence[str] = (),
    copies: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Repaired:
    """Mend what a check of a store found damaged.

    Args:
        verified: What the check found.
        runner: Does the work.
        sources: The files that the store was made of; what this machine remembers of them if there are none.
        copies: Other places where the store lies.
        progress: See `Progress`.

    Raises:
        SourceError: A source is missing.
        StoreError: The manifest is damaged, a source is not as it was, or the disk is full.
    """
    bad = {fault.file for fault in verified.faults if fault.file}
    storage = open_storage(verified.url)
    from_copy = mend_from_copies(storage, verified.manifests, bad, [open_storage(copy) for copy in copies])
    for name in sorted(bad):
        if name == MANIFEST or name.startswith(("versions/", f"{LISTS}/")):
            raise StoreError(
                f"{verified.url}/{name}: damaged, and nothing else tells what it said; restore it from a copy, use "
                "another version that is kept (--version), or ingest again with --overwrite"
            )
    mend = _Mend(verified, runner, bad, sources, progress)
    if mend.manifest.kind == "video":
        return Repaired(from_store=(), from_sources=_video_again(mend) if bad else (), from_copy=tuple(from_copy))
    with tempfile.TemporaryDirectory(prefix="bytropix-") as scratch:
        mend.scratch = open_storage(scratch)
        mend.table()
        mend.parts()
        mend.lists()
    return Repaired(
        from_store=tuple(mend.from_store), from_sources=tuple(mend.from_sources), from_copy=tuple(from_copy)
    )


def _video_again(mend: "_Mend") -> tuple[str, ...]:
    """Mend a store of video from one that is made of its sources again, in a scratch folder.

    Raises:
        StoreError: The sources are not known, or do not give what was recorded.
    """
    from bytropix.pipelines.video.again import ingest_again  # with its decoders, which a store of bytes does not need

    with tempfile.TemporaryDirectory(prefix="bytropix-") as scratch:
        ingest_again(mend.manifest, mend.selections(), Path(scratch) / "again.bx", mend.progress)
        copies = [open_storage(Path(scratch) / "again.bx")]
        mended = mend_from_copies(mend.storage, mend.verified.manifests, mend.bad, copies)
    for name in sorted(mend.bad):
        raise StoreError(
            f"{mend.store.url}/{name}: its sources do not give the file that was recorded; they have changed, or other "
            "versions of bytropix and its decoders wrote it: restore it from a copy (--copies)"
        )
    return tuple(mended)


class _Mend:
    """One repair under way."""

    def __init__(
        self, verified: Verified, runner: Runner, bad: set[str], sources: Sequence[str], progress: Progress
    ) -> None:
        self.storage = self.scratch = open_storage(verified.url)
        self.manifest, fingerprint = find_manifest(self.storage)
        self.store = Store(self.storage, self.manifest, fingerprint)
        self.verified, self.runner, self.bad, self.progress = verified, runner, bad, progress
        self.from_store: list[str] = []
        self.from_sources: list[str] = []
        self._named = sources
        self._rescan: Rescan | None = None

    def table(self) -> None:
        """Fit the table again if it is damaged."""
        if not any(name.startswith(f"{BABYLON}/") for name in self.bad):
            return
        config = config_of(self.manifest).patch
        try:
            fitted = fit_patcher(stored_sample(self.store, self.runner), config)
            mended = self.from_store
        except StoreError:  # parts are damaged too
            rescan = self.rescan()
            rescan.fetch(rescan.sample())
            documents = [
                document
                for file in rescan.sample()
                for document in np.split(
                    read_documents((file,), self.scratch), np.cumsum(file.lengths[:-1], dtype=np.int64)
                )
            ]
            fitted = fit_patcher(documents, config)
            mended = self.from_sources
        self._put_table(fitted)
        mended.append(BABYLON)

    def parts(self) -> None:
        """Make damaged parts again."""
        damaged: dict[tuple[str, str], tuple[str, ...]] = {}
        records = {(record.split, record.name): record for record in self.manifest.parts}
        for key, record in records.items():
            names = tuple(file.path for file in record.files if f"{record.folder}/{file.path}" in self.bad)
            if names:
                damaged[key] = names
        layout = config_of(self.manifest).layout
        tasks = [
            SalvageTask(
                url=self.store.url,
                record=records[key],
                layout=layout,
                patcher=patcher_key(self.manifest),
                bad=names,
            )
            for key, names in damaged.items()
        ]
        for task, done in zip(tasks, self.runner.map(do_salvage, tasks), strict=True):
            if done:
                self.from_store.append(str(task))
                del damaged[task.record.split, task.record.name]
        if not damaged:
            return
        rescan = self.rescan()
        planned = rescan.parts()
        rescan.fetch([file for key in damaged for file in planned.get(key, ())])
        planned = rescan.parts()
        patcher = load_patcher(self.storage, self.manifest.patcher)
        for key, names in damaged.items():
            record = records[key]
            arrays = make_part(planned[key], patcher, self.scratch).arrays if key in planned else None
            files = encode(arrays, layout, record.name) if arrays else []
            if not write_damaged(self.storage, record, files, names):
                raise StoreError(
                    f"{self.store.url}/parts/{'/'.join(key)}: its sources do not give the part that was recorded; they "
                    "have changed, or another version of bytropix wrote it: restore the part from a copy"
                )
            self.from_sources.append("/".join(key))

    def lists(self) -> None:
        """Write damaged lists of what was refused again."""
        versions = sorted(self.verified.manifests, key=lambda manifest: -manifest.version)
        lost = [manifest.quarantine for manifest in versions if manifest.quarantine.path in self.bad]
        whole = [manifest.quarantine for manifest in versions if manifest.quarantine.path not in self.bad]
        for record in lost:
            longer = next((self.storage.read(one.path) for one in whole if one.size >= record.size), None)
            if longer is not None and self._put_list(record, longer[: record.size].tobytes()):
                self.from_store.append(record.path)
                continue
            version = next(manifest.version for manifest in versions if manifest.quarantine == record)
            if not self._put_list(record, self.rescan().quarantine(version)):
                raise StoreError(
                    f"{self.store.url}/{record.path}: the sources do not give the list that was recorded; restore it "
                    "from a copy"
                )
            self.from_sources.append(record.path)

    def rescan(self) -> Rescan:
        """Return the sources, scanned when they are first needed."""
        if self._rescan is None:
            self._rescan = Rescan(self.manifest, self.selections(), self.runner, self.scratch, self.progress)
        return self._rescan

    def selections(self) -> tuple[Selection, ...]:
        """Return what the store was made of: as it is named, or as this machine remembers it."""
        return (Selection(sources=tuple(self._named)),) if self._named else self._remembered()

    def _remembered(self) -> tuple[Selection, ...]:
        try:
            return sources_of(self.store.url)
        except StoreError as error:
            raise StoreError(f"{error} with --sources") from error

    def _put_table(self, patcher: Patcher) -> None:
        _, files = write_patcher(self.scratch, patcher)
        if files != self.manifest.babylon:
            raise StoreError(
                f"{self.store.url}/{BABYLON}: its documents do not give the table that was recorded; restore it from a "
                "copy"
            )
        for file in files:
            name = f"{BABYLON}/{file.path}"
            if name in self.bad:
                self.storage.write(name, self.scratch.read(name).tobytes())

    def _put_list(self, record: FileRecord, data: bytes) -> bool:
        if FileRecord.hash_of(data) != record.sha256:
            return False
        self.storage.write(record.path, data)
        return True
