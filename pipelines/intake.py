"""What came in, and what becomes of it: stored, dropped or quarantined.

scanned files -> without duplicates -> Intake: files to store, rows of quarantine.jsonl, counts
                                    -> nothing left? more bad than was allowed? -> an error, before a part is written
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bytropix.errors import SourceError, StoreError
from bytropix.pipelines.cleaning import Known, drop_duplicates
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import FileDocuments
from bytropix.pipelines.reasons import EMPTY
from bytropix.pipelines.scan import ScannedFile
from bytropix.pipelines.workplace import too_many_bad


@dataclass(frozen=True, slots=True, eq=False)
class Intake:
    """The inputs of a job, judged. Documents in = stored + dropped + quarantined; a refused file counts as one."""

    files: tuple[ScannedFile, ...]
    """What is read, without the documents that are dropped, in order."""
    quarantine: tuple[dict[str, Any], ...]
    """One row for each file and each record that is refused: path, record, reason, bytes_read."""
    dropped: dict[str, int]
    """How many documents are left out, by cause."""
    documents_in: int
    """How many documents there were."""

    @property
    def documents(self) -> list[FileDocuments]:
        """The documents to store, file by file."""
        return [file.documents for file in self.files if len(file.documents)]

    @property
    def quarantine_lines(self) -> bytes:
        """The rows as JSON lines."""
        return "".join(json.dumps(row, sort_keys=True) + "\n" for row in self.quarantine).encode()


def take_in(
    scanned: Sequence[ScannedFile],
    config: IngestConfig,
    known: Known | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Intake:
    """Judge files that were scanned.

    Args:
        scanned: All of them, in order.
        config: What is to be dropped.
        known: Documents that the store has already.
        progress: Called with the documents that were compared, and with all of them.
    """
    kept = drop_duplicates([file for file in scanned if not file.refused], config.clean, known, progress)
    dropped: Counter[str] = Counter()
    for file in kept:
        dropped.update(file.dropped)
    return Intake(
        files=tuple(kept),
        quarantine=tuple(row for file in scanned for row in rows_of(file)),
        dropped=dict(sorted(dropped.items())),
        documents_in=sum(
            1 if file.refused else len(file.documents) + len(file.bad) + sum(file.dropped.values()) for file in scanned
        ),
    )


def rows_of(file: ScannedFile) -> list[dict[str, Any]]:
    """Return the rows of quarantine of a file."""
    if file.refused:
        return [{"bytes_read": file.size, "path": file.file.name, "reason": file.refused}]
    return [
        {"bytes_read": read, "path": file.file.name, "reason": reason, "record": record}
        for record, reason, read in file.bad
    ]


def check_strict(file: ScannedFile) -> None:
    """Refuse a file of which anything would be quarantined.

    Raises:
        SourceError: It is so.
    """
    for row in rows_of(file):
        record = f", {row['record']}" if "record" in row else ""
        raise SourceError(
            f"{file.file.path}{record}: {row['reason']}; mend it or leave it out, or list such things without --strict"
        )


def check_something_left(intake: Intake) -> None:
    """Refuse inputs of which nothing is left.

    Raises:
        SourceError: It is so; the first reason is named.
    """
    if intake.documents:
        return
    if intake.quarantine:
        first = intake.quarantine[0]
        more = f" ({len(intake.quarantine):,} inputs were refused)" if len(intake.quarantine) > 1 else ""
        what = f"{first['path']}: {first['reason']}{more}"
    else:
        what = f"all documents were dropped: {', '.join(f'{cause} {n:,}' for cause, n in intake.dropped.items())}"
    raise SourceError(f"{what}; no document is left: give readable files that hold something")


def check_not_too_bad(scanned: Sequence[ScannedFile], intake: Intake, max_bad: float) -> None:
    """Refuse inputs too many of which are bad. Empty files, records and such are listed but are not bad.

    Raises:
        TooManyBadError: It is so; the message lacks where the list is.
    """
    files = sum(file.refused not in ("", EMPTY) for file in scanned)
    documents = sum(row["reason"] != EMPTY for row in intake.quarantine)
    file_share, document_share = files / max(len(scanned), 1), documents / max(intake.documents_in, 1)
    if max(file_share, document_share) <= max_bad:
        return
    bad, total, what = (
        (files, len(scanned), "files")
        if file_share >= document_share
        else (documents, intake.documents_in, "documents")
    )
    raise too_many_bad(bad, total, what, intake.quarantine, max_bad)


def check_sum(intake: Intake, stored: int) -> None:
    """Refuse to publish a store whose counts do not add up.

    Raises:
        StoreError: A document was lost, or counted twice: a fault of this program.
    """
    out = stored + sum(intake.dropped.values()) + len(intake.quarantine)
    if intake.documents_in != out:
        raise StoreError(
            f"{intake.documents_in:,} documents came in, but those stored ({stored:,}), dropped and quarantined are "
            f"{out:,}; please report this"
        )
