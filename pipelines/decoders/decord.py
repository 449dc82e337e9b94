"""A second opinion on request: decord, from the first frame to the last, for files that it is known to read rightly.

    keyframes by PyAV -> anything decord gets wrong? -> decord's frames in order -> times from the packets -> Shown

decord tells neither damage nor wrong frames, hence the look beforehand. What it cannot do is handed on (`retry`).
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from bytropix.pipelines.decoders.contract import VideoFault, Wanted
from bytropix.pipelines.decoders.opening import (
    ends_early,
    frame_rate,
    header_info,
    is_mirrored,
    is_timeless,
    opened,
    rotation_of,
)
from bytropix.pipelines.decoders.shaper import has_alpha
from bytropix.pipelines.decoders.source import Shown, Tally, stated_length, timed

# Containers that it reads as PyAV does; of an MPEG stream it gives the last frame over and over, or hangs.
CONTAINERS = {"mov", "matroska", "avi", "flv", "asf", "ogg"}
# This bit of a VP8 packet says that its frame is shown; decord counts the others too.
VP8_SHOWN = 0x10


@dataclass(slots=True)
class Look:
    """What the packets and keyframes of a film show."""

    stamps: list[int] = field(default_factory=list)
    """Time stamps of its frames, in order."""
    sizes: set[tuple[int, int]] = field(default_factory=set)
    """Height and width of its frames, upright."""
    oddities: set[str] = field(default_factory=set)
    """What decord is known to get wrong."""


def decode_decord(path: str, wanted: Wanted, tally: Tally) -> Iterator[Shown]:
    """Give the frames of a file as decord decodes them; it turns them upright itself.

    Raises:
        VideoFault: It is not installed, or the file is none that it is known to read rightly.
    """
    if importlib.util.find_spec("decord") is None:
        raise VideoFault(path, "decord is not installed (the extra bytropix[decord])", retry=True)
    with opened(path, wanted.most_pixels) as (container, stream):
        look = _look(path, container, stream, tally)
        step = 1 / (frame_rate(stream) or 25)
        tick = stream.time_base
    if look.oddities:
        raise VideoFault(path, f"decord is not to be trusted with it: {', '.join(sorted(look.oddities))}", retry=True)
    assert tick is not None
    length = stated_length(tally.info) if tally.info else 0.0
    yield from timed(_frames(path, look, tick, tally), step, length)


def _look(path: str, container: InputContainer, stream: VideoStream, tally: Tally) -> Look:
    """Read all packets and decode the keyframes: sizes and fields change nowhere else."""
    look = Look()
    name = container.format.name
    if not CONTAINERS & set(name.split(",")):
        look.oddities.add(f"container {name}")
    if len(container.streams.video) > 1:
        look.oddities.add("several video streams")
    if is_timeless(container, stream):
        look.oddities.add("an absurd rate")
    stream.codec_context.thread_count = 1
    stream.codec_context.skip_frame = "NONKEY"
    try:
        for packet in container.demux(stream):
            if packet.size:
                tally.packets += 1
                _note_packet(packet, stream.codec_context.name, look)
            for frame in packet.decode():
                _note_keyframe(frame, look)
                if tally.info is None:
                    tally.info = header_info(container, stream, rotation_of(frame))
                    tally.pixel_aspect = tally.info.pixel_aspect
            tally.beat()
    except av.error.FFmpegError:
        look.oddities.add("damaged")
    if ends_early(path, container, stream, tally.packets):
        look.oddities.add("cut off")
    if len(look.sizes) > 1:
        look.oddities.add("changes of size")
    look.stamps.sort()
    return look


def _note_packet(packet: "av.Packet[VideoStream]", codec: str, look: Look) -> None:
    """Note what a packet shows."""
    if packet.pts is None:
        look.oddities.add("frames without a time")
    elif packet.is_discard:
        look.oddities.add("an edit list that cuts")
    else:
        look.stamps.append(packet.pts)
    if packet.is_corrupt:
        look.oddities.add("damaged")
    if codec == "vp8" and not bytes(packet)[0] & VP8_SHOWN:
        look.oddities.add("hidden frames")


def _note_keyframe(frame: av.VideoFrame, look: Look) -> None:
    """Note what a keyframe shows."""
    size = (frame.height, frame.width)
    look.sizes.add(size[::-1] if rotation_of(frame) % 180 else size)
    if is_mirrored(frame):
        look.oddities.add("mirrored")
    if frame.interlaced_frame:
        look.oddities.add("interlaced")
    if has_alpha(frame):
        look.oddities.add("transparency")
    if frame.is_corrupt:
        look.oddities.add("damaged")


def _frames(path: str, look: Look, tick: Fraction, tally: Tally) -> Iterator[av.VideoFrame]:
    """Give decord's frames with the stamps of the packets."""
    import decord  # only here, since few have it

    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(look.stamps):
            raise VideoFault(path, f"decord finds {len(reader)} of {len(look.stamps)} frames", retry=True)
        for stamp in look.stamps:
            pixels = np.ascontiguousarray(reader.next().asnumpy())
            if pixels.shape not in {(*size, 3) for size in look.sizes}:
                raise VideoFault(path, f"decord gives frames of the shape {pixels.shape}", retry=True)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = stamp, tick
            tally.frames += 1
            tally.beat()
            yield frame
    except (decord.DECORDError, RuntimeError, StopIteration):  # what it says holds the time of day
        raise VideoFault(path, "decord cannot read it", retry=True) from None
