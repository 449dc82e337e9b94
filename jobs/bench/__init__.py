"""Benchmarks, one file each: settings -> rows."""

from collections.abc import Callable
from typing import Literal

from bytropix.jobs.bench.fairness import bench_fairness
from bytropix.jobs.bench.fault_table import bench_faults
from bytropix.jobs.bench.fuzz import bench_fuzz
from bytropix.jobs.bench.generate import bench_generate
from bytropix.jobs.bench.geometry import bench_geometry
from bytropix.jobs.bench.ingest import bench_ingest
from bytropix.jobs.bench.patching import bench_patching
from bytropix.jobs.bench.rows import BenchRow, BenchSettings
from bytropix.jobs.bench.stream import bench_stream
from bytropix.jobs.bench.train import bench_train

BenchName = Literal["patching", "fairness", "ingest", "stream", "geometry", "train", "generate", "faults", "fuzz"]

BENCHES: dict[BenchName, Callable[[BenchSettings], list[BenchRow]]] = {
    "patching": bench_patching,
    "fairness": bench_fairness,
    "ingest": bench_ingest,
    "stream": bench_stream,
    "geometry": bench_geometry,
    "train": bench_train,
    "generate": bench_generate,
    "faults": bench_faults,
    "fuzz": bench_fuzz,
}
