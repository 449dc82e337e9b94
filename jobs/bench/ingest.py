"""Speed of an ingestion from files to a finished store.

files -> ingest with two workers -> NAME.bx, against one plain write of the same bytes as a compressed Zarr array
"""

from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from bytropix.jobs.bench.corpus import some_text
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

WORKERS = 2
TIMES = 4  # the text's size in `megabytes`: starting processes should not be what is measured
FILE_BYTES = 4_000_000


def write_files(folder: Path, text: bytes) -> None:
    """Write text as files of 4 MB."""
    folder.mkdir()
    for number, begin in enumerate(range(0, len(text), FILE_BYTES)):
        (folder / f"{number:05}.txt").write_bytes(text[begin : begin + FILE_BYTES])


def bench_ingest(settings: BenchSettings) -> list[BenchRow]:
    """Measure an ingestion end to end, the start of its processes included."""
    text = some_text(settings.data, int(TIMES * settings.megabytes * 1e6))
    sources, out = settings.folder / "sources", settings.folder / "ingested.bx"
    write_files(sources, text)

    def ingest() -> None:
        ingest_bytes([sources], out, IngestConfig(), workers=WORKERS, overwrite=True)

    return [
        against(
            f"ingest: files to Zarr zstd, {WORKERS} workers",
            "MB/s",
            Contender(work=ingest, amount=len(text) / 1e6),
            Contender(work=lambda: _plain_write(sources, settings.folder / "plain.zarr"), amount=len(text) / 1e6),
            settings.repeats,
            called="reading and one plain zarr write",
            targets=(Target("value", ">=", 60),),
            note=f"{len(text) / 1e6:.0f} MB in {-(-len(text) // FILE_BYTES)} files",
        )
    ]


def _plain_write(sources: Path, out: Path) -> None:
    """Write the bytes of all files as one array in chunks of 1 MiB under zstd, level 1, as zarr does it."""
    pieces: list[NDArray[np.uint8]] = [np.fromfile(path, dtype=np.uint8) for path in sorted(sources.iterdir())]
    text = np.concatenate(pieces)
    array = zarr.create_array(
        out, shape=text.shape, chunks=(1 << 20,), dtype="u1", compressors=ZstdCodec(level=1), overwrite=True
    )
    array[:] = text
