"""Small films made here, a decoding process, and what is read of a file through it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from bytropix.pipelines.decoders import DecodeReport, DecoderProcess, VideoFault, Wanted

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Read:
    """All that came of a file."""

    images: Images
    times: NDArray[np.float64]
    fault: VideoFault | None
    report: DecodeReport | None


def make_film(
    path: Path,
    images: Sequence[Images] | Images,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    stamps: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    prepare: Callable[[Any], None] | None = None,
    container_options: dict[str, str] | None = None,
    source: str = "rgb24",
) -> Path:
    """Encode frames u8[h, w, 3] (or [h, w, 4] with `source` rgba) at a rate, or at stamps in milliseconds."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if prepare:
            prepare(stream)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), source)
            if stamps is not None:
                frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def grey_film(path: Path, levels: Sequence[int], *, height: int = 48, width: int = 64, **how: Any) -> Path:
    """Encode frames of one grey each, which no codec mistakes for one another."""
    return make_film(path, [np.full((height, width, 3), level, np.uint8) for level in levels], **how)


def moving(count: int, height: int = 96, width: int = 128) -> Images:
    """Return frames u8[count, height, width, 3] of a bright square that moves over a ramp."""
    rows, columns = np.mgrid[:height, :width]
    films = np.zeros((count, height, width, 3), np.uint8)
    films[..., 0] = columns * 255 // width
    films[..., 1] = rows * 255 // height
    for number in range(count):
        left = number * 3 % (width - 24)
        films[number, height // 3 : height // 3 + 24, left : left + 24] = 255
    return films


def read(decoder: DecoderProcess, path: Path, wanted: Wanted) -> Read:
    """Read a file whole, keeping its fault."""
    images, times, fault = [], [], None
    try:
        for batch in decoder.frames(path, wanted):
            images.append(batch.images)
            times.append(batch.times)
    except VideoFault as found:
        fault = found
    empty = np.zeros((0, wanted.height, wanted.width, 3), np.uint8)
    return Read(np.concatenate([empty, *images]), np.concatenate([np.zeros(0), *times]), fault, decoder.report)


@pytest.fixture(scope="session")
def decoder() -> Iterator[DecoderProcess]:
    """Return a decoding process that all tests share; one that a test kills starts again."""
    with DecoderProcess() as process:
        yield process
