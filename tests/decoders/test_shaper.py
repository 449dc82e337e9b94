"""Shaping: where a frame lands, which way up, in which colours."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bytropix.errors import ConfigError
from bytropix.pipelines.decoders import Fit, Wanted
from bytropix.pipelines.decoders.shaper import MOST_OVERHANG, MOST_SCALED, Shaper, plan
from tests.decoders.conftest import moving

SIDES = st.integers(1, 4000)
TARGETS = st.integers(1, 300)
# Weights of red and blue in the luma.
BT_601, BT_709, BT_2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)


def shaped(pixels: NDArray[Any], wanted: Wanted, source: str = "rgb24", **how: Any) -> NDArray[np.uint8]:
    """Return one frame, shaped."""
    out = np.full((wanted.height, wanted.width, 3), 77, np.uint8)
    Shaper(wanted, **how).shape(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), source), out)
    return out


def quarters(height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """Return a frame whose quarters are red, green, blue and white, read like a page."""
    frame = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    frame[:top, :left, 0] = frame[:top, left:, 1] = frame[top:, :left, 2] = 255
    frame[top:, left:] = 255
    return frame


@given(SIDES, SIDES, st.sampled_from([1.0, 0.5, 64 / 45, 12 / 11, 16.0]), TARGETS, TARGETS)
def test_crop_fills_the_frame_and_keeps_the_shape(
    height: int, width: int, aspect: float, rows: int, columns: int
) -> None:
    """Nothing black, nothing bent by more than rounding, the middle kept."""
    fitted = plan(height, width, aspect, (rows, columns), "crop")

    used_height, used_width = fitted.cut[1] - fitted.cut[0], fitted.cut[3] - fitted.cut[2]
    assert fitted.place == (0, 0)
    assert fitted.scaled[0] >= rows
    assert fitted.scaled[1] >= columns
    assert fitted.scaled[0] * fitted.scaled[1] <= max(MOST_SCALED, MOST_OVERHANG * rows * columns)
    assert abs(2 * fitted.crop[0] + rows - fitted.scaled[0]) <= 1
    assert abs(2 * fitted.crop[1] + columns - fitted.scaled[1]) <= 1
    across, down = fitted.scaled[1] / (used_width * aspect), fitted.scaled[0] / used_height
    if fitted.cut == (0, height, 0, width):
        slack = 1 + 1 / min(fitted.scaled)
        assert 1 / slack <= across / down <= slack


@given(SIDES, SIDES, st.sampled_from([1.0, 0.5, 64 / 45, 16.0]), TARGETS, TARGETS)
def test_pad_shows_all_of_the_frame(height: int, width: int, aspect: float, rows: int, columns: int) -> None:
    """One side fits exactly, the other is centred between bars."""
    fitted = plan(height, width, aspect, (rows, columns), "pad")

    assert fitted.cut == (0, height, 0, width)
    assert fitted.crop == (0, 0)
    assert fitted.scaled[0] == rows or fitted.scaled[1] == columns
    assert abs(2 * fitted.place[0] + fitted.scaled[0] - rows) <= 1
    assert abs(2 * fitted.place[1] + fitted.scaled[1] - columns) <= 1


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_wide_frame_lands_where_it_should(fit: Fit) -> None:
    """Crop cuts the sides off, pad puts bars above and below, stretch squeezes."""
    wide = np.zeros((90, 160, 3), np.uint8)
    wide[:, :, 1] = 200
    wide[:, :20, 0] = 255
    out = shaped(wide, Wanted(height=80, width=80, fit=fit))

    green = out[..., 1] > 150
    red = out[40, :, 0] > 128
    assert (green.sum(0)[40], green[40].sum(), red.sum()) == {
        "crop": (80, 80, 0),
        "pad": (45, 80, 10),
        "stretch": (80, 80, 10),
    }[fit]
    if fit == "pad":
        assert not out[:17].any()
        assert not out[-17:].any()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(40, 60), (61, 33)])
def test_frames_are_turned_clockwise(rotation: int, size: tuple[int, int]) -> None:
    """The rotation says by how much a stored frame is turned to be shown; the fit is that of the upright frame."""
    frame = quarters(48, 80)
    wanted = Wanted(height=size[0], width=size[1], fit="crop")

    turned = shaped(frame, wanted, rotation=rotation)

    upright = np.rot90(frame, -rotation // 90)
    expected = shaped(upright, wanted)
    assert np.abs(turned.astype(int) - expected).mean() < 8  # an odd overhang is cut half a pixel to one side
    corner = upright[2, 2]
    np.testing.assert_allclose(turned[2, 2], corner, atol=2)


def test_wide_pixels_are_shown_wide() -> None:
    """A frame of 40 x 40 pixels twice as wide as high is an 80 x 40 picture; turned, a 40 x 80 one."""
    out = shaped(quarters(40, 40), Wanted(height=80, width=80, fit="pad"), pixel_aspect=2.0)
    assert out.any(2).sum(0).tolist() == [40] * 80

    out = shaped(quarters(40, 40), Wanted(height=80, width=80, fit="pad"), pixel_aspect=2.0, rotation=90)
    assert out.any(2).sum(1).tolist() == [40] * 80


def test_a_nonsense_pixel_shape_is_left_out() -> None:
    """A header that says pixels are 1000 times as wide as high is broken."""
    out = shaped(quarters(40, 40), Wanted(height=80, width=80, fit="pad"), pixel_aspect=1000.0)

    assert out.any(2).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
def test_every_size_comes_to_every_size(height: int, width: int, rows: int, columns: int) -> None:
    """One colour stays one colour, whatever the sizes, odd and tiny ones among them."""
    grey = np.full((height, width, 3), 130, np.uint8)

    out = shaped(grey, Wanted(height=rows, width=columns))

    assert np.abs(out.astype(int) - 130).max() <= 1


def test_a_thread_of_a_frame_is_cut_before_it_is_scaled() -> None:
    """4 x 8000 pixels in a square: 96 MB of overhang is not made first."""
    thread = np.zeros((4, 8000, 3), np.uint8)
    thread[:, 3998:4002] = 255

    assert (shaped(thread, Wanted(height=64, width=64))[:, 16:48] > 200).all()


def test_shrinking_averages_areas() -> None:
    """Fine detail becomes its mean, as Pillow's box filter has it, and does not alias."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    out = shaped(noise, Wanted(height=24, width=32))
    box = np.asarray(Image.fromarray(noise).resize((32, 24), Image.Resampling.BOX))

    assert np.abs(out.astype(int) - box).mean() < 3.5
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(shaped(stripes, Wanted(height=32, width=32)).astype(int) - 127).max() <= 4


def test_alpha_is_laid_over_black_before_scaling() -> None:
    """What lies hidden under full transparency bleeds nowhere."""
    frame = np.zeros((64, 64, 4), np.uint8)
    frame[:, :32] = (0, 255, 0, 0)
    frame[:, 32:] = (255, 0, 0, 128)

    out = shaped(frame, Wanted(height=16, width=16), "rgba")

    assert out[..., 1].max() == 0
    np.testing.assert_allclose(out[:, 9:, 0], 128, atol=1)


@pytest.mark.parametrize(("matrix", "red"), [(1, BT_709), (5, BT_601), (2, BT_601), (9, BT_2020)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_colours_follow_the_matrix_and_the_range(matrix: int, red: tuple[float, float], full: bool, deep: bool) -> None:
    """BT.709, BT.601, unstated (as BT.601) and BT.2020; limited and full range; 8 and 10 bits."""
    colour = np.array([200.0, 60.0, 120.0]) / 255
    luma = red[0] * colour[0] + (1 - sum(red)) * colour[1] + red[1] * colour[2]
    blue_red = np.array([(colour[2] - luma) / (2 - 2 * red[1]), (colour[0] - luma) / (2 - 2 * red[0])])
    unit, middle, top = (4, 512, 1023) if deep else (1, 128, 255)
    if full:
        planes = [luma * top, *(middle + top * blue_red)]
    else:
        planes = [unit * (16 + 219 * luma), *(middle + unit * 224 * blue_red)]
    frame = av.VideoFrame(32, 32, "yuv444p10le" if deep else "yuv444p")
    for plane, level in zip(frame.planes, planes, strict=True):
        kind = np.uint16 if deep else np.uint8
        plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, round(level), kind).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    out = np.zeros((16, 16, 3), np.uint8)

    Shaper(Wanted(height=16, width=16)).shape(frame, out)

    np.testing.assert_allclose(out.reshape(-1, 3).mean(0), [200, 60, 120], atol=2)


def test_a_new_frame_size_gets_a_new_plan() -> None:
    """The frames of a stream that changes its size are all fitted alike."""
    wanted = Wanted(height=32, width=32, fit="pad")
    shaper = Shaper(wanted)
    for height, width in ((40, 80), (80, 40), (40, 80)):
        out = np.zeros((32, 32, 3), np.uint8)
        shaper.shape(av.VideoFrame.from_ndarray(quarters(height, width), "rgb24"), out)
        np.testing.assert_array_equal(out, shaped(quarters(height, width), wanted))


def test_shapers_share_nothing() -> None:
    """The same frame gives the same bytes from any shaper, whatever it has shaped before."""
    wanted = Wanted(height=40, width=40)
    used = Shaper(wanted)
    frames = [av.VideoFrame.from_ndarray(image, "rgb24") for image in moving(4)]
    for frame in frames:
        mine, fresh = np.zeros((2, 40, 40, 3), np.uint8)
        used.shape(frame, mine)
        Shaper(wanted).shape(frame, fresh)
        np.testing.assert_array_equal(mine, fresh)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"width": 20000},
        {"fit": "bend"},
        {"fps": -1.0},
        {"fps": 1e9},
        {"decoder": "vlc"},
        {"stall_seconds": 0.0},
        {"file_seconds": 0.0},
        {"memory_bytes": 1000},
        {"most_pixels": 0},
    ],
)
def test_wishes_that_cannot_be_met_are_refused(wrong: dict[str, Any]) -> None:
    """With the field's name in the message."""
    with pytest.raises(ConfigError, match="size" if wrong.keys() & {"height", "width"} else next(iter(wrong))):
        Wanted(**({"height": 32, "width": 32} | wrong))
