"""Speed of fitting a patcher, and of scoring and cutting with it, on one core.

prose -> fit -> patcher -> entropy and starts of 16 KiB documents, against the patcher that it replaces
"""

from bytropix.jobs.bench.corpus import documents, prose
from bytropix.jobs.bench.original_patcher import OriginalPatcher
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, alone
from bytropix.patching import SAMPLE_BYTES, PatchConfig, fit_patcher

ORIGINAL_BYTES = 200_000


def bench_patching(settings: BenchSettings) -> list[BenchRow]:
    """Measure fit, and score plus cut against the original's patcher."""
    data, ends = documents(prose(settings.data, int(settings.megabytes * 1e6)))
    sample = data[:SAMPLE_BYTES]
    patcher = fit_patcher([sample], PatchConfig())
    little = data[:ORIGINAL_BYTES].tobytes()
    return [
        against(
            "patching: score and cut, one core",
            "MB/s",
            Contender(work=lambda: patcher.patch(data, ends), amount=data.size / 1e6),
            Contender(work=lambda: OriginalPatcher()(little), amount=len(little) / 1e6),
            settings.repeats,
            called="the original's patcher",
            targets=(Target("value", ">=", 100), Target("ratio", ">=", 300)),
        ),
        alone(
            "patching: fit and calibrate, one core",
            "MB/s",
            Contender(work=lambda: fit_patcher([sample], PatchConfig()), amount=sample.size / 1e6),
            settings.repeats,
        ),
    ]
