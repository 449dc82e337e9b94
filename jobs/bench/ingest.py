"""Speed, memory and size of an ingestion from files to a finished store.

files -> ingest with two workers -> NAME.bx, against one plain write of the same bytes as a compressed Zarr array
      -> the same on a Dask cluster, against that; again with nothing to do; verified; with twenty times as many files
parts in memory -> storage, against one plain write of the same arrays, and against the writers of other formats
"""

from functools import partial
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from bytropix.datasets.store import PartLayout, Store
from bytropix.jobs.bench.corpus import some_text
from bytropix.jobs.bench.memory import memory_row
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, seconds
from bytropix.jobs.bench.writing import writing_rows
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.runner import local_runner
from bytropix.pipelines.tools.verify import verify

WORKERS = 2
TIMES = 4  # the text's size in `megabytes`: starting processes should not be what is measured
FILE_BYTES = 4_000_000
LAYOUTS = {
    "Zarr zstd": PartLayout(),
    "WebDataset": PartLayout(format="webdataset"),
    "Zarr none": PartLayout(codec="none"),
}


def write_files(folder: Path, text: bytes) -> None:
    """Write text as files of 4 MB."""
    folder.mkdir()
    for number, begin in enumerate(range(0, len(text), FILE_BYTES)):
        (folder / f"{number:05}.txt").write_bytes(text[begin : begin + FILE_BYTES])


def bench_ingest(settings: BenchSettings) -> list[BenchRow]:
    """Measure ingestions end to end, the start of their processes included, and what they are made of."""
    text = some_text(settings.data, int(TIMES * settings.megabytes * 1e6))
    sources = settings.folder / "sources"
    write_files(sources, text)
    rows = [_end_to_end(settings, sources, len(text), name) for name in ("Zarr zstd", "WebDataset")]
    rows += [_dask(settings, sources, len(text)), _again(settings, sources)]
    rows += [_hashing(settings), _size(settings, sources)]
    return [*rows, *writing_rows(settings), memory_row(settings, sources)]


def _ingest(settings: BenchSettings, sources: Path, name: str, *, dask: bool = False, resume: bool = False) -> None:
    config = IngestConfig(layout=LAYOUTS[name])
    out = _store(settings, name)
    ingest_bytes([sources], out, config, workers=WORKERS, dask=dask, resume=resume, overwrite=not resume)


def _store(settings: BenchSettings, name: str) -> Path:
    return settings.folder / f"{name.replace(' ', '-')}.bx"


def _end_to_end(settings: BenchSettings, sources: Path, n_bytes: int, name: str) -> BenchRow:
    return against(
        f"ingest: files to {name}, {WORKERS} workers",
        "MB/s",
        Contender(work=partial(_ingest, settings, sources, name), amount=n_bytes / 1e6),
        Contender(work=lambda: _plain_write(sources, settings.folder / "plain.zarr"), amount=n_bytes / 1e6),
        settings.repeats,
        called="reading and one plain zarr write",
        targets=(Target("value", ">=", 60),),
        note=f"{n_bytes / 1e6:.0f} MB in {-(-n_bytes // FILE_BYTES)} files",
    )


def _dask(settings: BenchSettings, sources: Path, n_bytes: int) -> BenchRow:
    local = partial(_ingest, settings, sources, "Zarr zstd")
    return against(
        f"ingest: on a Dask cluster, {WORKERS} workers",
        "MB/s",
        Contender(work=partial(local, dask=True), amount=n_bytes / 1e6),
        Contender(work=local, amount=n_bytes / 1e6),
        settings.repeats,
        called="as many local processes",
        targets=(Target("ratio", ">=", 0.85),),
        note=f"{n_bytes / 1e6:.0f} MB; the start of the cluster included",
    )


def _again(settings: BenchSettings, sources: Path) -> BenchRow:
    """Measure a run that finds its store finished, against the run that made it."""
    first = partial(_ingest, settings, sources, "Zarr zstd")
    made = seconds(first)
    again = [seconds(partial(first, resume=True)) for _ in range(settings.repeats)]
    return BenchRow(
        name="ingest: again, with nothing to do",
        value=float(np.median(again)) / made,
        unit="of first run",
        targets=(Target("value", "<=", 0.02),),
        note=f"{1e3 * float(np.median(again)):.0f} ms, {made:.2f} s at first",
    )


def _hashing(settings: BenchSettings) -> BenchRow:
    """Measure how fast one worker compares all files of a store with its manifest."""
    rates = []
    with local_runner(1) as runner:
        for _ in range(settings.repeats + 1):
            found = verify(str(_store(settings, "Zarr zstd")), runner, hashes_only=True)
            rates.append(found.n_bytes / found.hash_seconds / 1e9)
    return BenchRow(
        name="ingest: verify, hashing, one core",
        value=float(np.median(rates[1:])),
        unit="GB/s",
        targets=(Target("value", ">=", 1),),
        note=f"sha256 of {found.n_bytes / 1e6:.0f} MB",
    )


def _size(settings: BenchSettings, sources: Path) -> BenchRow:
    """Measure what bytes and boundaries take on disk without compression; entropies can be left out of a copy."""
    _ingest(settings, sources, "Zarr none")
    manifest = Store.open(_store(settings, "Zarr none")).manifest
    kept = sum(f.size for part in manifest.parts for f in part.files if not f.path.startswith("entropy/"))
    whole = sum(file.size for part in manifest.parts for file in part.files)
    raw = sum(part.n_bytes for part in manifest.parts)
    return BenchRow(
        name="ingest: size of bytes and boundaries, codec none",
        value=kept / raw,
        unit="x raw",
        targets=(Target("value", "<=", 1.14),),
        note=f"bytes, starts, ends and rows of documents; {whole / raw:.2f} with entropies",
    )


def _plain_write(sources: Path, out: Path) -> None:
    """Write the bytes of all files as one array in chunks of 1 MiB under zstd, level 1, as zarr does it."""
    pieces: list[NDArray[np.uint8]] = [np.fromfile(path, dtype=np.uint8) for path in sorted(sources.iterdir())]
    text = np.concatenate(pieces)
    array = zarr.create_array(
        out, shape=text.shape, chunks=(1 << 20,), dtype="u1", compressors=ZstdCodec(level=1), overwrite=True
    )
    array[:] = text
