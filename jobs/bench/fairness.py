"""How long the patches of each file are, under one setting fitted on a mixture.

files -> every third fits one patcher -> mean patch and share of patches at the cap, of every file
"""

import hashlib

import numpy as np

from bytropix.jobs.bench.corpus import corpus_files
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target
from bytropix.patching import PatchConfig, Patcher, fit_patcher

FITTED_BYTES = 2_000_000  # of one file, so that no file outweighs the mixture
WORST = 5


def bench_fairness(settings: BenchSettings) -> list[BenchRow]:
    """Measure the patches of every file, whole."""
    paths = sorted(corpus_files(settings.data), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    config = PatchConfig()
    patcher = fit_patcher((path.read_bytes()[:FITTED_BYTES] for path in paths[::3]), config)
    found = sorted((*lengths_of(patcher, path.read_bytes()), path.name) for path in paths)
    cap, at_cap = max((share, name) for _, share, name in found)
    fitted = f"{len(paths)} files, fitted on {len(paths[::3])} of them"
    rows = [
        _row("shortest mean patch", found[0][0], Target("value", ">=", 3), f"{found[0][2]}; {fitted}"),
        _row("longest mean patch", found[-1][0], Target("value", "<=", 12), found[-1][2]),
        BenchRow(
            name="fairness: largest share at the cap",
            value=cap,
            unit="of patches",
            targets=(Target("value", "<=", 0.02),),
            note=at_cap,
        ),
    ]
    worst = {*range(WORST), *range(len(found) - WORST, len(found))}
    for rank, (mean, share, name) in enumerate(found):
        note = f"{share:.4f} at the cap"
        rows.append(BenchRow(name=f"fairness: {name}", value=mean, unit="bytes", note=note, detail=rank not in worst))
    return rows


def lengths_of(patcher: Patcher, document: bytes) -> tuple[float, float]:
    """Return the mean patch length in bytes and the share of patches at the cap."""
    starts = np.flatnonzero(patcher(document)[1])
    lengths = np.diff(np.append(starts, len(document)))
    return float(lengths.mean()), float(np.mean(lengths >= patcher.config.max_patch))


def _row(name: str, value: float, target: Target, note: str) -> BenchRow:
    return BenchRow(name=f"fairness: {name}", value=value, unit="bytes", targets=(target,), note=note)
