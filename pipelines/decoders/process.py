"""The side that asks: one decoding process, kept for many files, killed and started anew when it must be.

    DecoderProcess.frames(path, wanted) -> request -> child -> Frames, Frames, ... -> report | VideoFault

A hang, a crash or a hunger for memory costs one file. It is a plain subprocess, since Dask workers may have no children
of `multiprocessing`.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from bytropix.errors import RunError
from bytropix.pipelines.decoders.contract import DecodeReport, Frames, VideoFault, VideoInfo, Wanted, report_from
from bytropix.pipelines.decoders.wire import HEAD, MOST_FRAMES

WORDS_MOST = 2**20


# Reading the modules from a slow disk may take long; a decoder that starts at all has started by then.
START_SECONDS = 120.0
# poll() takes so many seconds at once: 2**31 milliseconds are its most.
LONGEST_WAIT = 86_400.0


class _LateError(Exception):
    """No answer in time."""


class _GoneError(Exception):
    """The process has ended."""


class DecoderProcess:
    """A decoding process, started when it is first asked; a context manager that ends it.

    Not for several threads at once: each has its own.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self.report: DecodeReport | None = None
        """How the last file went, once its frames are read or a fault is raised."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Number of the process, if there is one."""
        return self._process.pid if self._process else None

    def frames(self, path: str | os.PathLike[str], wanted: Wanted) -> Generator[Frames, None, None]:
        """Give the frames of a file, a few at a time.

        Raises:
            VideoFault: It cannot be read, or was damaged or cut off (after the frames that could be read), or took too
                long, or brought the decoder down.
            RunError: The decoding process cannot be started.
        """
        size = (wanted.height, wanted.width)
        clock = _Patience(wanted.stall_seconds, wanted.file_seconds)
        count = 0
        done = False
        self.report = None
        try:
            self._ask("frames", path, wanted, clock)
            while True:
                words, batch = self._receive(clock, size)
                if batch is not None:
                    count += len(batch.times)
                    yield batch
                elif "alive" not in words:
                    done = True
                    break
        except (_LateError, _GoneError) as error:
            raise self._broken(os.fspath(path), error, wanted, count) from None
        finally:
            if not done:  # it is dead, or in the middle of a file that nobody wants any more
                self.kill()
        self._finish(os.fspath(path), words, count)

    def probe(self, path: str | os.PathLike[str], wanted: Wanted | None = None) -> VideoInfo:
        """Return what a file's header and first frame say.

        Raises:
            VideoFault: It is no video that can be read.
            RunError: The decoding process cannot be started.
        """
        wanted = wanted or Wanted(height=1, width=1)
        clock = _Patience(wanted.stall_seconds, wanted.file_seconds)
        self.report = None
        try:
            self._ask("probe", path, wanted, clock)
            words: dict[str, Any] = {"alive": True}
            while "alive" in words:
                words, _ = self._receive(clock, (1, 1))
        except (_LateError, _GoneError) as error:
            fault = self._broken(os.fspath(path), error, wanted, 0)
            self.kill()
            raise fault from None
        self._finish(os.fspath(path), words, 0)
        return VideoInfo(**words["info"])

    def close(self) -> None:
        """End the process."""
        self.kill()
        if self._said is not None:
            self._said.close()
            self._said = None

    def kill(self) -> None:
        """End the process at once; the next request starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        # The whole group: a decoder may have started a program of its own. It is gone already if it ended by itself.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # of a request that it did not live to take
                    pipe.close()

    def _ask(self, what: str, path: str | os.PathLike[str], wanted: Wanted, clock: "_Patience") -> None:
        """Send a request, to a new process where there is none or it has ended since the file before."""
        line = json.dumps({"do": what, "path": str(Path(path).absolute()), "wanted": asdict(wanted)}).encode() + b"\n"
        if self._process is not None:
            with suppress(_GoneError):
                self._hand_over(line, clock)
                return
            self.kill()  # it cannot have been this file: the request was not even read
        self._start()
        self._hand_over(line, clock)

    def _hand_over(self, line: bytes, clock: "_Patience") -> None:
        """Write a request and wait until the process says that it has read it."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise _GoneError from None
        self._receive(clock, (1, 1))

    def _start(self) -> None:
        """Start the process, with this one's search path, and wait until it answers."""
        if self._said is None:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        self._said.seek(0)
        self._said.truncate()
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(place).absolute()) for place in sys.path)
        # A thread pool for linear algebra would be started for nothing, and reserve address space.
        environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bytropix.pipelines.decoders.child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            start_new_session=True,
        )
        try:
            self._receive(_Patience(START_SECONDS, START_SECONDS), (1, 1))
        except (_LateError, _GoneError):
            self.kill()
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").split("\n")
            said = next((line for line in reversed(lines) if line.strip()), "it says nothing")
            raise RunError(f"the decoding process does not start: {said.strip()}") from None

    def _receive(self, clock: "_Patience", size: tuple[int, int]) -> tuple[dict[str, Any], Frames | None]:
        """Return the next message: words, or frames of a size."""
        head = bytearray(HEAD.size)
        self._read(memoryview(head), clock)
        n_words, n_frames = HEAD.unpack(head)
        if n_words > WORDS_MOST or n_frames > MOST_FRAMES:
            raise _GoneError
        words = bytearray(n_words)
        self._read(memoryview(words), clock)
        if not n_frames:
            return json.loads(bytes(words)), None
        times = np.empty(n_frames, np.float64)
        images = np.empty((n_frames, *size, 3), np.uint8)
        self._read(times.data.cast("B"), clock)
        self._read(images.data.cast("B"), clock)
        return {}, Frames(images, times)

    def _read(self, into: memoryview, clock: "_Patience") -> None:
        """Fill a buffer from the process."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while into:
            clock.wait(pipe)
            got = os.readv(pipe, [into])
            if not got:
                raise _GoneError
            into = into[got:]

    def _broken(self, path: str, error: Exception, wanted: Wanted, count: int) -> VideoFault:
        """Return the fault of a file whose decoding did not end by itself."""
        name = "pyav" if wanted.decoder == "auto" else wanted.decoder
        self.report = DecodeReport(decoder=name)
        reason = str(error) if isinstance(error, _LateError) else self._death()
        return VideoFault(path, reason, frames_before=count, retry=True)

    def _death(self) -> str:
        """Return how the process has ended."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        if code < 0:
            return f"the decoder crashed (signal {-code})"
        return f"the decoder ended (exit code {code})"

    def _finish(self, path: str, words: dict[str, Any], count: int) -> None:
        """Keep the report of a file, and raise its fault if it has one."""
        self.report = report_from(words["report"])
        if words.get("last"):
            self.kill()
        if "fault" in words:
            raise VideoFault(path, words["fault"], frames_before=count, retry=words["retry"])


class _Patience:
    """Waits for a pipe, but not for ever."""

    def __init__(self, stall_seconds: float, file_seconds: float) -> None:
        self._stall, self._file = stall_seconds, file_seconds
        self._waited = 0.0

    def wait(self, pipe: int) -> None:
        """Return once a pipe can be read."""
        rest = self._file - self._waited
        begin = time.monotonic()
        end = begin + min(self._stall, rest)
        poll = select.poll()  # select() takes no descriptor above 1,023, and streams hold many
        poll.register(pipe, select.POLLIN)
        ready = poll.poll(0)
        while not ready and (left := end - time.monotonic()) > 0:
            ready = poll.poll(1e3 * min(left, LONGEST_WAIT))
        self._waited += time.monotonic() - begin
        if ready:
            return
        if rest <= self._stall:
            raise _LateError(f"took longer than {self._file:g} s")
        raise _LateError(f"no frame within {self._stall:g} s")
