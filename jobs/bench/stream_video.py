"""Random clips from our stores of video, beside a memmap of their frames and decoding on the fly: the same clips.

films (made here) -> ingested, raw -> the same parts in every other layout; all frames in one file to map
    -> every loader in a process of its own, in turns -> ratios turn by turn, against the targets
"""

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from bytropix.datasets.store import Store
from bytropix.errors import StoreError
from bytropix.jobs.bench.clip_loaders import (
    DECODERS,
    FILMS,
    FRAMES,
    LOADERS,
    OURS,
    RAW,
    TIMED,
    installed,
    measure,
    stored_name,
)
from bytropix.jobs.bench.clip_store import LAYOUTS, write_clip_store
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Target
from bytropix.jobs.film import texture
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.encode import write_video
from bytropix.pipelines.video.ingest import ingest_video

TIMES = 2  # the stored frames' size in `megabytes`
HEIGHT, WIDTH, FPS, CRF = 480, 854, 25.0, 23  # of the films
FILM_FRAMES = 500  # two groups of pictures as libx264 makes them
GRAIN, SPEED, STRETCH = 6, 3, 25  # levels, pixels a frame, frames encoded at a time
SIDE, CLIP_FRAMES = 128, 16
# What must hold of a layout: clips a second against a memmap of the frames, and against decoding from the films.
AGAINST_MEMMAP: dict[str, float] = {"zarr raw": 0.5}
AGAINST_DECODING: dict[str, float] = {"zarr raw": 100, "zarr jpeg": 30}

Found = dict[str, list[dict[str, Any]]]
"""What each loader found, a turn each."""


def bench_stream_video(settings: BenchSettings) -> list[BenchRow]:
    """Set all ways to get a clip side by side, prefetch off as well."""
    frames = max(2 * CLIP_FRAMES, int(TIMES * settings.megabytes * 1e6 / (3 * SIDE * SIDE)))
    make_stores(settings.folder, frames)
    names = [name for name in LOADERS if name not in DECODERS or installed(name)]
    found: Found = {name: [] for name in names}
    for _ in range(settings.repeats):
        for name in names:
            found[name].append(measure(name, settings.folder))
    _check_equal(found, settings.folder)
    note = f"clips of {CLIP_FRAMES} frames of {SIDE} x {SIDE}, random; {frames} frames"
    rows = [_row(name, turns, note, settings.folder) for name, turns in found.items()]
    bounds = {"memmap": AGAINST_MEMMAP} | dict.fromkeys(DECODERS, AGAINST_DECODING)
    rows += [
        _ratio(found, name, against, kept.get(name))
        for against, kept in bounds.items()
        for name in TIMED
        if against in found
    ]
    return rows + [
        BenchRow(
            name=f"stream-video: {name}",
            value=None,
            unit="clips/s",
            note=f"not installed; pip install {name}",
            place="not_installed",
        )
        for name in DECODERS
        if name not in found
    ]


def make_stores(folder: Path, frames: int) -> None:
    """Write films of so many frames, the store of them, its copies in all layouts, and all frames in one file."""
    films = folder / FILMS
    films.mkdir()
    for number, first in enumerate(range(0, frames, FILM_FRAMES)):
        write_film(films / f"{number:03}.mp4", min(FILM_FRAMES, frames - first), seed=number)
    config = VideoConfig(size=(SIDE, SIDE), fit="stretch", clip_frames=CLIP_FRAMES, val_fraction=0)
    ingest_video([films], folder / RAW, config)
    parts = Store.open(folder / RAW).video_parts("train")
    np.save(folder / FRAMES, np.concatenate([part.read_frames(0, part.frames) for part in parts]))
    arrays = [part.arrays() for part in parts]
    for name in TIMED:
        if stored_name(name) != RAW:
            write_clip_store(folder / stored_name(name), LAYOUTS[name], {"train": arrays}, clip_frames=CLIP_FRAMES)


def write_film(path: Path, frames: int, *, seed: int) -> None:
    """Write a film of a grainy pattern that goes by, as libx264 makes it by itself."""
    generator = np.random.default_rng(seed)
    x, y = (np.arange(side, dtype=np.float32) for side in (WIDTH + SPEED * frames, HEIGHT))
    pattern = texture(x, y, seed)
    grain = generator.integers(0, GRAIN, (2 * HEIGHT, WIDTH, 3), np.uint8)
    with write_video(path, HEIGHT, WIDTH, fps=FPS, crf=CRF) as writer:
        for first in range(0, frames, STRETCH):
            numbers = np.arange(first, min(frames, first + STRETCH))
            images = np.stack([pattern[:, SPEED * number :][:, :WIDTH] for number in numbers.tolist()])
            for image, down in zip(images, generator.integers(0, HEIGHT, len(images)).tolist(), strict=True):
                image += grain[down : down + HEIGHT]
            writer.write(images, numbers / FPS)


def _check_equal(found: Found, folder: Path) -> None:
    """Refuse to compare what is not the same: lossless layouts must give the bytes of the mapped file.

    Raises:
        StoreError: One does not.
    """
    right = {turn["crc"] for turn in found["memmap"]}
    for name, (layout, _) in OURS.items():
        if layout.split()[1] in ("raw", "zstd") and {turn["crc"] for turn in found[name]} != right:
            raise StoreError(f"{folder}: {name} gave other frames than the mapped file; this is a fault of the program")


def _row(name: str, turns: list[dict[str, Any]], note: str, folder: Path) -> BenchRow:
    """Return a loader's row; every figure is the median of its turns."""
    figures: dict[str, str | float | bool | None] = {"loader": name}
    for figure in ("first_batch_ms", "cpu_ms_per_clip", "memory_mib"):
        values = [turn[figure] for turn in turns if turn[figure] is not None]
        figures[figure] = statistics.median(values) if values else None
    place = folder / (stored_name(OURS[name][0]) if name in OURS else FILMS if name in DECODERS else FRAMES)
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    figures["stored_mb"] = sum(path.stat().st_size for path in files) / 1e6
    memory = "" if figures["memory_mib"] is None else f", {figures['memory_mib']:.0f} MiB held"
    return BenchRow(
        name=f"stream-video: {name}",
        value=statistics.median(turn["clips_per_s"] for turn in turns),
        unit="clips/s",
        note=f"first batch {figures['first_batch_ms']:.0f} ms{memory}, stored in {figures['stored_mb']:.1f} MB; {note}",
        figures=figures,
        place="variants" if name in OURS and not OURS[name][1] else "rows",
    )


def _ratio(found: Found, name: str, against: str, bound: float | None) -> BenchRow:
    """Return how many times as many clips a layout gives as something else."""
    ours, theirs = ([turn["clips_per_s"] for turn in found[one]] for one in (name, against))
    return BenchRow(
        name=f"stream-video: {name} against {against}",
        value=statistics.median(ours),
        unit="clips/s",
        baseline=statistics.median(theirs),
        ratio=statistics.median(one / other for one, other in zip(ours, theirs, strict=True)),
        against=against,
        targets=() if bound is None else (Target("ratio", ">=", bound),),
        place="ratios",
    )
