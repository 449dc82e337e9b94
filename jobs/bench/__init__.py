"""Benchmarks, one file each: settings -> rows. A file is imported when its benchmark runs, since most need torch."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bytropix.jobs.bench.rows import BenchRow, BenchSettings

BenchName = Literal[
    "patching",
    "fairness",
    "ingest",
    "ingest-video",
    "stream",
    "stream-video",
    "remote",
    "scale",
    "gaad",
    "geometry",
    "train",
    "train-video",
    "ablate-video",
    "overfit-video",
    "generate",
    "faults",
    "fuzz",
    "kills",
]


def _bench(module: str, function: str) -> "Callable[[BenchSettings], list[BenchRow]]":
    """Return a benchmark that is imported when it is called."""

    def run(settings: "BenchSettings") -> "list[BenchRow]":
        found: Callable[[BenchSettings], list[BenchRow]] = getattr(
            importlib.import_module(f"bytropix.jobs.bench.{module}"), function
        )
        return found(settings)

    return run


BENCHES: "dict[BenchName, Callable[[BenchSettings], list[BenchRow]]]" = {
    "patching": _bench("patching", "bench_patching"),
    "fairness": _bench("fairness", "bench_fairness"),
    "ingest": _bench("ingest", "bench_ingest"),
    "ingest-video": _bench("ingest_video", "bench_ingest_video"),
    "stream": _bench("stream", "bench_stream"),
    "stream-video": _bench("stream_video", "bench_stream_video"),
    "remote": _bench("remote", "bench_remote"),
    "scale": _bench("scale", "bench_scale"),
    "gaad": _bench("gaad", "bench_gaad"),
    "geometry": _bench("geometry", "bench_geometry"),
    "train": _bench("train", "bench_train"),
    "train-video": _bench("train_video", "bench_train_video"),
    "ablate-video": _bench("ablate_video", "bench_ablate_video"),
    "overfit-video": _bench("overfit_video", "bench_overfit_video"),
    "generate": _bench("generate", "bench_generate"),
    "faults": _bench("fault_bench", "bench_faults"),
    "fuzz": _bench("fuzz", "bench_fuzz"),
    "kills": _bench("disturbances", "bench_kills"),
}
