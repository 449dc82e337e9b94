"""Films made here: frames, times and colours are known, and come back through the decoding process."""

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from bytropix.pipelines.decoders import DECODERS, DecoderProcess, Wanted
from bytropix.pipelines.decoders.clock import Picker
from bytropix.pipelines.decoders.shaper import Shaper
from bytropix.pipelines.decoders.source import Tally
from tests.decoders.conftest import grey_film, make_film, moving, read

LEVELS = [20, 230, 60, 200, 100, 170, 140, 40, 250, 80, 190, 120]
SMALL = Wanted(height=48, width=64)
CORNERS = np.zeros((1, 64, 96, 3), np.uint8)
CORNERS[:, :32, :48, 0] = 255  # red: top left
CORNERS[:, 32:, 48:, 2] = 255  # blue: bottom right


def levels_of(images: Any) -> list[int]:
    """Return which of LEVELS each frame shows, by its number."""
    means = images.reshape(len(images), -1).mean(1)
    return [int(np.abs(np.array(LEVELS) - mean).argmin()) for mean in means]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("plain.mp4", {}),
        ("bframes.mp4", {"options": {"bf": "3", "g": "12", "x264-params": "b-adapt=0"}}),
        ("open_gop.mkv", {"options": {"bf": "2", "g": "4", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}}),
        ("ten_bits.mp4", {"pix_fmt": "yuv420p10le"}),
        ("fine_chroma.mp4", {"pix_fmt": "yuv444p"}),
        ("old.avi", {"codec": "mpeg4"}),
        ("packed.avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
        ("stream.ts", {}),
        ("stream.mpg", {"codec": "mpeg2video"}),
        ("vp8.webm", {"codec": "libvpx", "options": {"deadline": "realtime"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
        ("lossless.mkv", {"codec": "ffv1"}),
        ("pictures.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("animation.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("raw.h264", {}),
    ],
)
def test_every_format_gives_all_frames_in_order(
    name: str, how: dict[str, Any], decoder: DecoderProcess, tmp_path: Path
) -> None:
    """B-frames, open groups, deep colour, old and new codecs and containers; times are k / 25."""
    found = read(decoder, grey_film(tmp_path / name, LEVELS, **how), SMALL)

    assert found.fault is None
    assert levels_of(found.images) == list(range(len(LEVELS)))
    np.testing.assert_allclose(found.times, np.arange(len(LEVELS)) / 25, atol=1.001e-3)


def test_a_fast_film_is_read_at_its_rate(decoder: DecoderProcess, tmp_path: Path) -> None:
    """240 frames a second: all of them, or a tenth, by time."""
    path = grey_film(tmp_path / "fast.mp4", LEVELS * 10, fps=240)

    everything = read(decoder, path, SMALL)
    tenth = read(decoder, path, Wanted(height=48, width=64, fps=24))

    np.testing.assert_allclose(everything.times, np.arange(120) / 240, atol=1e-6)
    np.testing.assert_array_equal(tenth.images, everything.images[::10])
    np.testing.assert_allclose(tenth.times, np.arange(12) / 24)


def test_a_variable_rate_is_sampled_by_time(decoder: DecoderProcess, tmp_path: Path) -> None:
    """The frame on show at each target time, held as long as the film holds it; never the n-th."""
    stamps = [0, 40, 80, 580, 600, 620, 1620, 1650, 1700, 1710, 1720, 1900]
    path = grey_film(tmp_path / "variable.mp4", LEVELS, stamps=stamps)

    everything = read(decoder, path, SMALL)
    np.testing.assert_allclose(everything.times, np.array(stamps) / 1000, atol=1e-6)

    sampled = read(decoder, path, Wanted(height=48, width=64, fps=10))
    times = np.arange(len(sampled.times)) / 10
    np.testing.assert_allclose(sampled.times, times)
    assert len(times) >= 19
    shown = np.searchsorted(np.array(stamps) / 1000, times + 1e-3, side="right") - 1
    assert levels_of(sampled.images) == shown.tolist()


def test_frames_before_an_edit_are_not_shown(decoder: DecoderProcess, tmp_path: Path) -> None:
    """A cut without re-encoding keeps the group of pictures; the edit list hides what comes before the cut."""
    whole = grey_film(tmp_path / "whole.mp4", LEVELS, options={"g": "12", "bf": "2", "x264-params": "scenecut=0"})
    path = tmp_path / "cut.mp4"
    begin = 5
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        assert stream.time_base is not None
        shift = int(begin / 25 / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                packet.stream = copy
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                target.mux(packet)

    found = read(decoder, path, SMALL)

    assert found.fault is None
    assert levels_of(found.images) == list(range(begin, len(LEVELS)))
    np.testing.assert_allclose(found.times, np.arange(len(LEVELS) - begin) / 25, atol=1e-6)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["pyav", "decord"])
def test_a_rotation_in_the_header_is_applied(turn: int, name: str, decoder: DecoderProcess, tmp_path: Path) -> None:
    """A film whose header turns it clockwise is shown upright, and its size is that of the upright frame."""
    if name == "decord":
        pytest.importorskip("decord", reason="decord is not installed")
    images = np.repeat(CORNERS, 4, axis=0)
    path = make_film(
        tmp_path / "turned.mov", images, pix_fmt="yuv444p", prepare=lambda stream: stream.set_display_rotation(-turn)
    )
    height, width = (96, 64) if turn % 180 else (64, 96)

    info = decoder.probe(path)
    found = read(decoder, path, Wanted(height=height, width=width, decoder=name))  # type: ignore[arg-type]

    assert (info.height, info.width, info.rotation) == (height, width, turn)
    assert len(found.images) == 4
    expected = np.rot90(images, -turn // 90, axes=(1, 2))
    assert np.abs(found.images.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    ("matrix", "rotation", "shown"),
    [
        ((0, 0, 0, 0), 0, CORNERS),  # FFmpeg makes a rotation of -2147483648 degrees of it
        ((-1, 0, 0, 1), 180, CORNERS[:, :, ::-1]),
        ((1, 0, 0, -1), 0, CORNERS[:, ::-1]),
        ((0, 1, 1, 0), 90, CORNERS.swapaxes(1, 2)),
        ((0, -1, -1, 0), 270, CORNERS[:, ::-1, ::-1].swapaxes(1, 2)),
    ],
)
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_display_matrix_that_mirrors_is_applied(
    matrix: tuple[int, ...], rotation: int, shown: Any, fit: Any, decoder: DecoderProcess, tmp_path: Path
) -> None:
    """Left and right, top and bottom, or both axes changed for one another; one of zeros says nothing."""
    path = make_film(tmp_path / "mirror.mov", np.repeat(CORNERS, 2, axis=0), pix_fmt="yuv444p")
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", content[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 2**30)
    a, b, c, d = (65536 * number for number in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30 if any(matrix) else 0)
    path.write_bytes(content)
    height, width = shown.shape[1:3]

    found = read(decoder, path, Wanted(height=height, width=width, fit=fit))

    assert decoder.probe(path).rotation == rotation
    assert np.abs(found.images.astype(int) - shown).mean() < 4


def test_the_shape_of_pixels_is_kept(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Anamorphic frames are brought to square pixels."""

    def stretch(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = 2

    path = grey_film(tmp_path / "wide.mp4", [200] * 3, height=48, width=48, prepare=stretch)

    assert decoder.probe(path).pixel_aspect == pytest.approx(2.0)
    found = read(decoder, path, Wanted(height=48, width=48, fit="pad"))
    assert ((found.images > 100).all(3).sum(1) == 24).all()


def test_transparency_is_laid_over_black(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Full transparency is black, whatever colour it hides."""
    images = np.full((3, 48, 64, 4), 255, np.uint8)
    images[:, :, :32, 3] = 0
    path = make_film(tmp_path / "alpha.mov", images, codec="qtrle", pix_fmt="argb", source="rgba")

    found = read(decoder, path, SMALL)

    assert not found.images[:, :, :31].any()
    assert (found.images[:, :, 33:] == 255).all()


def test_interlaced_frames_have_their_fields_made_whole(decoder: DecoderProcess, tmp_path: Path) -> None:
    """A square that moves between the two fields of a frame leaves no comb; the number of frames and times stay."""
    fields = moving(24, 96, 128)[..., 2]
    fields = np.repeat(fields[..., None], 3, axis=3)
    woven = fields[::2].copy()
    woven[:, 1::2] = fields[1::2, 1::2]
    how: dict[str, Any] = {"pix_fmt": "yuv444p", "options": {"crf": "1", "x264-params": "tff=1"}}
    path = make_film(tmp_path / "fields.mp4", woven, **how)
    wanted = Wanted(height=96, width=128)

    found = read(decoder, path, wanted)

    assert found.fault is None
    np.testing.assert_allclose(found.times, np.arange(12) / 25, atol=1e-6)
    comb = np.abs(np.diff(found.images[2:10].astype(int), 2, axis=1))[:, 34:54].mean()
    assert comb < 0.35 * np.abs(np.diff(woven[2:10].astype(int), 2, axis=1))[:, 34:54].mean()


def test_progressive_frames_are_left_alone(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Fine lines of a film that is not interlaced stay."""
    lines = np.zeros((4, 48, 64, 3), np.uint8)
    lines[:, ::2] = 255
    path = make_film(tmp_path / "lines.mkv", lines, codec="ffv1", pix_fmt="yuv444p")

    assert np.abs(read(decoder, path, SMALL).images.astype(int) - lines).max() <= 3


def test_a_film_that_changes_its_size_is_fitted_throughout(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Each frame by its own size: two raw streams in a row are one stream with two sizes."""
    parts = [
        grey_film(tmp_path / f"{number}.h264", LEVELS[number * 6 : number * 6 + 6], height=height, width=width)
        for number, (height, width) in enumerate([(48, 64), (96, 32)])
    ]
    path = tmp_path / "both.h264"
    path.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())

    found = read(decoder, path, Wanted(height=48, width=48, fit="pad"))

    assert levels_of(found.images[:, 16:32, 16:32]) == list(range(12))
    assert not found.images[:6, :5].any()
    assert not found.images[6:, :, :15].any()


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 31), (241, 3), (8, 8), (16, 16)])
def test_odd_and_tiny_films_are_read(size: tuple[int, int], decoder: DecoderProcess, tmp_path: Path) -> None:
    """Any size in, any size out."""
    path = grey_film(tmp_path / "odd.mkv", LEVELS[:3], height=size[0], width=size[1], codec="ffv1", pix_fmt="yuv444p")

    for height, width in ((33, 7), (1, 1)):
        found = read(decoder, path, Wanted(height=height, width=width))
        assert levels_of(found.images) == [0, 1, 2]


def test_a_film_of_one_frame_is_a_film(decoder: DecoderProcess, tmp_path: Path) -> None:
    """It is read, and at a rate it is shown for as long as it lasts."""
    path = grey_film(tmp_path / "one.mp4", [100], fps=5)

    assert len(read(decoder, path, SMALL).times) == 1
    assert read(decoder, path, Wanted(height=48, width=64, fps=25)).times.tolist() == [k / 25 for k in range(5)]


def test_the_header_tells_what_it_knows(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Size, rate, length, codec and container."""
    info = decoder.probe(grey_film(tmp_path / "plain.mp4", LEVELS))

    assert (info.width, info.height, info.rotation, info.frames, info.codec) == (64, 48, 0, 12, "h264")
    assert (info.fps, info.duration) == (pytest.approx(25.0), pytest.approx(0.48))
    assert "mp4" in info.container


@pytest.mark.parametrize("fps", [0.0, 7.0, 60.0])
def test_frames_do_not_depend_on_how_they_travel(fps: float, decoder: DecoderProcess, tmp_path: Path) -> None:
    """Decoded here, one by one, or in a process of its own in batches: the same bytes and times."""
    path = make_film(tmp_path / "moving.mp4", moving(150))
    wanted = Wanted(height=40, width=40, fps=fps)
    tally, picker, images, times = Tally("pyav", beat=lambda: None), Picker(fps), [], []
    shaper = Shaper(wanted)
    for frame, begin, end in DECODERS["pyav"](str(path), wanted, tally):
        for time in picker.until(begin, end):
            out = np.empty((40, 40, 3), np.uint8)
            shaper.shape(frame, out)
            images.append(out)
            times.append(time)

    found = read(decoder, path, wanted)

    np.testing.assert_array_equal(found.images, np.stack(images))
    assert found.times.tolist() == times
    assert found.report == tally.report()
