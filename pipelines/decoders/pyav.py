"""The default decoder: PyAV, one pass from the first packet to the last.

    packets -> frames; what cannot be decoded is counted and skipped -> times, rising -> Shown

Nothing seeks: after a jump many files give wrong frames, some without a word.
"""

from collections.abc import Iterator

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from bytropix.pipelines.decoders.clock import Clock
from bytropix.pipelines.decoders.contract import VideoFault, Wanted
from bytropix.pipelines.decoders.opening import (
    MAYBE_STILL,
    frame_rate,
    header_info,
    opened,
    pixel_aspect,
    rotation_of,
)
from bytropix.pipelines.decoders.source import Shown, Tally, check_size


def decode_pyav(path: str, wanted: Wanted, tally: Tally) -> Iterator[Shown]:
    """Give the frames of a file's first film stream as they are shown.

    Raises:
        VideoFault: It cannot be read, or was damaged or cut off (after all its frames).
    """
    with opened(path, wanted.most_pixels) as (container, stream):
        stream.codec_context.thread_count = 1
        step = 1 / (frame_rate(stream) or 25)
        clock = Clock(step, joined="mpeg" in container.format.name)
        before: av.VideoFrame | None = None
        begin = 0.0
        for frame in decoded_frames(container, stream, tally):
            check_size(path, frame.width, frame.height, wanted.most_pixels)
            time = clock.seconds(frame.time)
            if before is None:
                _look(container, stream, frame, tally)
            else:
                yield Shown(before, begin, time)
            before, begin = frame, time
        if before is None:
            _nothing(path, tally)
        elif tally.frames == 1 and container.format.name in MAYBE_STILL:
            raise VideoFault(path, "a still image")
        else:
            yield Shown(before, begin, begin + _shown_for(before, step))
    if tally.bad_packets or tally.corrupt:
        raise VideoFault(
            path, f"damaged: {tally.bad_packets} packets unreadable, {tally.corrupt} of {tally.frames} frames corrupt"
        )


def decoded_frames(container: InputContainer, stream: VideoStream, tally: Tally) -> Iterator[av.VideoFrame]:
    """Give every frame that can be decoded, and count what cannot."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # reading ends here, as it does for FFmpeg itself
            tally.bad_packets += 1
            packet = None
        try:
            frames = packet.decode() if packet is not None else stream.codec_context.decode(None)
        except av.error.EOFError:
            frames = []
        except av.error.FFmpegError:
            tally.bad_packets += 1
            frames = []
        tally.beat()
        for frame in frames:
            tally.frames += 1
            tally.corrupt += bool(frame.is_corrupt)
            tally.beat()
            yield frame
        if packet is None:
            return


def _look(container: InputContainer, stream: VideoStream, frame: av.VideoFrame, tally: Tally) -> None:
    """Note what the header and the first frame say."""
    tally.rotation, tally.pixel_aspect = rotation_of(frame), pixel_aspect(stream)
    tally.info = header_info(container, stream, tally.rotation)


def _nothing(path: str, tally: Tally) -> None:
    """Say why there was no frame."""
    if tally.bad_packets:
        raise VideoFault(path, f"damaged: 0 frames, {tally.bad_packets} packets unreadable")
    raise VideoFault(path, "0 frames")


def _shown_for(frame: av.VideoFrame, step: float) -> float:
    """Return for how many seconds the last frame is shown."""
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else step
