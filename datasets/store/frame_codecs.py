"""Frames as coded units and back: a unit is a stretch of frames that is decoded by itself.

    frames u8[t,h,w,3], where units stop -> encode_units -> CodedFrames -> decode_unit -> frames of one unit

jpeg: a unit is one frame, a JFIF file. h264: a unit is an mp4 file of one group of pictures, a key frame and frames
that look back only; its times are those of its frames, from 0. The same frames are the same bytes: one thread, no
clock, no name of an encoder. A new codec is one entry of FRAME_CODECS.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.video_part import CodedFrames, UnitCodec
from bytropix.errors import ConfigError

if TYPE_CHECKING:
    from av import Packet, VideoFrame

Frames = NDArray[np.uint8]

TICKS = 90_000  # a second, of an mp4
_START_OF_FRAME = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


@dataclass(frozen=True, slots=True)
class FrameCodec:
    """One way to code frames."""

    encode: Callable[[Frames, NDArray[np.float64], int], bytes]
    """Return a unit, given its frames, their times and a quality."""
    decode: Callable[[bytes, Frames], None]
    """Write the frames of a unit to an array of exactly as many; ValueError if it is none of these."""
    best: int
    worst: int
    """What quality may be: best to worst."""


def encode_units(
    codec: UnitCodec, frames: Frames, pts: NDArray[np.float64], unit_stops: NDArray[np.int64], quality: int
) -> CodedFrames:
    """Return frames coded as units that stop where it says.

    Raises:
        ConfigError: The codec cannot hold frames of this size.
    """
    check_size(codec, frames.shape[1], frames.shape[2])
    stops = np.arange(1, len(frames) + 1) if codec == "jpeg" else unit_stops
    begins = np.concatenate(([0], stops[:-1]))
    encode = FRAME_CODECS[codec].encode
    units = [
        encode(frames[begin:stop], pts[begin:stop], quality)
        for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True)
    ]
    ends = np.cumsum([len(unit) for unit in units], dtype=np.int64)
    count, height, width, rgb = frames.shape
    return CodedFrames(
        codec=codec,
        shape=(count, height, width, rgb),
        data=np.frombuffer(b"".join(units), np.uint8),
        unit_ends=ends,
        unit_stops=stops.astype(np.int64),
    )


def decode_unit(codec: str, data: bytes, out: Frames) -> None:
    """Write the frames of a unit to `out`, u8 [n, h, w, 3].

    Raises:
        ValueError: It holds other frames than so many of this size, or none.
    """
    FRAME_CODECS[codec].decode(data, out)


def check_size(codec: str, height: int, width: int) -> None:
    """Refuse a size that a codec cannot hold.

    Raises:
        ConfigError: It cannot.
    """
    if codec == "h264" and (height % 2 or width % 2):
        raise ConfigError(
            f"frame codec h264 holds frames of even height and width, not {height} x {width}: give another --size, or "
            "--frame-codec raw, zstd or jpeg"
        )
    if codec == "jpeg" and max(height, width) >= 1 << 16:
        raise ConfigError(f"frame codec jpeg holds at most 65,535 pixels a side, not {height} x {width}")


def _encode_jpeg(frames: Frames, pts: NDArray[np.float64], quality: int) -> bytes:
    from PIL import Image  # here and below: a store of raw frames opens without it

    file = io.BytesIO()
    Image.fromarray(frames[0]).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _decode_jpeg(data: bytes, out: Frames) -> None:
    from PIL import Image

    count, height, width, _ = out.shape
    if count != 1 or _jpeg_shape(data) != (8, height, width, 3):
        raise ValueError(f"a JPEG file of another shape than {height} x {width} x 3, or none")
    try:  # in half the time of Image.open, which looks for everything a picture may have
        image = Image.frombytes("RGB", (width, height), data, "jpeg", "RGB", "")
    except (OSError, ValueError) as error:
        raise ValueError(f"a JPEG file that cannot be decoded ({error})") from error
    out[0] = np.asarray(image)


def _jpeg_shape(data: bytes) -> tuple[int, int, int, int]:
    """Return bits, height, width and colours of a JPEG file, from its first frame header; zeros if it has none."""
    place = 2
    while data[:2] == b"\xff\xd8" and place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _START_OF_FRAME:
            height, width = (int.from_bytes(data[at : at + 2], "big") for at in (place + 5, place + 7))
            return data[place + 4], height, width, data[place + 9]
        length = 0 if marker in _ALONE else int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA or (length < 2 and marker not in _ALONE):
            break
        place += 2 + length
    return 0, 0, 0, 0


def _exact() -> Any:
    """Return how colours are converted: the same on every processor."""
    from av.video.reformatter import Interpolation

    return Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def _encode_h264(frames: Frames, pts: NDArray[np.float64], quality: int) -> bytes:
    import av
    from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

    count, height, width, _ = frames.shape
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        stream.codec_context.thread_count = 1
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU601, ColorRange.MPEG
        stream.options = {"crf": str(quality), "preset": "veryfast", "bf": "0", "g": str(count), "sc_threshold": "0"}
        stream.options |= {"flags": "+bitexact", "keyint_min": str(count)}
        packets: list[Packet[Any]] = []
        reformatter = VideoReformatter()
        for image, tick in zip(frames, _ticks(pts), strict=True):
            frame = reformatter.reformat(
                av.VideoFrame.from_ndarray(image, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                interpolation=_exact(),
                threads=1,
            )
            frame.pts, frame.time_base = tick, Fraction(1, TICKS)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        # Without the encoder's note about itself, which takes an eighth of a unit.
        without_notes = av.BitStreamFilterContext("filter_units=remove_types=6", stream)
        for packet in packets:
            for kept in without_notes.filter(packet):
                container.mux(kept)
    return file.getvalue()


def _ticks(pts: NDArray[np.float64]) -> Sequence[int]:
    """Return the time of each frame of a unit in ticks from the first, rising."""
    ticks = np.rint((pts - pts[0]) * TICKS).astype(np.int64)
    steps = np.arange(len(ticks))
    return cast(Sequence[int], (np.maximum.accumulate(ticks - steps) + steps).tolist())


def _decode_h264(data: bytes, out: Frames) -> None:
    import av
    from av.video.reformatter import Colorspace, VideoReformatter

    count, height, width, _ = out.shape
    done = 0
    try:
        with av.open(io.BytesIO(data), mode="r", format="mp4") as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None:  # whatever the types say: where the header does not tell the codec
                raise ValueError("no codec that is known")
            context.thread_count = 1
            if (context.name, context.height, context.width) != ("h264", height, width):
                raise ValueError(f"{context.name} of {context.height} x {context.width} pixels")
            reformatter = VideoReformatter()
            frame: VideoFrame
            for frame in container.decode(stream):
                if done == count or (frame.height, frame.width) != (height, width) or frame.is_corrupt:
                    raise ValueError(f"frame {done} of {count} is damaged, of another size, or one too many")
                image = reformatter.reformat(
                    frame, format="rgb24", src_colorspace=Colorspace.ITU601, interpolation=_exact(), threads=1
                )
                out[done] = image.to_ndarray()
                done += 1
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"no mp4 file that can be decoded ({error})") from error
    if done != count:
        raise ValueError(f"{done} frames instead of {count}")


FRAME_CODECS: dict[str, FrameCodec] = {
    "jpeg": FrameCodec(_encode_jpeg, _decode_jpeg, best=100, worst=1),
    "h264": FrameCodec(_encode_h264, _decode_h264, best=0, worst=51),
}
