"""What every decoder hands to the shaper, and what it counts on the way.

decoder(path, wanted, tally): frames with stamps -> in_stamp_order, for AVI -> timed -> Shown(frame, begin, end)
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import av

from bytropix.pipelines.decoders.clock import Clock
from bytropix.pipelines.decoders.contract import DecodeReport, VideoFault, VideoInfo, Wanted

# AVI has no times of presentation, and FFmpeg works them out for all codecs but these.
REORDERED = {"h264", "hevc"}
# So many frames may be decoded before one that is shown before them, and the other way round.
DEEPEST = 16


class Shown(NamedTuple):
    """A frame of full size and when it is shown."""

    frame: av.VideoFrame
    begin: float
    """Seconds from the first frame."""
    end: float
    """When the next frame is shown."""


@dataclass(slots=True)
class Tally:
    """What a decoder has seen of a file so far."""

    decoder: str
    beat: Callable[[], None]
    """To be called for every decoded frame and every bad packet: the work goes on."""
    info: VideoInfo | None = None
    packets: int = 0
    """Packets of the film that hold anything."""
    frames: int = 0
    bad_packets: int = 0
    corrupt: int = 0
    rotation: int = 0
    """Degrees clockwise that the frames handed on still have to be turned by."""
    mirrored: bool = False
    """Whether the frames handed on still have to be put upside down, before they are turned."""
    pixel_aspect: float = 1.0
    """Width of a pixel of the frames handed on over its height."""

    def report(self) -> DecodeReport:
        """Return the counts."""
        return DecodeReport(
            decoder=self.decoder,
            frames=self.frames,
            bad_packets=self.bad_packets,
            corrupt=self.corrupt,
            info=self.info,
        )


Decoder = Callable[[str, Wanted, Tally], Iterator[Shown]]


def timed(frames: Iterator[av.VideoFrame], step: float, length: float = 0.0) -> Iterator[Shown]:
    """Give frames with the times at which they are shown, one frame late: only the next one ends it.

    Args:
        frames: In the order in which they are shown.
        step: Seconds from one frame to the next where the file does not say.
        length: Seconds of the film by its header; 0 where it says nothing.
    """
    clock = Clock(step, length)
    before: av.VideoFrame | None = None
    begin = 0.0
    for frame in frames:
        time = clock.seconds(frame.time)
        if before is not None:
            yield Shown(before, begin, time)
        before, begin = frame, time
    if before is not None:
        stated = float(before.duration * before.time_base) if before.duration and before.time_base else step
        yield Shown(before, begin, clock.end(stated))


def in_stamp_order(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Give frames with their stamps sorted, at most `DEEPEST` late; one without a stamp stays without.

    Args:
        frames: In the order in which they are shown, but with the stamps at which they were decoded.
    """
    waiting: deque[av.VideoFrame] = deque()
    stamps: list[int] = []

    def earliest() -> av.VideoFrame:
        frame = waiting.popleft()
        if frame.pts is not None:
            frame.pts = heappop(stamps)
        return frame

    for frame in frames:
        waiting.append(frame)
        if frame.pts is not None:
            heappush(stamps, frame.pts)
        if len(waiting) > DEEPEST:
            yield earliest()
    while waiting:
        yield earliest()


def stated_length(info: VideoInfo) -> float:
    """Return the seconds of a film by its header; 0 where FFmpeg has them from the stamps themselves."""
    return 0.0 if "mpeg" in info.container else info.duration


def check_size(path: str, width: int, height: int, most_pixels: int) -> None:
    """Refuse frames that are too large.

    Raises:
        VideoFault: There are more pixels than `most_pixels`.
    """
    if width * height > most_pixels:
        raise VideoFault(path, f"{width} x {height} pixels, more than {most_pixels} in a frame")
