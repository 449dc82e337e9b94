"""A file -> its first film stream, opened with PyAV; or the reason why there is none.

path -> regular file? -> container -> stream that is no cover picture -> size allowed? -> (container, stream)
"""

import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.stream import VideoStream

from bytropix.pipelines.decoders.contract import VideoFault, VideoInfo
from bytropix.pipelines.decoders.endings import cut_off
from bytropix.pipelines.decoders.source import check_size

# What may be opened at all. A playlist or a script among the files would make FFmpeg open whatever it names; sound and
# pictures are here so that they can be told by name.
FILMS = (
    "mov,matroska,avi,flv,live_flv,mpegts,mpeg,mpegvideo,ogg,asf,gif,apng,h264,hevc,vvc,av1,obu,ivf,m4v,h263,h261,vc1,"
    "vc1test,dv,mxf,nut,rm,yuv4mpegpipe,mjpeg,dirac,cavsvideo,amv,roq,smk,bink,gxf,nsv,nuv,swf,thp,wtv,flic,4xm,cdxl"
)
SOUNDS = "mp3,wav,w64,flac,aac,ac3,eac3,dts,aiff,au,caf,amr,ape,wv,tta,mpc,mpc8,oma,voc,truehd"
PICTURES = (
    "image2,ico,bmp_pipe,dds_pipe,dpx_pipe,exr_pipe,gem_pipe,hdr_pipe,j2k_pipe,jpeg_pipe,jpegls_pipe,"
    "jpegxl_pipe,pam_pipe,pbm_pipe,pcx_pipe,pfm_pipe,pgm_pipe,pgmyuv_pipe,pgx_pipe,phm_pipe,photocd_pipe,"
    "pictor_pipe,png_pipe,ppm_pipe,psd_pipe,qdraw_pipe,qoi_pipe,sgi_pipe,sunrast_pipe,svg_pipe,tiff_pipe,"
    "vbn_pipe,webp_pipe,xbm_pipe,xpm_pipe,xwd_pipe"
)
SAFE = {"protocol_whitelist": "file", "format_whitelist": f"{FILMS},{SOUNDS},{PICTURES}"}
# Each of these begins an MP4 file.
FIRST_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot"}
STILL_BRANDS = {"avif", "heic", "heix", "mif1"}
# These hold one picture or several.
MAYBE_STILL = {"gif", "apng", "jpegxl_anim"}
# A stated rate beyond this is a clock's, or broken.
MOST_FPS = 1000
# Level, the part of FFmpeg that speaks (a container's name, a codec's), and the words.
Complaint = tuple[int, str, str]


@contextmanager
def opened(path: str, most_pixels: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file at its first film stream.

    Raises:
        VideoFault: There is none, or its frames are too large.
    """
    _check_file(path)
    options = {**SAFE, "max_pixels": str(most_pixels)}
    with complaints() as log:
        try:  # `file:` keeps a name with a colon from being taken for a protocol
            container = av.open(f"file:{path}", options=options, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            refuse_hunger(error)
            raise VideoFault(path, _refusal(path, error, log)) from None
    with container:
        yield container, _film(path, container, most_pixels)


@contextmanager
def complaints() -> Iterator[list[Complaint]]:
    """Collect the errors that FFmpeg logs in this thread meanwhile.

    An error of PyAV carries the last line of the whole process, which may be about a file read before.
    """
    level, once = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # the line before may have come of another file
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(once)


def _check_file(path: str) -> None:
    """Refuse what is no regular file, or empty."""
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise VideoFault(path, "not a regular file")
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise VideoFault(path, f"cannot be opened: {error.strerror}") from None
    if found.st_size == 0:
        raise VideoFault(path, "empty file")


def _film(path: str, container: InputContainer, most_pixels: int) -> VideoStream:
    """Return the first stream that is a film."""
    name = container.format.name
    brand = container.metadata.get("major_brand", "").strip()
    if name.endswith("_pipe") or name in {"image2", "ico"} or brand in STILL_BRANDS:
        raise VideoFault(path, "a still image")
    films = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not films and cut_off(path, name):
        raise VideoFault(path, "cut off: 0 frames could be read")
    if not films:
        raise VideoFault(path, "no video stream")
    stream = films[0]
    if stream.codec_context is None:
        raise VideoFault(path, "no decoder for its codec")
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width:  # not stated, or so large that FFmpeg has dropped it
        width, height = _dropped_size(path)
    check_size(path, width, height, most_pixels)
    return stream


def refuse_hunger(error: Exception) -> None:
    """Let an error of FFmpeg that is about memory be one: it says nothing about the file's content.

    Raises:
        MemoryError: It is.
    """
    if isinstance(error, MemoryError):
        raise error


def _refusal(path: str, error: Exception, log: list[Complaint]) -> str:
    """Return why FFmpeg cannot open a file, given what it logged while it tried."""
    words = (log[-1][2] if log else getattr(error, "strerror", None) or str(error)).strip()
    with Path(path).open("rb") as file:
        head = file.read(12)
    boxes, riff = head[4:8] in FIRST_BOXES, head[:4] == b"RIFF" and head[8:] == b"AVI "
    if riff and cut_off(path, "avi"):  # FFmpeg knows AVI only by more of it
        return "cut off: 0 frames could be read"
    if "not on whitelist" in words or (isinstance(error, av.error.InvalidDataError) and not log and not riff):
        return "not a video"
    if "moov atom not found" in words:
        return "no index (moov): cut off, still being written, or damaged" if boxes else "not a video"
    return f"not a video that can be read: {words}"


def _dropped_size(path: str) -> tuple[int, int]:
    """Return the width and height that FFmpeg calls invalid when it opens a file; zeros if it does not."""
    with complaints() as log, av.open(f"file:{path}", options=SAFE):
        pass
    found = [match for _, _, words in log if (match := re.search(r"Picture size (\d+)x(\d+) is invalid", words))]
    return (int(found[0][1]), int(found[0][2])) if found else (0, 0)


def ends_early(path: str, container: InputContainer, stream: VideoStream, packets: int) -> bool:
    """Return whether the end of a file is missing, `packets` of the film having been found."""
    name = container.format.name
    complete = 0 < stream.frames <= packets and name != "gif"  # of a GIF FFmpeg counts the frames that are there
    return not complete and cut_off(path, name)


def frame_rate(stream: VideoStream) -> float:
    """Return the frames a second that a header states; 0 where it states none."""
    # Matroska and FLV often state a clock's rate as the average; the guess looks at the first packets.
    rates: list[Fraction | None] = [stream.guessed_rate, stream.average_rate]
    return next((float(rate) for rate in rates if rate and rate <= MOST_FPS), 0.0)


def pixel_aspect(stream: VideoStream) -> float:
    """Return the width of a stored pixel over its height; 1 where the file does not say."""
    return float(stream.sample_aspect_ratio or 1) or 1.0


def rotation_of(frame: av.VideoFrame) -> int:
    """Return by how many degrees clockwise a frame is turned to be shown: 0, 90, 180 or 270."""
    turns = -frame.rotation / 90
    return round(turns) % 4 * 90 if abs(turns) <= 4 else 0  # of a matrix of zeros FFmpeg makes a huge number


def is_mirrored(frame: av.VideoFrame) -> bool:
    """Return whether a frame is shown upside down before it is turned by its rotation, as its matrix says."""
    sides = cast(SideDataContainer, frame.side_data)  # PyAV's types name only the motion vectors
    if SideDataType.DISPLAYMATRIX not in sides:
        return False
    matrix = bytes(sides[SideDataType.DISPLAYMATRIX])
    across, down, _, across_y, down_y = struct.unpack_from("=5i", matrix)
    return bool(across * down_y < down * across_y)


def is_timeless(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether time stamps mean nothing: AVI counts them by its rate, and this one is absurd."""
    return container.format.name == "avi" and (stream.average_rate or 0) > MOST_FPS


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
        codec=codec.codec.canonical_name,
        container=container.format.name,
    )
