"""Ways to get random clips of 16 frames, each measured in a process of its own: all of them read the same clips.

ClipOrder of the raw store -> clips -> a stream of a store | a memmap of its frames | decoding from the films
                           -> batches u8 [B, 16, h, w, 3] -> clips/s, first batch, memory
"""

import importlib
import importlib.util
import multiprocessing
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.clip_stream import ClipStream
from bytropix.datasets.store import Store
from bytropix.jobs.bench.loaders.measure import Clock, held_bytes
from bytropix.jobs.bench.loaders.ours import load_numba

BATCH = 16
SEED = 0
RAW, FRAMES, FILMS = "zarr-raw.bx", "frames.npy", "films"
WARM_SECONDS, MOST_SECONDS = 0.5, 2.0

Batches = Iterator[NDArray[np.uint8]]


def stored_name(layout: str) -> str:
    """Return the folder of the store in a layout."""
    return f"{layout.replace(' ', '-')}.bx"


def stream_of(folder: Path, layout: str, *, prefetch: bool = True) -> ClipStream:
    """Return the stream of a store."""
    return ClipStream(Store.open(folder / stored_name(layout)), batch=BATCH, seed=SEED, prefetch=prefetch)


def _streamed(layout: str, *, prefetch: bool) -> Callable[[Path], Batches]:
    def batches(folder: Path) -> Batches:
        return (batch.frames.numpy() for batch in stream_of(folder, layout, prefetch=prefetch))

    return batches


def _mapped(folder: Path) -> Batches:
    """Copy the same clips out of a file of all frames, a batch at a time."""
    stream = stream_of(folder, "zarr raw")
    sizes = [part.frames for part in Store.open(folder / RAW).video_parts("train")]
    first = np.cumsum([0, *sizes])
    frames = np.load(folder / FRAMES, mmap_mode="r")
    for number in count():
        clips = stream.order.clips(BATCH * number + np.arange(BATCH))
        batch = np.empty((BATCH, stream.rule.frames, *frames.shape[1:]), np.uint8)
        for row, start in enumerate((first[clips.parts] + clips.starts).tolist()):
            batch[row] = frames[start : start + stream.rule.frames]
        yield batch


def _films_of(folder: Path) -> list[Path]:
    """Return the film of each video of the store."""
    rows = [row for part in Store.open(folder / RAW).video_parts("train") for row in part.video_meta()]
    return [folder / FILMS / Path(row["source"]).name for row in rows if row["first"] == 0]


def _decoded(read: Callable[[Path], Callable[[int, int, int, int], NDArray[np.uint8]]]) -> Callable[[Path], Batches]:
    """Return a loader that decodes each clip from its film, which stays open."""

    def batches(folder: Path) -> Batches:
        stream = stream_of(folder, "zarr raw")
        _, height, width, _ = shape = next(iter(_mapped(folder))).shape[1:]
        films = [read(film) for film in _films_of(folder)]
        for number in count():  # one clip at a time, as each takes long
            clips = stream.order.clips(np.array([number]))
            video, start = int(clips.videos[0]), int(clips.offsets[0])
            yield films[video](start, start + shape[0], height, width)[None]

    return batches


def _decord(film: Path) -> Callable[[int, int, int, int], NDArray[np.uint8]]:
    import decord

    readers: list[Any] = []

    def clip(start: int, stop: int, height: int, width: int) -> NDArray[np.uint8]:
        if not readers:
            readers.append(decord.VideoReader(str(film), width=width, height=height))
        found: NDArray[np.uint8] = readers[0].get_batch(range(start, stop)).asnumpy()
        return found

    return clip


def _torchcodec(film: Path) -> Callable[[int, int, int, int], NDArray[np.uint8]]:
    import torch

    torchcodec, decoders = importlib.import_module("torchcodec.decoders"), list[Any]()

    def clip(start: int, stop: int, height: int, width: int) -> NDArray[np.uint8]:
        if not decoders:
            decoders.append(torchcodec.VideoDecoder(str(film)))
        frames = decoders[0].get_frames_in_range(start, stop).data
        small = torch.nn.functional.interpolate(frames, (height, width), mode="bilinear", antialias=True)
        return small.permute(0, 2, 3, 1).contiguous().numpy()

    return clip


TIMED = ("zarr raw", "zarr zstd", "zarr jpeg", "zarr h264", "tar jpeg")
"""Layouts that are measured."""
OURS = {name: (name, True) for name in TIMED} | {f"{name}, no prefetch": (name, False) for name in TIMED[::2]}
"""Layout and whether batches are made ahead, of each way to run our own stream."""
DECODERS = {"decord": _decord, "torchcodec": _torchcodec}
LOADERS: dict[str, Callable[[Path], Batches]] = {
    **{name: _streamed(layout, prefetch=prefetch) for name, (layout, prefetch) in OURS.items()},
    "memmap": _mapped,
    **{name: _decoded(read) for name, read in DECODERS.items()},
}


def installed(decoder: str) -> bool:
    """Whether a decoder is there."""
    return importlib.util.find_spec(decoder) is not None


def measure(loader: str, folder: Path) -> dict[str, Any]:
    """Return what a loader makes of it in a fresh process; see `_measured`."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(_measured, loader, folder).result()


def _measured(loader: str, folder: Path) -> dict[str, Any]:
    """Measure a loader here.

    Returns:
        `first_batch_ms`, from a closed store or film on; `clips_per_s` and `cpu_ms_per_clip` once it has run for a
        while; `memory_mib`, what it holds then beyond what it held before, without mapped files, `None` without
        psutil; `crc`, of the first batch.
    """
    load_numba()
    held = held_bytes()
    began = time.perf_counter()
    batches = LOADERS[loader](folder)
    first = next(batches)
    first_batch_ms = 1e3 * (time.perf_counter() - began)
    crc = zlib.crc32(first.tobytes())
    del first
    began = time.perf_counter()
    while time.perf_counter() - began < WARM_SECONDS:
        next(batches)
    clock, clips = Clock(), 0
    while not clips or clock.wall < MOST_SECONDS:
        clips += len(next(batches))
    seconds, processor = clock.wall, clock.processor
    holds = held_bytes()
    return {
        "first_batch_ms": first_batch_ms,
        "clips_per_s": clips / seconds,
        "cpu_ms_per_clip": 1e3 * processor / clips,
        "memory_mib": None if held is None or holds is None else (holds - held) / 2**20,
        "crc": crc,
    }
