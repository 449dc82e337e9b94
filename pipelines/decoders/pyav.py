"""The default decoder: PyAV, one pass from the first packet to the last.

    packets -> frames; what cannot be decoded is counted and skipped -> whole frames -> times, rising -> Shown

Nothing seeks: after a jump many files give wrong frames, some without a word.
"""

from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from bytropix.pipelines.decoders.contract import VideoFault, Wanted
from bytropix.pipelines.decoders.fields import deinterlaced
from bytropix.pipelines.decoders.opening import (
    MAYBE_STILL,
    complaints,
    ends_early,
    frame_rate,
    header_info,
    is_mirrored,
    is_timeless,
    opened,
    pixel_aspect,
    refuse_hunger,
    rotation_of,
)
from bytropix.pipelines.decoders.source import REORDERED, Shown, Tally, check_size, in_stamp_order, stated_length, timed

# A film that ends so much before its header says has lost something; less is a matter of rounding.
SHORT_SECONDS = 0.1
SHORT_FRAMES = 2
# Containers that FFmpeg reads past damage in silence but for what it logs: whole frames may be gone.
LOUD = {"matroska,webm", "nut", "mxf", "ivf"}
# FFmpeg takes times that go back by much for a counter of 33 bits that has begun anew, and goes on from there.
WRAPPED = 2**32
# The flag that a join causes comes so many packets before it at most; what its parser holds back makes two.
FLAGGED_BEFORE = 2


def decode_pyav(path: str, wanted: Wanted, tally: Tally) -> Iterator[Shown]:
    """Give the frames of a file's first film stream as they are shown.

    Raises:
        VideoFault: It cannot be read, or was damaged or cut off (after all its frames).
    """
    with opened(path, wanted.most_pixels) as (container, stream):
        stream.codec_context.thread_count = 1
        frames = checked_frames(path, container, stream, wanted.most_pixels, tally)
        if container.format.name == "avi" and stream.codec_context.name in REORDERED:
            frames = in_stamp_order(frames)
        frames = deinterlaced(frames, stream)
        step = 1 / (frame_rate(stream) or 25)
        length, end = stated_length(header_info(container, stream, rotation=0)), 0.0
        for shown in timed(frames, step, length):
            end = shown.end
            if tally.frames == 1 and container.format.name in MAYBE_STILL:
                raise VideoFault(path, "a still image")
            yield shown
        judge(path, container, stream, tally, end)


def checked_frames(
    path: str, container: InputContainer, stream: VideoStream, most_pixels: int, tally: Tally
) -> Iterator[av.VideoFrame]:
    """Give the frames that can be decoded; note what the first one says, and refuse one that is too large."""
    timeless = is_timeless(container, stream)
    for frame in decoded_frames(container, stream, tally):
        check_size(path, frame.width, frame.height, most_pixels)
        if tally.info is None:
            tally.rotation, tally.pixel_aspect = rotation_of(frame), pixel_aspect(stream)
            tally.info, tally.mirrored = header_info(container, stream, tally.rotation), is_mirrored(frame)
        if timeless:
            frame.pts, frame.duration = None, 0
        yield frame


def decoded_frames(container: InputContainer, stream: VideoStream, tally: Tally) -> Iterator[av.VideoFrame]:
    """Give every frame that can be decoded, and count what cannot."""
    packets = container.demux(stream)
    going = True
    joins = Joins(possible="mpegts" in container.format.name)
    while going:
        bad = False
        frames: list[av.VideoFrame] = []
        try:
            with complaints() as log:
                packet = next(packets, None)
            bad = any(who in LOUD for _, who, _ in log)
        except av.error.FFmpegError as error:  # reading ends here, as it does for FFmpeg itself
            refuse_hunger(error)
            packet, bad = None, True
        going = packet is not None
        try:
            frames = packet.decode() if packet is not None else stream.codec_context.decode(None)
        except av.error.EOFError:
            pass
        except av.error.FFmpegError as error:
            refuse_hunger(error)
            # Some decoders call it bad data when they get no memory for a frame; then there is none here either.
            np.empty((stream.codec_context.height, stream.codec_context.width, 4), np.uint8)
            bad = True
        if packet is not None:
            tally.packets += packet.size > 0
            tally.bad_packets -= joins.excuses(packet, bad=bad)
            bad = bad or packet.is_corrupt
        tally.bad_packets += bad
        tally.beat()
        for frame in frames:
            tally.frames += 1
            tally.corrupt += bool(frame.is_corrupt)
            yield frame


class Joins:
    """Tells where recordings have been joined, one behind the other, from where packets were lost.

    MPEG transport packets are numbered, and FFmpeg flags a packet just before the place where the numbers do not go on:
    before a join as before a loss. But only at a join do the times go back.

    Args:
        possible: Whether the container is one whose flags may come of a join.
    """

    def __init__(self, *, possible: bool) -> None:
        self._possible = possible
        self._since = FLAGGED_BEFORE + 1
        self._time: int | None = None

    def excuses(self, packet: "av.Packet[VideoStream]", *, bad: bool) -> bool:
        """Return whether a packet has been called bad for a join that shows only now.

        Args:
            packet: The next one.
            bad: Whether there is something wrong with it besides its flag.
        """
        if not self._possible or packet.dts is None:
            return False
        self._since += 1
        joined = self._time is not None and not 0 <= packet.dts - self._time < WRAPPED
        excused = joined and self._since <= FLAGGED_BEFORE
        if packet.is_corrupt and not bad:
            self._since = 0
        elif joined or bad:
            self._since = FLAGGED_BEFORE
        self._time = packet.dts
        return excused


def judge(path: str, container: InputContainer, stream: VideoStream, tally: Tally, end: float) -> None:
    """Say what is wrong with a file whose frames have all been read.

    Args:
        path: The file.
        container: It, opened.
        stream: The stream that was read.
        tally: What was seen of it.
        end: When its last frame ends, in seconds.

    Raises:
        VideoFault: It was cut off or damaged, or has no frame.
    """
    # Only MP4 states how long the film itself is; elsewhere the sound may well go on after it.
    missing = 0.0
    if "mp4" in container.format.name and stream.duration and stream.time_base:
        missing = float(stream.duration * stream.time_base) - end
    step = 1 / (frame_rate(stream) or 25)
    # More than one bad packet, the one that is cut through, is damage elsewhere.
    short = tally.bad_packets <= 1 and missing > max(SHORT_SECONDS, SHORT_FRAMES * step)
    if short or ends_early(path, container, stream, tally.packets):
        raise VideoFault(path, f"cut off: {tally.frames} frames could be read")
    if tally.bad_packets or tally.corrupt:
        raise VideoFault(
            path, f"damaged: {tally.bad_packets} packets unreadable, {tally.corrupt} of {tally.frames} frames corrupt"
        )
    if not tally.frames:
        raise VideoFault(path, "0 frames")
