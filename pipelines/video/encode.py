"""Frames into an H.264 file that every player shows.

    frames u8 [k, h, w, 3], seconds -> yuv420p -> libx264 or NVENC -> .writing-NAME -> NAME, index first

Each frame keeps its time to the 90,000th of a second. The CPU encoder always runs on as many threads, so a file has the
same bytes on any machine. Whether NVENC works is found by encoding a frame with it: that it is compiled in, as PyAV has
it everywhere, says nothing about the machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bytropix.datasets.store.commit import BESIDE, flush_file, flush_folder, rename
from bytropix.errors import ConfigError, StoreError

EncoderName = Literal["auto", "cpu", "nvenc"]
TICKS = 90_000  # a second
THREADS = 4  # of the CPU encoder; its bytes depend on how many there are
PROBE_SIDE = 256  # pixels; NVENC refuses very small frames
TO_TV_RANGE, SMPTE_170M = 1, 6  # how FFmpeg numbers what players have to know about the colours


@dataclass(frozen=True, slots=True)
class Encoder:
    """An H.264 encoder."""

    codec: str
    """How FFmpeg calls it."""
    quality: str
    """Which option of its takes the crf: the same scale of 0 to 51."""
    options: dict[str, str]
    """What else it is told."""


ENCODERS = {
    "cpu": Encoder("libx264", "crf", {"preset": "medium"}),
    "nvenc": Encoder("h264_nvenc", "qp", {"preset": "p7", "tune": "hq", "rc": "constqp"}),
}


def choose_encoder(name: EncoderName) -> str:
    """Return which of `ENCODERS` does the work: the one that is named, or for "auto" NVENC where it works.

    Raises:
        ConfigError: NVENC was asked for and does not work here.
    """
    if name == "cpu":
        return name
    fault = _nvenc_fault()
    if fault and name == "nvenc":
        raise ConfigError(f"encoder nvenc does not work on this machine ({fault}); leave --encoder at auto or take cpu")
    return "cpu" if fault else "nvenc"


def check_even(height: int, width: int) -> None:
    """Check that a size fits yuv420p, which has one colour for two by two pixels.

    Raises:
        ConfigError: A side is odd or less than 2.
    """
    if height < 2 or width < 2 or height % 2 or width % 2:
        near = f"{max(2, height // 2 * 2)} {max(2, width // 2 * 2)}"
        raise ConfigError(f"size {height} {width}: H.264 in yuv420p needs even sides; take --size {near}")


class VideoWriter:
    """Writes the frames of one file. Use `write_video`, which opens and closes it."""

    def __init__(self, stream: VideoStream, container: av.container.OutputContainer) -> None:
        self.frames = 0
        self._stream, self._container = stream, container
        self._reformatter = VideoReformatter()
        self._last = -1

    def write(self, images: NDArray[np.uint8], times: NDArray[np.float64]) -> None:
        """Append frames.

        Args:
            images: u8 [k, h, w, 3].
            times: f64 [k], when each is shown, in seconds from the file's start, rising.
        """
        for image, time in zip(images, times.tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = self._reformatter.reformat(frame, format="yuv420p", dst_colorspace=SMPTE_170M)
            # Two frames may not share a tick, however close they are.
            frame.pts = self._last = max(self._last + 1, round(time * TICKS))
            frame.time_base = Fraction(1, TICKS)
            self._container.mux(self._stream.encode(frame))
        self.frames += len(images)


@contextmanager
def write_video(
    path: Path, height: int, width: int, *, fps: float, crf: int = 18, encoder: str = "cpu", threads: int = THREADS
) -> Iterator[VideoWriter]:
    """Give a writer of an MP4 file, which takes its name when the block ends well and vanishes otherwise.

    Args:
        path: The file; its folder has to be there.
        height: Pixels, even.
        width: Pixels, even.
        fps: Frames a second, for what the header says; the frames keep their times.
        crf: Quality, 0 (none lost) to 51; 18 is hard to tell from the source, 23 is x264's default.
        encoder: One of `ENCODERS`.
        threads: Threads of the CPU encoder; another count gives other bytes.

    Raises:
        ConfigError: A side is odd.
        StoreError: The disk is full, or the place cannot be written.
    """
    check_even(height, width)
    beside = path.with_name(f"{BESIDE}{path.name}")
    try:
        with av.open(str(beside), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = _stream(container, height, width, fps, crf, encoder, threads)
            yield VideoWriter(stream, container)
            container.mux(stream.encode(None))
        flush_file(beside)
        rename(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(
                f"{path}: cannot be written ({error.strerror}); free some space or name another"
            ) from error
        raise
    flush_folder(path.parent)


def _stream(
    container: av.container.OutputContainer,
    height: int,
    width: int,
    fps: float,
    crf: int,
    encoder: str,
    threads: int,
) -> VideoStream:
    """Add the video stream to an open file."""
    kind = ENCODERS[encoder]
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream(kind.codec, rate=rate, options={kind.quality: str(crf), **kind.options})
    assert isinstance(stream, VideoStream)
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, TICKS)
    context.thread_count = threads
    context.colorspace, context.color_range = SMPTE_170M, TO_TV_RANGE
    return stream


@cache
def _nvenc_fault() -> str:
    """Return why NVENC does not work on this machine; empty where it does."""
    try:
        context = av.CodecContext.create(ENCODERS["nvenc"].codec, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.height = context.width = PROBE_SIDE
        context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 25)
        packets = [*context.encode(av.VideoFrame(PROBE_SIDE, PROBE_SIDE, "yuv420p")), *context.encode(None)]
    except (av.FFmpegError, ValueError) as error:
        return str(error)
    return "" if packets else "it gave nothing back"
