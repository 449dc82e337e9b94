"""Where a job works and who works there: what jobs over bytes and over video have in common.

files -> batches -> scan tasks, in threads, processes or on a cluster -> scanned files, sorted
inputs that are refused -> their list in the store's folder -> an error that says where it lies
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bytropix.datasets.store import Storage
from bytropix.datasets.store.manifest import MANIFEST, quarantine_name
from bytropix.errors import TooManyBadError
from bytropix.pipelines.reasons import EMPTY, count_reasons
from bytropix.pipelines.runner import Runner, local_runner
from bytropix.pipelines.sources import SourceFile
from bytropix.pipelines.sources.files import STDIN
from bytropix.pipelines.sources.remote import is_url

SPOOL = "spool"
REFUSED = "refused.jsonl"  # the list of a job that ended early, in a store that has a quarantine.jsonl of its own
BATCH_BYTES, BATCH_FILES = 1 << 23, 64


class Scanned(Protocol):
    """What is known of a file after its scan, whatever it holds."""

    @property
    def file(self) -> SourceFile:
        """The file."""
        ...

    @property
    def sha256(self) -> str:
        """Of the whole file, in hex."""
        ...

    @property
    def refused(self) -> str:
        """Why it is refused; empty if it is not."""
        ...


S = TypeVar("S", bound=Scanned)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """Where the store is to lie, who does the work, and what a user is told meanwhile."""

    storage: Storage
    workers: int
    scheduler: str
    """Address of a Dask scheduler; empty if there is none."""
    dask: bool
    """Whether to start a Dask cluster on this machine."""
    strict: bool
    """Whether to stop at the first bad input."""
    max_bad: float
    """Largest share of the inputs that may be bad."""
    progress: Callable[[str, int, int], None]
    """See `ingest.Progress`."""
    say: Callable[[str], None]
    """Told what a user should know of a cluster."""

    @property
    def place(self) -> str:
        """Where the store lies, as workers find it, whatever their folder."""
        return str(self.storage.local.absolute()) if self.storage.local else self.storage.url

    @property
    def distributed(self) -> bool:
        """Whether Dask does the work."""
        return self.dask or bool(self.scheduler)

    def open_runner(self, *, several: bool, task_module: str) -> AbstractContextManager[Runner]:
        """Return what does the work: this process, more of them, or a Dask cluster.

        Args:
            several: Whether there is work for more than one local process, which takes a second to start.
            task_module: What local processes import as they start.
        """
        if self.distributed:
            from bytropix.pipelines.dask_runner import dask_runner

            return dask_runner(self.scheduler or None, self.workers, self.say)
        return local_runner(self.workers if several else 1, task_module)

    def in_order(self, groups: Iterable[Sequence[S]], total: int, check: Callable[[S], None]) -> list[S]:
        """Return scanned files sorted by name and content, as names may be alike, and report progress.

        Args:
            groups: Files as scan tasks return them.
            total: Bytes of all files when they were found.
            check: Called with each file where `strict`.

        Raises:
            SourceError: One is bad and `strict`.
        """
        found: list[S] = []
        done = 0
        self.progress("scan", 0, total)
        for group in groups:
            for file in group:
                if self.strict:
                    check(file)
                done += file.file.size
            found += group
            self.progress("scan", done, total)
        return sorted(found, key=lambda file: (file.file.name, file.sha256, file.refused))

    def found_by_all(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        """Return files under paths that workers find, whatever their folder."""
        if not self.distributed:
            return files
        return [file if is_elsewhere(file) else replace(file, path=str(Path(file.path).absolute())) for file in files]

    def drop_spool(self) -> None:
        """Remove what was kept for parts that will not be written."""
        self.storage.remove(list(self.storage.sizes(SPOOL)))

    def list_refused(self, error: TooManyBadError, lines: bytes) -> TooManyBadError:
        """Keep the list of what is refused in the store's folder, and return the error with where it lies."""
        name = quarantine_name(1) if self.storage.size(MANIFEST) is None else REFUSED
        self.storage.write(name, lines)
        return TooManyBadError(
            f"{error}; all are listed in {self.storage.url}/{name}: mend them or leave them out, "
            "or allow more, and run again with --resume"
        )


def batches(files: Sequence[SourceFile]) -> Iterator[tuple[tuple[int, SourceFile], ...]]:
    """Give files with their numbers, as scan tasks take them: a large one alone, many small ones together.

    The standard input stands alone, since only the process that the user started can read it.
    """
    held: list[tuple[int, SourceFile]] = []
    for number, file in enumerate(files):
        if file.path == STDIN:
            yield ((number, file),)
            continue
        held.append((number, file))
        if sum(one.size for _, one in held) >= BATCH_BYTES or len(held) == BATCH_FILES:
            yield tuple(held)
            held = []
    if held:
        yield tuple(held)


def is_elsewhere(file: SourceFile) -> bool:
    """Return whether a file cannot be read again at will: it is remote, or what stands at the standard input."""
    return file.path == STDIN or is_url(file.path)


def too_many_bad(bad: int, total: int, what: str, rows: Sequence[dict[str, Any]], max_bad: float) -> TooManyBadError:
    """Return what to say of inputs too many of which are bad; the message lacks where the list is.

    Args:
        bad: How many of them are.
        total: How many there are.
        what: What they are called.
        rows: Of the quarantine.
        max_bad: The share that is allowed.
    """
    (reason, count), *_ = count_reasons(row for row in rows if row["reason"] != EMPTY)
    enough = Context(prec=1, rounding=ROUND_CEILING).divide(bad, total)
    # Where all are bad nothing would be left to store, whatever is allowed.
    remedy = f" (allow more, for instance with --max-bad {enough:f})" if bad < total else ""
    return TooManyBadError(
        f"{bad:,} of {total:,} {what} are bad, more than --max-bad {max_bad:g} allows{remedy}; "
        f"most often ({count:,}): {reason}"
    )
