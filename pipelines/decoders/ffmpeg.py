"""The last resort: the `ffmpeg` program, where there is one, in yet another process.

    ffmpeg: file -> whole frames, upright -> NUT with raw pictures and their times -> pipe -> PyAV -> Shown

NUT because it carries times, colours and the shape of pixels, and PyAV reads it like any file.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO

import av

from bytropix.pipelines.decoders.contract import VideoFault, Wanted
from bytropix.pipelines.decoders.opening import FILMS, ends_early, header_info, opened, pixel_aspect, rotation_of
from bytropix.pipelines.decoders.pyav import decoded_frames
from bytropix.pipelines.decoders.source import Shown, Tally, check_size, stated_length, timed


def decode_ffmpeg(path: str, wanted: Wanted, tally: Tally) -> Iterator[Shown]:
    """Give the frames of a file as the ffmpeg program decodes them; it turns them upright itself.

    Where the frame size changes inside the file it scales to the first one's.

    Raises:
        VideoFault: There is no such program, or it cannot read the file, or has found damage (after all the frames).
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise VideoFault(path, "there is no ffmpeg program on the PATH", retry=True)
    with opened(path, wanted.most_pixels) as (container, stream):
        first = next(decoded_frames(container, stream, Tally(decoder="pyav", beat=tally.beat)), None)
        tally.info = header_info(container, stream, rotation_of(first) if first is not None else 0)
        words = _words(path, stream.index, wanted.most_pixels, fields=first is not None and first.interlaced_frame)
        step = 1 / (tally.info.fps or 25)
        yield from timed(_run([program, *words], path, wanted, tally), step, stated_length(tally.info))
        if ends_early(path, container, stream, tally.frames):
            raise VideoFault(path, f"cut off: {tally.frames} frames could be read")
    if tally.bad_packets:
        raise VideoFault(path, f"damaged: {tally.bad_packets} complaints by ffmpeg")
    if not tally.frames:
        raise VideoFault(path, "0 frames")


def _words(path: str, index: int, most_pixels: int, *, fields: bool) -> list[str]:
    """Return the words behind the program's name: every frame once, at its own time, as RGB."""
    quiet = ["-nostdin", "-v", "error", "-filter_threads", "1"]
    safe = ["-protocol_whitelist", "file", "-format_whitelist", FILMS, "-max_pixels", str(most_pixels)]
    source = ["-threads", "1", "-i", f"file:{path}", "-map", f"0:{index}"]
    # Raw pictures lose their colour matrix and range on the way, so they become RGB before.
    colours = "scale=flags=accurate_rnd+full_chroma_int+bitexact,format=rgb24|rgba"
    filters = f"bwdif=mode=send_frame:deint=interlaced,{colours}" if fields else colours
    frames = ["-fps_mode", "passthrough", "-enc_time_base", "1:1000000", "-vf", filters]
    return [*quiet, *safe, *source, *frames, "-c:v", "rawvideo", "-f", "nut", "-"]


def _run(words: list[str], path: str, wanted: Wanted, tally: Tally) -> Iterator[av.VideoFrame]:
    """Give the frames that a program sends, and count its complaints."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        assert process.stdout is not None
        try:
            yield from _frames(path, process.stdout, wanted.most_pixels, tally)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        said.seek(0)
        tally.bad_packets = said.read().count(b"\n")
    if code < 0:
        raise VideoFault(path, f"the decoder crashed (signal {-code})", retry=True)


def _frames(path: str, pipe: IO[bytes], most_pixels: int, tally: Tally) -> Iterator[av.VideoFrame]:
    """Give the raw frames that come through a pipe."""
    try:
        raw = av.open(pipe, mode="r", format="nut")
    except av.error.FFmpegError:
        return  # nothing has come; what the program says counts
    with raw:
        stream = raw.streams.video[0]
        tally.pixel_aspect = pixel_aspect(stream)
        for frame in decoded_frames(raw, stream, tally):
            check_size(path, frame.width, frame.height, most_pixels)
            yield frame
