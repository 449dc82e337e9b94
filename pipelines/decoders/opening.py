"""A file -> its first film stream, opened with PyAV; or the reason why there is none.

path -> regular file? -> container -> stream that is no cover picture -> size allowed? -> (container, stream)
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from bytropix.pipelines.decoders.contract import VideoFault, VideoInfo
from bytropix.pipelines.decoders.source import check_size

# A playlist or a script among the files would make FFmpeg open whatever it names.
REFUSED_FORMATS = {
    "hls",
    "dash",
    "concat",
    "sdp",
    "rtsp",
    "imf",
    "applehttp",
    "lavfi",
    "tedcaptions",
    "webm_dash_manifest",
}
STILL_BRANDS = {"avif", "heic", "heix", "mif1"}
# These hold one picture or several.
MAYBE_STILL = {"gif", "apng", "webp_pipe", "jpegxl_anim"}


@contextmanager
def opened(path: str, most_pixels: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file at its first film stream.

    Raises:
        VideoFault: There is none, or its frames are too large.
    """
    _check_file(path)
    # `file:` keeps a name with a colon from being taken for a protocol; nothing but files may be opened.
    options = {"protocol_whitelist": "file", "max_pixels": str(most_pixels)}
    try:
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoFault(path, f"not a video that can be read: {_said(error)}") from None
    with container:
        yield container, _film(path, container, most_pixels)


def _check_file(path: str) -> None:
    """Refuse what is no regular file, or empty."""
    try:
        found = Path(path).stat()
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise VideoFault(path, f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise VideoFault(path, "not a regular file")
    if found.st_size == 0:
        raise VideoFault(path, "empty file")


def _film(path: str, container: InputContainer, most_pixels: int) -> VideoStream:
    """Return the first stream that is a film."""
    name = container.format.name
    if name in REFUSED_FORMATS:
        raise VideoFault(path, f"not a video but a list of other files ({name})")
    if (name.endswith("_pipe") and name not in MAYBE_STILL) or name in {"image2", "ico"}:
        raise VideoFault(path, "a still image")
    if container.metadata.get("major_brand", "").strip() in STILL_BRANDS:
        raise VideoFault(path, "a still image")
    films = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not films:
        raise VideoFault(path, "no video stream")
    stream = films[0]
    if stream.codec_context is None:
        raise VideoFault(path, "no decoder for its codec")
    if stream.codec_context.name in {"ansi", "bintext", "xbin", "idf"}:  # plain text, taken for pictures of letters
        raise VideoFault(path, "not a video that can be read: text")
    check_size(path, stream.codec_context.width, stream.codec_context.height, most_pixels)
    return stream


def _said(error: Exception) -> str:
    """Return what FFmpeg has said of an error, without the path."""
    log = getattr(error, "log", None)
    words = str(log[2]) if log else getattr(error, "strerror", None) or str(error)
    return words.strip().rstrip(".")


def frame_rate(stream: VideoStream) -> float:
    """Return the frames a second that a header states; 0 where it states none."""
    # Matroska and FLV often state a clock's rate as the average; the guess looks at the first packets.
    rates: list[Fraction | None] = [stream.guessed_rate, stream.average_rate]
    return next((float(rate) for rate in rates if rate and rate <= 1000), 0.0)


def pixel_aspect(stream: VideoStream) -> float:
    """Return the width of a stored pixel over its height; 1 where the file does not say."""
    return float(stream.sample_aspect_ratio or 1) or 1.0


def rotation_of(frame: av.VideoFrame) -> int:
    """Return by how many degrees clockwise a frame is turned to be shown: 0, 90, 180 or 270."""
    return round(-frame.rotation / 90) % 4 * 90


def header_info(container: InputContainer, stream: VideoStream, rotation: int) -> VideoInfo:
    """Return what a header says, with the rotation, which is found in the first frame."""
    codec = stream.codec_context
    aspect = pixel_aspect(stream)
    turned = rotation % 180 != 0
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
    else:
        duration = (container.duration or 0) / av.time_base
    return VideoInfo(
        width=codec.height if turned else codec.width,
        height=codec.width if turned else codec.height,
        rotation=rotation,
        pixel_aspect=1 / aspect if turned else aspect,
        fps=frame_rate(stream),
        duration=max(0.0, duration),
        frames=max(0, stream.frames),
        codec=codec.name,
        container=container.format.name,
    )
