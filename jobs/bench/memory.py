"""Memory of an ingestion, in processes of its own.

some files, and twenty times as many -> bytropix ingest -> the most that it and its workers held at one moment
"""

import importlib.util
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bytropix.errors import StoreError
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target

MORE = 20
PARTS, LEAST_PART = 12, 1 << 20
WORKERS = 2
LOOK_SECONDS = 0.02


def memory_row(settings: BenchSettings, sources: Path) -> BenchRow:
    """Compare the memory that 100 MB of input take with that of 2 GB, both times `megabytes` / 64.

    Args:
        settings: What the benchmark is told.
        sources: A folder of files, which are linked, as often as is needed, into others.
    """
    if importlib.util.find_spec("psutil") is None:
        note = "not measured: No module named 'psutil'; pip install 'bytropix[bench]'"
        return BenchRow(name=f"ingest: memory of {MORE} times the input", value=None, unit="MB", note=note)
    size = int(100e6 * settings.megabytes / 64)
    # Parts so small that every worker has several of them even in the smaller run, as it has in any long one.
    part_bytes = max(LEAST_PART, size // PARTS)
    little = _peak(settings.folder, sources, size, part_bytes)
    much = _peak(settings.folder, sources, MORE * size, part_bytes)
    return BenchRow(
        name=f"ingest: memory of {MORE} times the input",
        value=much / 1e6,
        unit="MB",
        baseline=little / 1e6,
        ratio=much / little,
        against="once the input",
        targets=(Target("ratio", "<=", 1.1),),
        note=f"{size / 1e6:.0f} and {MORE * size / 1e6:.0f} MB in parts of {part_bytes / 1e6:.0f}, {WORKERS} workers",
    )


def _peak(folder: Path, sources: Path, n_bytes: int, part_bytes: int) -> int:
    """Return the most bytes of its own, without mapped files, that an ingestion and its workers held."""
    inputs, out = folder / f"inputs-{n_bytes}", folder / f"peak-{n_bytes}.bx"
    inputs.mkdir()
    files, linked = sorted(sources.iterdir()), 0
    while linked < n_bytes:
        number = len(list(inputs.iterdir()))
        source = files[number % len(files)]
        (inputs / f"{number:06}.txt").hardlink_to(source)
        linked += source.stat().st_size
    words = ["ingest", "bytes", str(inputs), "--out", str(out), "--workers", str(WORKERS)]
    return peak_of([*words, "--part-bytes", str(part_bytes)])


def peak_of(words: list[str]) -> int:
    """Return the most bytes of its own that a command of ours and the processes that it started held at one moment.

    Raises:
        StoreError: It failed.
    """
    command = [sys.executable, "-m", "bytropix", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        most = 0
        while run.poll() is None:
            most = max(most, _held(run.pid))
            time.sleep(LOOK_SECONDS)
        if run.returncode:
            said = (run.stderr.read() if run.stderr else b"").decode()
            raise StoreError(f"{' '.join(words)}: what was to be measured failed ({said.strip()})")
    return most


def _held(process: int) -> int:
    """Return the bytes that a process and those it started hold."""
    import psutil

    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(process)
        for one in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                info = one.memory_info()
                total += info.rss - getattr(info, "shared", 0)
    return total
