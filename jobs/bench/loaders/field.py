"""All loaders that are installed, run in turns.

names -> a process for each file of loaders -> formats written -> every run once a turn -> what each found, by turn
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from bytropix.errors import RunError
from bytropix.jobs.bench.loaders import LOADERS, loader_called
from bytropix.jobs.bench.loaders.process import Job, LoaderProcess
from bytropix.jobs.bench.loaders.rows import ROWS_FILE, Plan

ENOUGH_BYTES = 64e6  # of rows: with fewer, epochs are timed for less than a second
OWN_FILES = ("ours", "memmap")  # without these there is nothing to compare


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One way to run one loader.

    Attributes:
        loader: Its name.
        plan: How it is run.
        cold: Whether the page cache is emptied of its files before every run.
        first_epoch: Whether its first epoch is timed, in which everything is touched for the first time.
    """

    loader: str
    plan: Plan = field(default_factory=Plan)
    cold: bool = False
    first_epoch: bool = False


class Field:
    """The loaders that take part; use it in a `with`.

    A peer that fails takes no part any longer and is named in `absent`; a failure of ours is raised.

    Args:
        folder: Where the file of rows is and all formats go.
        names: Of loaders.

    Attributes:
        absent: Name and reason of every loader that takes no part.
    """

    def __init__(self, folder: Path, names: Iterable[str] = tuple(LOADERS)) -> None:
        self._folder = folder
        self._names = list(names)
        self._stack = ExitStack()
        self._processes: dict[str, LoaderProcess] = {}  # by file
        self._seconds = min(1.0, (folder / ROWS_FILE).stat().st_size / ENOUGH_BYTES)
        self.absent: dict[str, str] = {}

    def __enter__(self) -> "Field":
        with ExitStack() as stack:
            for name in self._names:
                if LOADERS[name] in self._processes:
                    continue
                try:
                    process = stack.enter_context(LoaderProcess(name, self._folder / f"{LOADERS[name]}.log"))
                except (ModuleNotFoundError, RunError) as error:
                    if LOADERS[name] in OWN_FILES:
                        raise
                    self.absent[name] = str(error)
                    if isinstance(error, ModuleNotFoundError):
                        self.absent[name] = f"not installed ({error}); pip install {loader_called(name).package}"
                    continue
                self._processes[LOADERS[name]] = process
            written: set[str] = set()
            for name in self.names:
                stored = loader_called(name).stored
                if stored not in written:
                    self._do(Job(loader=name, kind="write", folder=str(self._folder)))
                    written.add(stored)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def names(self) -> list[str]:
        """Loaders that take part."""
        return [name for name in self._names if name not in self.absent]

    def in_turns(self, runs: Sequence[Run], turns: int) -> dict[Run, list[dict[str, Any]]]:
        """Measure every run once a turn; runs of loaders that take no part are left out."""
        self._warm()
        found: dict[Run, list[dict[str, Any]]] = {run: [] for run in runs}
        for _ in range(turns):
            for run in runs:
                if run.cold:
                    self._empty_page_cache(run.loader)
                figures = self._do(
                    Job(
                        loader=run.loader,
                        kind="measure",
                        folder=str(self._folder),
                        plan=run.plan,
                        first_epoch=run.first_epoch,
                        seconds=self._seconds,
                    )
                )
                if figures is not None:
                    found[run].append(figures)
        return {run: figures for run, figures in found.items() if run.loader in self.names}

    def watch(self, run: Run) -> dict[str, Any]:
        """Return whether an epoch is complete, and its memory; nothing where the loader fails."""
        return self._do(Job(loader=run.loader, kind="watch", folder=str(self._folder), plan=run.plan)) or {}

    def first_batches(self, runs: Sequence[Run], turns: int) -> dict[Run, list[float]]:
        """Return milliseconds from a closed data set to the first batch, by turn."""
        found: dict[Run, list[float]] = {run: [] for run in runs}
        for _ in range(turns):
            for run in runs:
                job = Job(loader=run.loader, kind="first_batch", folder=str(self._folder), plan=run.plan)
                figures = self._do(job)
                if figures is not None:
                    found[run].append(figures["first_batch_ms"])
        return found

    def _do(self, job: Job) -> dict[str, Any] | None:
        """Do a job; None where the loader takes no part, or no longer."""
        if job.loader not in self.names:
            return None
        try:
            return self._processes[LOADERS[job.loader]].do(job)
        except RunError as error:
            if LOADERS[job.loader] in OWN_FILES:
                raise
            self.absent[job.loader] = str(error)
            return None

    def _files(self, name: str) -> list[Path]:
        stored = self._folder / loader_called(name).stored
        return [stored] if stored.is_file() else [path for path in stored.rglob("*") if path.is_file()]

    def _warm(self) -> None:
        """Read every file once, so that all lie in the page cache."""
        for path in {path for name in self.names for path in self._files(name)}:
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    def _empty_page_cache(self, name: str) -> None:
        """Ask the system to forget a loader's files, written to storage first; nobody has them open."""
        for path in self._files(name):
            with path.open("rb") as file, suppress(OSError):
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
