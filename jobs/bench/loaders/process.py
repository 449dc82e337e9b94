"""A loader measured in a process of its own.

    LoaderProcess -- job, a line of JSON --> process that imported torch and the library of one file of loaders
                                                  -> fork, a fresh one for every job: open, first batch, epochs
                  <-- what it found, a line --

Imports are paid once and never measured; whatever opens a file, starts a thread or compiles is in the fork, and gone
with it. Where processes cannot be forked they are started anew, and import again before the clock starts.
"""

import json
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import traceback
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Literal

from bytropix.errors import RunError
from bytropix.jobs.bench.loaders import loader_called
from bytropix.jobs.bench.loaders.measure import first_batch, held_bytes, measure, watch
from bytropix.jobs.bench.loaders.rows import ROWS_FILE, Plan

PATIENCE_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a process is asked to do.

    Attributes:
        loader: The name of a loader of the process's file.
        kind: Make the loader's format, or one of the functions of `bytropix.jobs.bench.loaders.measure`.
        folder: Where the file of rows and the formats are.
        plan: How to run the loader.
        first_epoch: See `measure`.
        seconds: See `measure`.
    """

    loader: str
    kind: Literal["write", "first_batch", "measure", "watch"]
    folder: str
    plan: Plan = field(default_factory=Plan)
    first_epoch: bool = False
    seconds: float = 1.0


class LoaderProcess:
    """The process of one file of loaders; close it, or use it in a `with`.

    Args:
        name: Of any loader of the file.
        log: A file for what it says on stderr.

    Raises:
        ModuleNotFoundError: The library is not installed.
        RunError: Its import fails, or the process does not start.
    """

    def __init__(self, name: str, log: Path) -> None:
        self._log = log
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bytropix.jobs.bench.loaders.process", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                bufsize=1,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with ExitStack() as stack:
            stack.push(self)
            answer = self._answer(name)
            if "missing" in answer:
                raise ModuleNotFoundError(answer["missing"])
            stack.pop_all()

    def do(self, job: Job) -> dict[str, Any]:
        """Do a job and return what it found.

        Raises:
            RunError: It failed, ended or gave no answer for a quarter of an hour.
        """
        print(json.dumps(asdict(job)), file=self._pipe(self._process.stdin), flush=True)
        return self._answer(job.loader)

    def close(self) -> None:
        """End the process."""
        self._pipe(self._process.stdin).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)

    def __enter__(self) -> "LoaderProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, name: str) -> dict[str, Any]:
        try:
            line, how = self._lines.get(timeout=PATIENCE_SECONDS), "ended"
        except queue.Empty:
            line, how = "", f"gave no answer for {PATIENCE_SECONDS:.0f} s"
        if not line:
            self._process.kill()
            self._process.wait()
            raise RunError(f"loader {name}: its process {how}; {self._log} may say why")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise RunError(f"loader {name}: {found['error']}; {self._log} may say more")
        return found

    def _read(self) -> None:
        """Queue the lines of the process, an empty one at the end; in a thread, as not all systems can poll a pipe."""
        with self._pipe(self._process.stdout) as out:
            for line in out:
                self._lines.put(line)
        self._lines.put("")

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def _serve(name: str) -> None:
    """Answer jobs until stdin ends."""
    # Libraries print: our answers get the pipe, and whatever else goes to stdout joins stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _import_torch()
    base = held_bytes() or 0
    try:
        loader_called(name).load()
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}), file=answers)
        return
    except Exception as error:  # what the import of a library raises that does not fit this machine
        print(json.dumps(_failure(error)), file=answers)
        return
    print(json.dumps({}), file=answers)
    multiprocessing.set_start_method("fork" if hasattr(os, "fork") else "spawn", force=True)
    for line in sys.stdin:
        here, there = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=_run, args=(line, base, there))
        process.start()
        there.close()
        try:
            answer = here.recv()
        except EOFError:
            process.join()
            answer = {"error": f"it ended with code {process.exitcode}"}
        print(json.dumps(answer), file=answers)
        process.join()


def _run(line: str, base: int, answers: "Connection[Any, Any]") -> None:
    """Do one job and send what it found; `base` is what a process that has imported torch alone holds."""
    try:
        told = json.loads(line)
        job = Job(**(told | {"plan": Plan(**told["plan"])}))
        if not hasattr(os, "fork"):  # started anew, nothing is imported yet
            _import_torch()
            loader_called(job.loader).load()
        answers.send(_done(job, base))
    except Exception as error:  # of any library
        answers.send(_failure(error))


def _import_torch() -> None:
    import torch.utils.data

    torch.set_num_threads(1)


def _failure(error: Exception) -> dict[str, str]:
    """Return the answer to what went wrong, one line of it; the rest goes to the log."""
    traceback.print_exception(error)
    return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def _done(job: Job, base: int) -> dict[str, Any]:
    folder, loader = Path(job.folder), loader_called(job.loader)
    match job.kind:
        case "write":
            loader.write(folder / ROWS_FILE, folder)
            return {}
        case "first_batch":
            return first_batch(loader, folder, job.plan)
        case "measure":
            return measure(loader, folder, job.plan, first_epoch=job.first_epoch, seconds=job.seconds)
        case "watch":
            return watch(loader, folder, job.plan, base)


if __name__ == "__main__":
    _serve(sys.argv[1])
