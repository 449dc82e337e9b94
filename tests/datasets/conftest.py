"""Small stores as ingestion writes them, in both codecs, what plain zarr reads in them, and small stores of clips."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from bytropix.datasets.store import PartLayout, Store
from bytropix.jobs.bench.clip_store import LAYOUTS, write_little_clips
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

CODECS = ("zstd", "none")
# Documents of these lengths meet every border of a context of 64 and a stride of 32; the rest fills several parts.
LENGTHS = [1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 128, 129, 1000] * 3 + [4000] * 12


@dataclass(frozen=True)
class Truth:
    """A part as plain zarr reads it."""

    bytes: NDArray[np.uint8]
    starts: NDArray[np.bool_]
    doc_ends: NDArray[np.int64]


def read_truth(store: Store, split: str) -> list[Truth]:
    """Read the parts of a split with zarr alone."""
    found = []
    for part in store.parts(split):
        group: Any = zarr.open_group(part.url, mode="r")
        text = np.asarray(group["bytes"][:])
        starts = np.unpackbits(np.asarray(group["starts"][:]), bitorder="little")[: text.size].astype(bool)
        found.append(Truth(text, starts, np.asarray(group["doc_ends"][:])))
    return found


def make_store(folder: Path, codec: str) -> Path:
    """Ingest documents of random words into a store of several parts a split."""
    generator = random.Random(5)
    sources = folder / "sources"
    sources.mkdir(parents=True)
    for number, length in enumerate(LENGTHS):
        words = b" ".join(generator.randbytes(generator.randint(1, 9)).hex().encode() for _ in range(length // 3 + 1))
        (sources / f"{number:03}.txt").write_bytes(words[:length])
    config = IngestConfig(val_fraction=0.4, document_bytes=4096, part_bytes=16384, layout=PartLayout(codec=codec))  # type: ignore[arg-type]
    ingest_bytes([sources], folder / "small.bx", config)
    return folder / "small.bx"


@pytest.fixture(scope="session")
def store_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of two stores of the same documents, by codec; do not change them."""
    return {codec: make_store(tmp_path_factory.mktemp(codec), codec) for codec in CODECS}


@pytest.fixture(params=CODECS)
def store(request: pytest.FixtureRequest, store_paths: dict[str, Path]) -> Store:
    """One of the two stores, freshly opened."""
    return Store.open(store_paths[request.param])


@pytest.fixture(scope="session")
def truth_of() -> Any:
    """Reader of a split by zarr alone; test modules cannot import this file."""
    return read_truth


@pytest.fixture(scope="session")
def clip_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writer of the little store of video in a layout, once; do not change it."""
    folder = tmp_path_factory.mktemp("clips")

    def written(layout: str) -> Path:
        path = folder / f"{layout.replace(' ', '-')}.bx"
        if not path.exists():
            write_little_clips(path, LAYOUTS[layout])
        return path

    return written
