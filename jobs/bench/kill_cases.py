"""What is killed and made to fail: the operations that write stores, on a small corpus.

a corpus of a few kinds of files -> ingestion, in both formats -> Case -> trials, in a process of their own
"""

import gzip
import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bytropix.datasets.store import PartLayout
from bytropix.datasets.store.formats import FormatName
from bytropix.jobs.bench.kills import Case, Trial, in_fresh_process
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

FORMATS: tuple[FormatName, ...] = ("zarr", "webdataset")
WORDS = ["whale", "sea", "of", "harpoon", "and", "Нева", "a", "Nantucket", "ship", "мост", "deep", "old"]

Way = Callable[[Case, Path, int, int], list[Trial]]
"""How a case is disturbed: `kill_at_random`, `fail_at_calls`; case, folder, number of trials, seed."""


def try_cases(way: Way, folder: Path, trials: int, seed: int, names: Sequence[str] = ()) -> list[Trial]:
    """Disturb every case, or those that are named, in a process of their own.

    Args:
        way: How.
        folder: An empty folder to work in.
        trials: Of each case.
        seed: Of what is drawn.
        names: See `cases`.
    """
    return in_fresh_process(_try_cases, way, folder, trials, seed, tuple(names))


def _try_cases(way: Way, folder: Path, trials: int, seed: int, names: Sequence[str]) -> list[Trial]:
    found = []
    for name, case in cases(folder).items():
        if name in names or not names:
            place = folder / name
            place.mkdir()
            found += way(case, place, trials, seed)
    return found


def cases(folder: Path) -> dict[str, Case]:
    """Return every case by its name, on a corpus that is written into a folder."""
    corpus = small_corpus(folder / "corpus")
    return {
        f"ingest {format}": Case(name=f"ingest {format}", operation=partial(ingest, corpus, format))
        for format in FORMATS
    }


def small_corpus(folder: Path) -> Path:
    """Write about 70 kB: plain text, what has to be unpacked, noise, and a file that is refused."""
    generator = random.Random(0)
    folder.mkdir(parents=True)
    for name in ("a.txt", "b.txt.gz"):
        lines = "\n".join(" ".join(generator.choices(WORDS, k=9)) for _ in range(500)).encode()
        (folder / name).write_bytes(gzip.compress(lines, mtime=0) if name.endswith(".gz") else lines)
    (folder / "noise.bin").write_bytes(generator.randbytes(9_000))
    (folder / "empty").touch()
    return folder


def ingest(corpus: Path, format: FormatName, place: Path, *, scheduler: str = "") -> None:
    """Make, or complete, a store of a few parts, here or on the workers of a Dask scheduler."""
    os.environ["BYTROPIX_CACHE"] = str(place.parent / "cache")
    layout = PartLayout(format=format)
    config = IngestConfig(document_bytes=1024, part_bytes=24_000, val_fraction=0.1, layout=layout)
    ingest_bytes([corpus], place / "store.bx", config, resume=True, scheduler=scheduler)
