"""What is asked of a decoder and what it answers.

    path + Wanted -> Frames, Frames, ... -> DecodeReport | VideoFault

Nothing here touches a video library, so that the process which asks stays free of them.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError, SourceError

Fit = Literal["crop", "pad", "stretch"]
DecoderName = Literal["auto", "pyav", "decord", "ffmpeg"]

MIB = 2**20
# The libraries alone take 280 MiB of address space (50 MiB of memory).
LEAST_MEMORY = 512 * MIB
MOST_MEMORY = 2**44  # no machine has more, and it is a limit that every system takes
MOST_SECONDS = 10 * 365 * 86400.0  # twice that is still a time that a timer takes
MOST_PIXELS = 2**31 - 1  # that FFmpeg counts to


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The frames that are wanted of a video, and what reading them may cost."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fit: Fit = "crop"
    """`crop` fills the frame and cuts off the overhang, `pad` shows all of it with black bars, `stretch` bends it."""
    fps: float = 0.0
    """Frames a second, picked by time; 0 keeps every frame as it is."""
    decoder: DecoderName = "auto"
    """Who reads it; `auto` is PyAV."""
    stall_seconds: float = 30.0
    """Longest wait for the next decoded frame."""
    file_seconds: float = 6 * 3600.0
    """Longest time spent waiting for one file's frames, in all."""
    memory_bytes: int = 3072 * MIB
    """Address space that the decoding process may have."""
    most_pixels: int = 2**26
    """Most pixels of one frame of the file, as its header or any of its frames says."""

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 16384 and 1 <= self.width <= 16384):
            raise ConfigError(f"size must be 1 to 16384 pixels high and wide, got {self.height} x {self.width}")
        if self.fit not in get_args(Fit):
            raise ConfigError(f"fit must be one of {', '.join(get_args(Fit))}, got {self.fit!r}")
        if not 0 <= self.fps <= 1000:
            raise ConfigError(f"fps must be 0 (every frame) to 1000, got {self.fps}")
        if self.decoder not in get_args(DecoderName):
            raise ConfigError(f"decoder must be one of {', '.join(get_args(DecoderName))}, got {self.decoder!r}")
        for name, flag in (("stall_seconds", "--stall-seconds"), ("file_seconds", "--file-seconds")):
            if not 0 < getattr(self, name) <= MOST_SECONDS:
                raise ConfigError(
                    f"{name} ({flag}) must be positive and at most {MOST_SECONDS:.0f} (10 years), got "
                    f"{getattr(self, name)}"
                )
        if not LEAST_MEMORY <= self.memory_bytes <= MOST_MEMORY:
            raise ConfigError(
                f"memory_bytes (--memory-bytes) must lie in {LEAST_MEMORY}..{MOST_MEMORY} (512 MiB to 16 TiB), got "
                f"{self.memory_bytes}"
            )
        if not 1 <= self.most_pixels <= MOST_PIXELS:
            raise ConfigError(f"most_pixels (--most-pixels) must lie in 1..{MOST_PIXELS}, got {self.most_pixels}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video's header and first frame say."""

    width: int
    """Pixels after the rotation."""
    height: int
    """Pixels after the rotation."""
    rotation: int = 0
    """Degrees clockwise that a stored frame is turned by to be shown: 0, 90, 180 or 270."""
    pixel_aspect: float = 1.0
    """Width of a pixel over its height, after the rotation."""
    fps: float = 0.0
    """Frames a second; 0 where the file does not say."""
    duration: float = 0.0
    """Seconds; 0 where the file does not say."""
    frames: int = 0
    """Frames that the header promises; 0 where it does not say."""
    codec: str = ""
    container: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeReport:
    """How reading a file went."""

    decoder: str
    frames: int = 0
    """Frames decoded, before any was picked."""
    bad_packets: int = 0
    """Packets that could not be decoded."""
    corrupt: int = 0
    """Frames that the decoder gave out but flagged as damaged."""
    info: VideoInfo | None = None
    """None where the file could not be opened."""


class Frames(NamedTuple):
    """Some frames in a row."""

    images: NDArray[np.uint8]
    """[k, height, width, 3], RGB."""
    times: NDArray[np.float64]
    """[k], seconds from the first frame shown, rising."""


class VideoFault(SourceError):  # noqa: N818  a fault of the file, not of the program
    """A file that could not be read, or not without damage.

    Args:
        path: The file.
        reason: Why; short, and the same every time.
        frames_before: Frames given out before.
        retry: Whether another decoder may do better.
    """

    def __init__(self, path: str, reason: str, *, frames_before: int = 0, retry: bool = False) -> None:
        super().__init__(path, reason)
        self.path, self.reason, self.frames_before, self.retry = path, reason, frames_before, retry

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def report_from(row: dict[str, Any]) -> DecodeReport:
    """Return a report that has come as JSON."""
    info = row.pop("info")
    return DecodeReport(info=VideoInfo(**info) if info else None, **row)
