"""Speed, memory and size of an ingestion of video, from files to a finished store.

films -> ingest, against decoding and resizing alone by the same back end; what regions and the child process cost
      -> two workers against one -> every codec of frames: size and speed -> memory at 1080p, short and long
"""

import importlib.util
import itertools
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import Store, VideoLayout
from bytropix.datasets.store.video_formats import FrameCodecName
from bytropix.gaad.config import RegionConfig
from bytropix.gaad.maps import region_maps
from bytropix.jobs.bench.memory import peak_of
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, seconds
from bytropix.jobs.film import add_shapes, panned
from bytropix.pipelines.decoders import DECODERS, DecoderProcess, VideoFault, Wanted
from bytropix.pipelines.decoders.shaper import Shaper
from bytropix.pipelines.decoders.source import Tally
from bytropix.pipelines.video.child import close_decoder
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.encode import write_video
from bytropix.pipelines.video.ingest import ingest_video

FILMS, FRAMES = 4, 200  # of the least bench; `megabytes` decides how often they are linked
HEIGHT, WIDTH, FPS = 360, 640, 25.0
CODECS: tuple[FrameCodecName, ...] = ("raw", "zstd", "jpeg", "h264")
MAP_FRAMES = 32
SHORT_AND_TIMES = {False: (12, 2), True: (48, 8)}  # frames of the short film of 1080p, and of these the long one has
LEAST_LONG = 16  # megabytes of a bench that measures the longer ones


def bench_ingest_video(settings: BenchSettings) -> list[BenchRow]:
    """Measure ingestions of films end to end, and what they are made of."""
    sources = films_of(settings)
    close_decoder()
    rows = [_end_to_end(settings, sources), *_maps(settings, sources), _child(settings, sources)]
    rows += [_two_workers(settings, sources), *_codecs(settings, sources), *_memory(settings)]
    close_decoder()
    return rows


def films_of(settings: BenchSettings) -> list[Path]:
    """Return films to measure on: those of a folder that can be read, or made-up ones, so many as `megabytes` asks for.

    The measure is the frames as they are stored, of 128 x 128.
    """
    wanted = max(1, round(settings.megabytes * 1e6 / VideoConfig().frame_bytes))
    folder = settings.folder / "films"
    folder.mkdir()
    if settings.data is not None:
        films = sorted(path for path in settings.data.rglob("*") if path.is_file() and _frames_in(path) > 0)
        if films:
            return films
    count = max(8, min(FRAMES, wanted // FILMS))
    made = [write_film(folder / f"{number}.mp4", HEIGHT, WIDTH, count, number) for number in range(FILMS)]
    links = []
    for number in range(FILMS, FILMS + max(FILMS, wanted // count)):
        link = folder / f"{number:04d}.mp4"
        # A box that says nothing, so that each has a hash of its own and lands where that says.
        link.write_bytes(made[number % FILMS].read_bytes() + b"\0\0\0\x0cfree" + number.to_bytes(4, "big"))
        links.append(link)
    return links


def write_film(path: Path, height: int, width: int, count: int, seed: int, times: int = 1) -> Path:
    """Write a film of shapes before a pattern that goes by, shown so many times."""
    images = panned(count, height, width, seed=seed, speed=3)
    add_shapes(images, height // 4, seed=seed)
    with write_video(path, height, width, fps=FPS) as writer:
        for number in range(times):
            writer.write(images, (np.arange(count) + number * count) / FPS)
    return path


def decode_here(path: Path, wanted: Wanted) -> Iterator[NDArray[np.uint8]]:
    """Give the frames of a film, decoded and resized in this process, with nothing around it."""
    tally = Tally(decoder="pyav", beat=lambda: None)
    shaper: Shaper | None = None
    for shown in DECODERS["pyav"](str(path), wanted, tally):
        shaper = shaper or Shaper(wanted, pixel_aspect=tally.pixel_aspect, rotation=tally.rotation)
        image = np.empty((wanted.height, wanted.width, 3), np.uint8)
        shaper.shape(shown.frame, image)
        yield image


def _frames_in(path: Path) -> int:
    """Return how many frames a file has; 0 if it is no film or a damaged one."""
    try:
        return sum(1 for _ in decode_here(path, VideoConfig().wanted()))
    except VideoFault:
        return 0


def _decode_all(sources: list[Path]) -> int:
    return sum(1 for path in sources for _ in decode_here(path, VideoConfig().wanted()))


def _ingest(settings: BenchSettings, sources: list[Path], config: VideoConfig, workers: int = 1) -> Store:
    return ingest_video(sources, settings.folder / "video.bx", config, workers=workers, overwrite=True).store


def _end_to_end(settings: BenchSettings, sources: list[Path]) -> BenchRow:
    count = _decode_all(sources)
    return against(
        "ingest-video: files to a store, one worker",
        "frames/s",
        Contender(work=lambda: _ingest(settings, sources, VideoConfig()), amount=count),
        Contender(work=lambda: _decode_all(sources), amount=count),
        settings.repeats,
        called="decoding and resizing alone",
        targets=(Target("ratio", ">=", 0.8),),
        note=f"{count} frames of {len(sources)} films to 128 x 128, raw Zarr",
    )


def _maps(settings: BenchSettings, sources: list[Path]) -> list[BenchRow]:
    """Measure regions and motion of frames in memory, as a share of the processor time of decoding them."""
    images = np.stack(list(itertools.islice(decode_here(sources[0], VideoConfig().wanted()), 4 * MAP_FRAMES)))
    decoding = statistics.median(
        seconds(lambda: _decode_all(sources[:1]), "processor") for _ in range(settings.repeats)
    ) / _decode_all(sources[:1])

    def row(name: str, config: RegionConfig, target: tuple[Target, ...]) -> BenchRow:
        def all_maps() -> None:
            for first in range(0, len(images), MAP_FRAMES):
                region_maps(images[first : first + MAP_FRAMES], images[first - 1] if first else None, config)

        all_maps()
        taken = statistics.median(seconds(all_maps, "processor") for _ in range(settings.repeats)) / len(images)
        return BenchRow(
            name=f"ingest-video: {name}",
            value=taken / (taken + decoding),
            unit="of decoding",
            targets=target,
            note=f"{1e6 * taken:.0f} us a frame, decoding and resizing {1e6 * decoding:.0f}",
        )

    return [
        row("regions and motion", RegionConfig(), (Target("value", "<=", 0.1),)),
        row("adaptive regions and motion", RegionConfig(adaptive=True), ()),
    ]


def _child(settings: BenchSettings, sources: list[Path]) -> BenchRow:
    """Measure decoding in a process of its own, frames sent over a pipe, against decoding here."""
    count = _decode_all(sources)
    with DecoderProcess() as decoder:

        def all_frames() -> int:
            return sum(len(frames.times) for path in sources for frames in decoder.frames(path, VideoConfig().wanted()))

        return against(
            "ingest-video: decoding in a child process",
            "frames/s",
            Contender(work=all_frames, amount=count),
            Contender(work=lambda: _decode_all(sources), amount=count),
            settings.repeats,
            called="decoding here",
            targets=(Target("ratio", ">=", 0.85),),
            note="frames sent over a pipe",
        )


def _two_workers(settings: BenchSettings, sources: list[Path]) -> BenchRow:
    # Small parts, so that there is work for both; the start of their processes is measured too.
    config = VideoConfig(part_bytes=max(4096, min(1 << 24, round(settings.megabytes * 1e6 / 8))))
    count = _decode_all(sources)
    return against(
        "ingest-video: two workers",
        "frames/s",
        Contender(work=lambda: _ingest(settings, sources, config, workers=2), amount=count),
        Contender(work=lambda: _ingest(settings, sources, config), amount=count),
        settings.repeats,
        called="one worker",
        targets=(Target("ratio", ">=", 1.7),),
        note=f"each has a decoding process beside it; the start of processes included, {count} frames",
    )


def _codecs(settings: BenchSettings, sources: list[Path]) -> list[BenchRow]:
    """Measure the size of frames under every codec, and how fast a store of them is made."""
    rows = []
    for codec in CODECS:
        config = VideoConfig(layout=VideoLayout(frame_codec=codec))
        work = partial(_ingest, settings, sources, config)
        taken = statistics.median(seconds(work) for _ in range(settings.repeats))
        manifest = Store.open(settings.folder / "video.bx").manifest
        size = sum(file.size for part in manifest.parts for file in part.files)
        frames, raw = sum(part.frames for part in manifest.parts), sum(part.n_bytes for part in manifest.parts)
        rows.append(
            BenchRow(
                name=f"ingest-video: size of frames, {codec}",
                value=size / raw,
                unit="x raw",
                note=f"{frames / taken:.0f} frames/s, one worker",
                figures={"frames_per_second": frames / taken},
            )
        )
    return rows


def _memory(settings: BenchSettings) -> list[BenchRow]:
    """Measure what a worker and its decoder hold at 1080p, for frames kept so large, of a short film and a long one."""
    name = "ingest-video: memory of a worker at 1080p"
    if importlib.util.find_spec("psutil") is None:
        note = "not measured: No module named 'psutil'; pip install 'bytropix[bench]'"
        return [BenchRow(name=name, value=None, unit="MiB", note=note)]
    peaks = []
    short, long = SHORT_AND_TIMES[settings.megabytes >= LEAST_LONG]
    for times in (1, long):
        film = write_film(settings.folder / f"1080p-{times}.mp4", 1080, 1920, short, 0, times)
        words = ["ingest", "video", str(film), "--out", str(settings.folder / f"1080p-{times}.bx"), "--workers", "1"]
        peaks.append(peak_of([*words, "--size", "1080", "1920", "--val-fraction", "0"]) / 2**20)
    return [
        BenchRow(
            name=name,
            value=peaks[1],
            unit="MiB",
            baseline=peaks[0],
            ratio=peaks[1] / peaks[0],
            against=f"a film of {short} frames",
            targets=(Target("value", "<=", 600), Target("ratio", "<=", 1.15)),
            note=f"{long * short} frames kept at 1080 x 1920; its decoder's process included",
        )
    ]
