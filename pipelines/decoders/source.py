"""What every decoder hands to the shaper, and what it counts on the way.

decoder(path, wanted, tally) -> Shown(frame, begin, end), one by one
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av

from bytropix.pipelines.decoders.contract import DecodeReport, VideoFault, VideoInfo, Wanted


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
    frames: int = 0
    bad_packets: int = 0
    corrupt: int = 0
    rotation: int = 0
    """Degrees clockwise that the frames handed on still have to be turned by."""
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


def check_size(path: str, width: int, height: int, most_pixels: int) -> None:
    """Refuse frames that are too large.

    Raises:
        VideoFault: There are more pixels than `most_pixels`.
    """
    if width * height > most_pixels:
        raise VideoFault(path, f"{width} x {height} pixels, more than {most_pixels} in a frame")
