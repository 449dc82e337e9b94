"""What is killed and made to fail: the operations that write stores, on a small corpus and on small films.

a corpus of a few kinds of files -> ingest, append, repatch, convert, in both formats -> Case -> trials
films, one of them damaged       -> film, in both formats                             ->
"""

import gzip
import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from bytropix.datasets.store import PartLayout, VideoLayout
from bytropix.datasets.store.formats import FormatName
from bytropix.jobs.bench.kills import Case, Trial, in_fresh_process
from bytropix.jobs.film import panned
from bytropix.pipelines.append import append_bytes
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.runner import local_runner
from bytropix.pipelines.tools.convert import convert
from bytropix.pipelines.tools.repatch import repatch
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.encode import write_video
from bytropix.pipelines.video.ingest import ingest_video

FORMATS: tuple[FormatName, ...] = ("zarr", "webdataset")
WORDS = ["whale", "sea", "of", "harpoon", "and", "Нева", "a", "Nantucket", "ship", "мост", "deep", "old"]

OPERATIONS = ("ingest", "append", "repatch", "convert", "film")
CASES = tuple(f"{operation} {format}" for operation in OPERATIONS for format in FORMATS)

Way = Callable[[Case, Path, int, int], list[Trial]]
"""How a case is disturbed: `kill_at_random`, `fail_at_calls`; case, folder, number of trials, seed."""


def try_cases(way: Way, folder: Path, trials: int, seed: int, names: Sequence[str] = CASES) -> list[Trial]:
    """Disturb cases, in a process of their own.

    Args:
        way: How.
        folder: An empty folder to work in.
        trials: Of each case.
        seed: Of what is drawn.
        names: Of the cases.
    """
    return in_fresh_process(_try_cases, way, folder, trials, seed, tuple(names))


def _try_cases(way: Way, folder: Path, trials: int, seed: int, names: Sequence[str]) -> list[Trial]:
    found = []
    corpus, films = small_corpus(folder / "corpus"), small_films(folder / "films")
    for name in names:
        sources = films if name.startswith("film") else corpus
        case = make_case(name, sources, folder / "before" / name)
        (folder / name).mkdir()
        found += way(case, folder / name, trials, seed)
    return found


def make_case(name: str, corpus: Path, before: Path) -> Case:
    """Return a case.

    Args:
        name: Its operation and its format.
        corpus: What is ingested.
        before: Where to make the store that an operation starts from.
    """
    operation, format = name.split()
    if operation == "film":
        return Case(name=name, operation=partial(ingest_films, corpus, VideoLayout(format=cast(FormatName, format))))
    layout = PartLayout(format=cast(FormatName, format))
    if operation == "ingest":
        return Case(name=name, operation=partial(ingest, [corpus], layout))
    first, second = [corpus / "a.txt", corpus / "noise.bin"], [corpus / "b.txt.gz"]
    ingest(first, layout, before)
    if operation == "append":
        return Case(name=name, operation=partial(append, second), before=before)
    if operation == "repatch":
        return Case(name=name, operation=cut_anew, before=before)
    return Case(name=name, operation=partial(convert_from, before / "store.bx", other(layout)))


def small_corpus(folder: Path) -> Path:
    """Write about 60 kB: plain text, text that has to be unpacked, noise, and an empty file, which is refused."""
    generator = random.Random(0)
    folder.mkdir(parents=True)
    for name in ("a.txt", "b.txt.gz"):
        lines = "\n".join(" ".join(generator.choices(WORDS, k=9)) for _ in range(500)).encode()
        (folder / name).write_bytes(gzip.compress(lines, mtime=0) if name.endswith(".gz") else lines)
    (folder / "noise.bin").write_bytes(generator.randbytes(9_000))
    (folder / "empty").touch()
    return folder


def ingest(sources: Sequence[Path], layout: PartLayout, place: Path, *, scheduler: str = "") -> None:
    """Make, or complete, a store of a few parts, here or on the workers of a Dask scheduler."""
    _remember_beside(place)
    config = IngestConfig(document_bytes=1024, part_bytes=24_000, val_fraction=0.1, layout=layout)
    ingest_bytes(sources, place / "store.bx", config, resume=True, scheduler=scheduler)


def small_films(folder: Path) -> Path:
    """Write three films of a second or two, one of them with a hole, which is found when it is decoded."""
    folder.mkdir(parents=True)
    for number, count in enumerate((20, 50, 30)):
        images = panned(count, 48, 64, seed=number, speed=2)
        with write_video(folder / f"{number}.mp4", 48, 64, fps=25.0) as writer:
            writer.write(images, np.arange(count) / 25.0)
    data = bytearray((folder / "2.mp4").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    (folder / "2.mp4").write_bytes(data)
    return folder


def ingest_films(films: Path, layout: VideoLayout, place: Path, *, scheduler: str = "") -> None:
    """Make, or complete, a store of a few parts of video, here or on the workers of a Dask scheduler."""
    _remember_beside(place)
    config = VideoConfig(size=(24, 32), clip_frames=4, part_bytes=16 * 24 * 32 * 3, val_fraction=0.0, layout=layout)
    ingest_video([films], place / "store.bx", config, resume=True, max_bad=0.5, scheduler=scheduler)


def append(sources: Sequence[Path], place: Path) -> None:
    """Add sources to the store."""
    _remember_beside(place)
    append_bytes(place / "store.bx", sources)


def cut_anew(place: Path) -> None:
    """Cut the store into longer patches."""
    with local_runner(1) as runner:
        repatch(str(place / "store.bx"), {"mean_patch": 7.0}, runner)


def convert_from(store: Path, layout: PartLayout, place: Path) -> None:
    """Make a store in the other format."""
    with local_runner(1) as runner:
        convert(str(store), str(place / "store.bx"), layout, runner, resume=True)


def other(layout: PartLayout) -> PartLayout:
    """Return the layout of the other format."""
    return PartLayout(format="zarr" if layout.format == "webdataset" else "webdataset")


def _remember_beside(place: Path) -> None:
    """Keep what is remembered of stores away from the user's own."""
    os.environ["BYTROPIX_CACHE"] = str(place.parent / "cache")
