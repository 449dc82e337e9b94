"""What ingestion and appending share: from files that were found to parts that are written.

files -> scan, in the runner -> take in: duplicates, quarantine -> prepare: the patcher -> parts, in the runner
                                     ^                                  |
                                     +---- without a source that has changed under way

"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from bytropix.datasets.store import FileRecord
from bytropix.errors import ChangedSourceError, SourceError, TooManyBadError
from bytropix.pipelines.cleaning import Known
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.intake import Intake, check_not_too_bad, check_something_left, check_strict, check_sum, take_in
from bytropix.pipelines.part_task import PartDone, PartTask, do_part
from bytropix.pipelines.plan import plan_parts
from bytropix.pipelines.runner import Runner
from bytropix.pipelines.scan import ScannedFile, ScanTask, do_scan, refused, scan_tasks
from bytropix.pipelines.sources import SourceFile
from bytropix.pipelines.workplace import Workplace, is_elsewhere

FEW_BYTES = 1 << 28  # of plain files, below which a scan is over before processes have started


@dataclass(frozen=True, kw_only=True, slots=True)
class Patching:
    """The patcher that parts are cut with."""

    settings: dict[str, Any]
    """Its settings, for the manifest."""
    files: tuple[FileRecord, ...]
    """Its table in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """Parts that are written but not published."""

    intake: Intake
    patching: Patching
    parts: tuple[PartDone, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(Workplace):
    """One run over some sources."""

    config: IngestConfig
    version: int = 1
    """The version of the store that this run makes."""

    def build(
        self,
        files: Sequence[SourceFile],
        prepare: Callable[[Intake], Patching],
        *,
        quarantine: str,
        before: bytes = b"",
        known: Callable[[Runner], Known | None] = lambda runner: None,
        seen: Callable[[ScannedFile], bool] = lambda file: False,
        taken: dict[str, int] | None = None,
    ) -> Built | None:
        """Scan files and write their parts; return `None` if the store has all of them.

        Args:
            files: What was found.
            prepare: Makes way for the parts and returns the patcher, once the inputs are known to be good.
            quarantine: Name of the list of what is refused.
            before: What stands in it already.
            known: Returns the documents that the store has already, where duplicates are to be dropped.
            seen: Whether the store has a file already, which is then left out.
            taken: How many parts of each split it has.

        Raises:
            SourceError: Nothing is left, or something is bad and `strict`.
            TooManyBadError: More is bad than `max_bad` allows; the list is in the store's folder.
            StoreError: The disk is full, or a worker died.
        """
        try:
            with self.runner(files) as runner:
                scanned = [file for file in self.scan(files, runner, keep=True) if not seen(file)]
                if not scanned:
                    self.drop_spool()
                    return None
                stored = known(runner)
                while True:
                    intake = self._take_in(scanned, stored)
                    try:
                        patching = prepare(intake)
                        self.storage.write(quarantine, before + intake.quarantine_lines)
                        parts = self._write_parts(intake, patching, runner, taken)
                    except ChangedSourceError as error:
                        scanned = self._without(scanned, error)
                    else:
                        break
        except SourceError:
            self.drop_spool()
            raise
        check_sum(intake, sum(part.record.documents for part in parts if part.record))
        return Built(intake=intake, patching=patching, parts=tuple(parts))

    def scan(self, files: Sequence[SourceFile], runner: Runner, *, keep: bool) -> list[ScannedFile]:
        """Scan files and sort them by name and content, as names may be alike.

        Raises:
            SourceError: One is bad and `strict`.
        """
        tasks = list(scan_tasks(self.found_by_all(files), self.place, self.config, keep=keep, strict=self.strict))
        return self.in_order(self._scanned(tasks, runner), sum(file.size for file in files), check_strict)

    def runner(self, files: Sequence[SourceFile]) -> AbstractContextManager[Runner]:
        """Return what does the work: this process, more of them, or a Dask cluster."""
        # A single part is not worth more processes. What is not plain may be many parts.
        n_bytes = sum(file.size for file in files)
        several = n_bytes > self.config.part_bytes or any(is_elsewhere(file) for file in files)
        return self.open_runner(several=several, task_module="bytropix.pipelines.part_task")

    def _scanned(self, tasks: list[ScanTask], runner: Runner) -> Iterator[list[ScannedFile]]:
        """Give the results of scans: in threads, since hashing lets others run, or in the runner if there is much."""
        yield from map(do_scan, (task for task in tasks if task.is_stdin))
        others = [task for task in tasks if not task.is_stdin]
        if self.distributed or sum(file.size for task in others for _, file in task.files) > FEW_BYTES:
            yield from runner.map(do_scan, others)
        else:
            with ThreadPoolExecutor(self.workers) as threads:
                yield from threads.map(do_scan, others)

    def _take_in(self, scanned: list[ScannedFile], known: Known | None) -> Intake:
        """Judge what was scanned.

        Raises:
            SourceError: Nothing is left.
            TooManyBadError: More is bad than is allowed; the list is in the store's folder.
        """
        intake = take_in(scanned, self.config, known, lambda done, total: self.progress("clean", done, total))
        check_something_left(intake)
        try:
            check_not_too_bad(scanned, intake, self.max_bad)
        except TooManyBadError as error:
            raise self.list_refused(error, intake.quarantine_lines) from error
        return intake

    def _write_parts(
        self, intake: Intake, patching: Patching, runner: Runner, taken: dict[str, int] | None
    ) -> list[PartDone]:
        """Write the parts, or keep those that an earlier run wrote.

        Raises:
            ChangedSourceError: A source has changed; no part is being written any more.
        """
        plans = plan_parts(intake.documents, self.config, taken)
        total, written = sum(plan.n_bytes for plan in plans), 0
        patcher = json.dumps(
            {"settings": patching.settings, "table": [file.sha256 for file in patching.files]}, sort_keys=True
        )
        changed: list[tuple[str, str]] = []

        def tasks() -> Iterator[PartTask]:  # one by one, since each lists its documents
            for plan in plans:
                if changed:
                    return
                yield PartTask(
                    url=self.place,
                    split=plan.split,
                    name=plan.name,
                    files=plan.files(self.config),
                    layout=self.config.layout,
                    patcher=patcher,
                    version=self.version,
                )

        self.progress("parts", 0, total)
        done = []
        for part in runner.map(do_part, tasks()):
            if part.record is None:
                changed.append(part.changed)
                continue
            done.append(part)
            written += part.record.n_bytes
            self.progress("parts", written, total)
        if changed:
            raise ChangedSourceError(*changed[0])
        return done

    def _without(self, scanned: list[ScannedFile], error: ChangedSourceError) -> list[ScannedFile]:
        """Return files without the one that has changed.

        Raises:
            ChangedSourceError: `strict`.
        """
        if self.strict:
            raise error
        return [
            refused(file.file, error.what, file.size) if file.documents.path == error.place else file
            for file in scanned
        ]
