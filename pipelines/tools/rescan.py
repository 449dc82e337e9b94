"""The sources of a store read again, as ingestion and every append read them.

sources -> scan -> those that the manifest names, version by version -> take in -> plan -> documents of each part
-> files of damaged parts scanned once more, with their spool files in a scratch folder
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bytropix.datasets.store import Manifest, Storage
from bytropix.errors import StoreError
from bytropix.pipelines.append import config_of
from bytropix.pipelines.cleaning import Known
from bytropix.pipelines.documents import FileDocuments
from bytropix.pipelines.ingest import Progress
from bytropix.pipelines.intake import Intake, rows_of, take_in
from bytropix.pipelines.job import Job
from bytropix.pipelines.ledger import Selection
from bytropix.pipelines.plan import SPLITS, plan_parts, sample_files
from bytropix.pipelines.runner import Runner, local_runner
from bytropix.pipelines.scan import ScannedFile
from bytropix.pipelines.sources import find_files


class Rescan:
    """The documents of a store's parts, found in its sources again.

    Args:
        manifest: The newest of the store.
        selections: What each version was made from, or one with all sources.
        runner: Scans.
        scratch: Where documents lie that cannot be read from their sources directly.
        progress: Called with the stage, the bytes done and the bytes in all.

    Raises:
        SourceError: A source is missing.
        StoreError: A source of the manifest is not among them as it was.
    """

    def __init__(
        self, manifest: Manifest, selections: Sequence[Selection], runner: Runner, scratch: Storage, progress: Progress
    ) -> None:
        self._manifest = manifest
        self._config = config_of(manifest)
        self._job = Job(
            storage=scratch,
            config=self._config,
            workers=runner.workers,
            scheduler="",
            dask=False,
            strict=False,
            max_bad=1.0,
            progress=progress,
            say=lambda line: None,
        )
        self._runs = [
            self._job.scan(find_files(one.sources, one.include, one.exclude), runner, keep=False) for one in selections
        ]
        self._intakes = self._take_in()

    def quarantine(self, version: int) -> bytes:
        """Return the list of what the versions up to this one refused."""
        return b"".join(intake.quarantine_lines for number, intake in self._intakes.items() if number <= version)

    def sample(self) -> list[FileDocuments]:
        """Return the documents that the table was fitted on; call `fetch` before they are read."""
        return sample_files(self._intakes[1].documents, self._config)

    def parts(self) -> dict[tuple[str, str], tuple[FileDocuments, ...]]:
        """Return the documents of each part, by split and name; call `fetch` before they are read."""
        found: dict[tuple[str, str], tuple[FileDocuments, ...]] = {}
        taken: Counter[str] = Counter()
        for intake in self._intakes.values():
            if intake.documents:
                plans = plan_parts(intake.documents, self._config, {split: taken[split] for split in SPLITS})
                found |= {(plan.split, plan.name): plan.files(self._config) for plan in plans}
                taken.update(plan.split for plan in plans)
        return found

    def fetch(self, wanted: Sequence[FileDocuments]) -> None:
        """Scan the files of these documents once more, so that what they hold can be read."""
        paths = {documents.path for documents in wanted}
        files = [scanned.file for run in self._runs for scanned in run if scanned.file.path in paths]
        with local_runner(1) as here:  # what is spooled lies on this machine
            again = {file.file.path: file for file in self._job.scan(list(dict.fromkeys(files)), here, keep=True)}
        self._runs = [[again.get(scanned.file.path, scanned) for scanned in run] for run in self._runs]
        self._intakes = self._take_in()

    def _take_in(self) -> dict[int, Intake]:
        """Judge the files of each version as its job did."""
        intakes: dict[int, Intake] = {}
        known: list[Known] = []
        rows: set[str] = set()
        for version in sorted({source.version for source in self._manifest.sources}):
            # A list of one run for several versions cannot tell which of them refused a file; the first is taken.
            runs = self._runs if len(self._runs) == 1 else self._runs[version - 1 : version]
            refused = [file for run in runs for file in run if file.refused and not _lines(file) <= rows]
            rows.update(*map(_lines, refused))
            files = sorted(
                [*self._read(version), *refused], key=lambda file: (file.file.name, file.sha256, file.refused)
            )
            columns = [np.concatenate(words) for words in zip(*known, strict=True)]
            intakes[version] = take_in(files, self._config, (columns[0], columns[1], columns[2]) if columns else None)
            if self._config.clean.drop_duplicates or self._config.clean.near_duplicates:
                stored = [file for file in intakes[version].files if len(file.documents)]
                known += [(file.documents.digests, file.documents.seconds, file.signatures) for file in stored]
        return intakes

    def _read(self, version: int) -> list[ScannedFile]:
        """Return the files that a version read.

        Raises:
            StoreError: One is not there, or not as it was.
        """
        wanted = Counter(
            (source.name, source.size, source.sha256) for source in self._manifest.sources if source.version == version
        )
        found = []
        for scanned in {id(file): file for run in self._runs for file in run}.values():
            key = (scanned.file.name, scanned.size, scanned.sha256)
            if not scanned.refused and wanted[key]:
                wanted[key] -= 1
                found.append(scanned)
        for name, size, _ in +wanted:
            raise StoreError(
                f"{name}: this source of {size:,} bytes is not there as it was; without it no part can be made again: "
                "restore it, or name where it lies with --sources"
            )
        return found


def _lines(file: ScannedFile) -> set[str]:
    """Return the rows of quarantine of a file, in a form that can be compared."""
    return {repr(sorted(row.items())) for row in rows_of(file)}
