"""The decoding process: what hangs, crashes or eats memory costs one file; nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from bytropix.errors import RunError
from bytropix.pipelines.decoders import DECODERS, DecoderProcess, VideoFault, Wanted, child
from bytropix.pipelines.decoders.wire import BATCH_BYTES, MOST_FRAMES
from tests.conftest import PROJECT
from tests.decoders.conftest import grey_film, make_film, moving, read

SMALL = Wanted(height=64, width=64)
PATIENCE = 30.0  # for things that take a second on a machine that is not busy


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a film that is longer than a pipe and two batches hold."""
    return make_film(tmp_path_factory.mktemp("films") / "film.mp4", moving(400), options={"preset": "ultrafast"})


def status(pid: int, field: str) -> int:
    """Return a number of a process that Linux tells, in KiB where it is memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def gone(pid: int) -> bool:
    """Return whether a process has ended, waiting for it a while."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def end_after_first(decoder: DecoderProcess, film: Path, wanted: Wanted, act: Callable[[int], None]) -> VideoFault:
    """Do something to the process once a batch has come, and return the fault that it brings."""
    count = 0
    with pytest.raises(VideoFault) as caught:  # noqa: PT012
        for batch in decoder.frames(film, wanted):
            if not count:
                assert decoder.pid is not None
                act(decoder.pid)
            count += len(batch.times)
    assert caught.value.frames_before == count
    assert 0 < count < 400
    assert caught.value.retry
    return caught.value


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_costs_one_file(number: int, decoder: DecoderProcess, film: Path) -> None:
    """The fault names the signal; the next file is read by a new process."""
    before = decoder.probe(film)

    fault = end_after_first(decoder, film, SMALL, lambda pid: os.kill(pid, number))

    assert fault.reason == f"the decoder crashed (signal {number})"
    assert decoder.report is not None
    assert decoder.report.decoder == "pyav"
    assert decoder.probe(film) == before
    assert len(read(decoder, film, SMALL).times) == 400


def test_a_crash_between_files_costs_none(decoder: DecoderProcess, film: Path) -> None:
    """A process that has ended meanwhile is replaced, also one that takes the request and dies before it reads it."""
    for pause in (0.0, 0.0, 0.001, 0.01, 0.3):
        decoder.probe(film)
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGKILL)
        time.sleep(pause)

        assert decoder.probe(film).width > 0
    assert len(read(decoder, film, SMALL).times) == 400


def test_a_hang_costs_one_file(decoder: DecoderProcess, film: Path) -> None:
    """A decoder that gives no frame for so long is killed, whatever it is doing; the next file is read."""
    wanted = Wanted(height=64, width=64, stall_seconds=0.5)
    stopped: list[int] = []

    fault = end_after_first(decoder, film, wanted, lambda pid: (stopped.append(pid), os.kill(pid, signal.SIGSTOP))[0])

    assert fault.reason == "no frame within 0.5 s"
    assert gone(stopped[0])
    assert len(read(decoder, film, SMALL).times) == 400


def test_a_file_has_only_so_much_time(decoder: DecoderProcess, film: Path) -> None:
    """However lively its decoder is."""
    fault = read(decoder, film, Wanted(height=64, width=64, file_seconds=1e-4)).fault

    assert fault is not None
    assert fault.reason == "took longer than 0.0001 s"
    assert fault.retry


def test_waiting_for_the_reader_is_no_hang(decoder: DecoderProcess, film: Path) -> None:
    """Who asks may take its time: neither the limits nor the alarm count it."""
    wanted = Wanted(height=64, width=64, stall_seconds=0.4, file_seconds=20.0)
    count = 0
    for batch in decoder.frames(film, wanted):
        if not count:
            time.sleep(1.5)
        count += len(batch.times)

    assert count == 400


def test_frames_that_are_not_picked_are_signs_of_life(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a frame in a thousand seconds there is one frame and a long silence, in which the process says it is alive."""
    monkeypatch.setattr(child, "BEAT_SECONDS", 0.0)
    reading, writing = os.pipe()
    one = child.Child(writing)
    drained: list[bytes] = []
    drain = threading.Thread(target=lambda: drained.append(_all_of(reading)))
    drain.start()
    row = {"do": "frames", "path": str(film), "wanted": {"height": 8, "width": 8, "fps": 0.001}}
    monkeypatch.setattr(child, "_limit_memory", lambda n_bytes: None)
    one.answer(row)
    os.close(writing)
    drain.join()
    os.close(reading)

    assert drained[0].count(b'{"alive": true}') >= 400


def _all_of(pipe: int) -> bytes:
    """Read a pipe to its end."""
    with os.fdopen(os.dup(pipe), "rb") as file:
        return file.read()


def test_hunger_for_memory_costs_one_file(decoder: DecoderProcess, tmp_path: Path, film: Path) -> None:
    """A film whose frames need more than is allowed is named; small ones are read under the same limit."""
    large = grey_film(tmp_path / "large.mp4", [90] * 3, height=7000, width=7000, options={"preset": "ultrafast"})
    limited = Wanted(height=64, width=64, memory_bytes=2**29)

    fault = read(decoder, large, limited).fault

    assert fault is not None
    assert fault.reason == "needed more than 512 MiB of memory"
    assert fault.retry
    assert len(read(decoder, film, limited).times) == 400
    assert decoder.probe(large).width == 7000


def test_who_stops_early_leaves_nothing_running(film: Path) -> None:
    """A loop that is left, and the end of the `with`, end the process; the same object can go on."""
    with DecoderProcess() as decoder:
        for _ in decoder.frames(film, SMALL):
            first = decoder.pid
            break
        assert first is not None
        assert gone(first)
        assert len(read(decoder, film, SMALL).times) == 400
        second = decoder.pid
        assert second is not None
    assert gone(second)
    assert decoder.pid is None


PARENT = """
import os, sys, time
from pathlib import Path
from bytropix.pipelines.decoders import DecoderProcess, Wanted

decoder = DecoderProcess()
decoder.probe(sys.argv[1])
if sys.argv[2] == "reading":
    frames = decoder.frames(sys.argv[1], Wanted(height=64, width=64))
    next(frames)
copy = os.fork() if sys.argv[2] == "copied" else 0
if copy or sys.argv[2] != "copied":
    print(decoder.pid, copy, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["idle", "reading", "copied"])
def test_it_ends_with_the_process_that_asks(state: str, film: Path, tmp_path: Path) -> None:
    """Also where that is killed outright: between files, with frames under way, while a copy of it holds the pipes."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(film), state],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert parent.stdout is not None
    pid, copy = map(int, parent.stdout.readline().split())
    assert Path(f"/proc/{pid}/stat").is_file()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    try:
        assert gone(pid)
    finally:
        if copy:
            os.kill(copy, signal.SIGKILL)


DAEMON = """
import multiprocessing, sys
from bytropix.pipelines.decoders import DecoderProcess, Wanted

def work(path, queue):
    with DecoderProcess() as decoder:
        queue.put(sum(len(batch.times) for batch in decoder.frames(path, Wanted(height=64, width=64))))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(sys.argv[1], queue), daemon=True)
    process.start()
    print(queue.get(timeout=60))
    process.join()
"""


@pytest.mark.parametrize("safe", [False, True])
def test_it_runs_inside_daemonic_workers_and_from_anywhere(safe: bool, film: Path, tmp_path: Path) -> None:
    """As Dask's workers are; in a folder full of traps, with and without Python's own guard against them."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('a trap')")
    script = tmp_path / "work" / "daemon.py"
    script.parent.mkdir()
    script.write_text(DAEMON)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    if safe:
        environment["PYTHONSAFEPATH"] = "1"

    done = subprocess.run(
        [sys.executable, str(script), str(film)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout.strip(), done.stderr) == ("400", "")


def test_it_starts_with_little() -> None:
    """Nothing heavy is imported, so that a process for one file is quickly there."""
    heavy = {"torch", "zarr", "numba", "dask", "distributed", "decord", "PIL", "multiprocessing"}
    code = f"import sys, bytropix.pipelines.decoders.child; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_libraries_say_nothing_on_the_terminal(film: Path, tmp_path: Path) -> None:
    """FFmpeg and decord complain at length about damaged files; the report says it once."""
    damaged = tmp_path / "damaged.mp4"
    content = bytearray(film.read_bytes())
    content[9000:60000] = np.random.default_rng(0).bytes(51000)
    damaged.write_bytes(content)
    code = (
        "import os, sys\n"
        "os.environ['PYTHONVERBOSE'] = '1'  # the process says each import on its stderr\n"
        "from bytropix.pipelines.decoders import *\n"
        "with DecoderProcess() as decoder:\n"
        "    for name in DECODERS:\n"
        "        try:\n"
        "            for batch in decoder.frames(sys.argv[1], Wanted(height=8, width=8, decoder=name)): pass\n"
        "        except VideoFault: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(damaged)], cwd=PROJECT, capture_output=True, text=True, check=True
    )

    assert (done.stdout, done.stderr) == ("", "")


def test_memory_stays_small_whatever_the_length(tmp_path: Path) -> None:
    """At 1080p, below 300 MiB, and no more for a long film than for a short one."""
    path = grey_film(
        tmp_path / "hd.mp4", list(range(16, 235, 2)), height=1080, width=1920, options={"preset": "ultrafast"}
    )
    with DecoderProcess() as decoder:
        peaks = []
        for batch in decoder.frames(path, Wanted(height=128, width=128)):
            assert len(batch.times) <= MOST_FRAMES
            assert batch.images.nbytes <= BATCH_BYTES
            assert decoder.pid is not None
            peaks.append(status(decoder.pid, "VmHWM"))

    assert peaks[-1] < 300 * 1024
    assert peaks[-1] < peaks[len(peaks) // 3] * 1.1


def test_a_process_that_cannot_start_is_no_fault_of_the_file(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken installation must not put every file into the quarantine."""
    (tmp_path / "bytropix").mkdir()
    (tmp_path / "bytropix" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with DecoderProcess() as decoder, pytest.raises(RunError, match=r"does not start: .*No module named 'bytropix\."):
        decoder.probe(film)


def test_many_files_leak_nothing(decoder: DecoderProcess, film: Path, tmp_path: Path) -> None:
    """Neither descriptors nor memory, good files and bad."""
    (tmp_path / "bad.mp4").write_bytes(film.read_bytes()[:20000])
    short = grey_film(tmp_path / "short.mkv", [90, 100])

    def usage() -> tuple[int, int]:
        assert decoder.pid is not None
        return len(os.listdir(f"/proc/{decoder.pid}/fd")), status(decoder.pid, "VmRSS")  # noqa: PTH208

    for _ in range(10):
        read(decoder, short, SMALL)
        read(decoder, tmp_path / "bad.mp4", SMALL)
    before = usage()
    for _ in range(60):
        read(decoder, short, SMALL)
        read(decoder, tmp_path / "bad.mp4", SMALL)
        decoder.probe(short)

    assert usage()[0] == before[0]
    assert usage()[1] < before[1] + 20 * 1024


def test_it_works_beside_a_thousand_open_files(film: Path) -> None:
    """A stream over many parts holds as many descriptors, and more than 1,023 is no reason to fail."""
    with ExitStack() as stack:
        try:
            for _ in range(1030):
                stack.enter_context(Path(os.devnull).open())
        except OSError:
            pytest.skip("this user may not open as many files")
        assert stack.enter_context(DecoderProcess()).probe(film).codec == "h264"


def test_the_registry_lists_the_decoders_in_order() -> None:
    """PyAV first; the program last."""
    assert list(DECODERS) == ["pyav", "decord", "ffmpeg"]
