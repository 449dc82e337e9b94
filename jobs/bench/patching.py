"""Speed of fitting a patcher, and of scoring and cutting with it, on one core.

text -> fit -> patcher -> entropy and starts of 16 KiB documents, against the patcher that it replaces
"""

import numpy as np
import torch
from numpy.typing import NDArray

from bytropix.jobs.bench.corpus import documents, some_text
from bytropix.jobs.bench.original_patcher import OriginalPatcher
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, alone
from bytropix.patching import SAMPLE_BYTES, PatchConfig, fit_patcher

ORIGINAL_BYTES = 200_000
ORIGINAL_WINDOW = 256


def bench_patching(settings: BenchSettings) -> list[BenchRow]:
    """Measure score plus cut against the original's patcher, and the fit."""
    data, ends = documents(some_text(settings.data, int(settings.megabytes * 1e6)))
    sample = data[:SAMPLE_BYTES]
    patcher = fit_patcher([sample], PatchConfig())
    rows = [
        against(
            f"patching: score and cut, one core{suffix}",
            "MB/s",
            Contender(work=lambda: patcher.patch(data, ends), amount=data.size / 1e6),
            original(data[:ORIGINAL_BYTES], dtype),
            settings.repeats,
            called=f"the original's, {called}",
            clock="processor",
            targets=targets,
        )
        for dtype, called, suffix, targets in (
            (torch.int64, "as its trainer calls it", "", (Target("value", ">=", 100), Target("ratio", ">=", 300))),
            (torch.uint8, "helped by uint8 windows", " (again)", ()),
        )
    ]
    fit = Contender(work=lambda: fit_patcher([sample], PatchConfig()), amount=sample.size / 1e6)
    return [*rows, alone("patching: fit and calibrate, one core", "MB/s", fit, settings.repeats, clock="processor")]


def original(data: NDArray[np.uint8], dtype: torch.dtype) -> Contender:
    """Return the original's patcher at work on windows of 256 bytes, with an empty cache."""
    windows = torch.split(torch.from_numpy(data.copy()).to(dtype), ORIGINAL_WINDOW)

    def work() -> None:
        patcher = OriginalPatcher()
        for window in windows:
            patcher(window)

    return Contender(work=work, amount=data.size / 1e6)
