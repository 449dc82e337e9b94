"""Boxes over frames: which are drawn, in which colour, on which pixels; and the files that pictures become."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from bytropix.errors import ConfigError, StoreError
from bytropix.gaad.config import GOLDEN
from bytropix.jobs.drawing import (
    COLOURS,
    GROUND,
    LEAST_WIDTH,
    LEVELS,
    MOTION,
    PATCH,
    Frame,
    captioned,
    clock,
    drawn,
    enlargement,
    outlines,
)
from bytropix.jobs.pictures import write_pictures

NONE = np.zeros((0, 4), np.float32)
GREY = (90, 90, 90)


def box(*corners: float) -> np.ndarray:
    """Return one box, f32 (1, 4)."""
    return np.array([corners], np.float32)


def frame(height: int = 40, width: int = 60) -> Frame:
    """Return a grey frame."""
    return np.full((height, width, 3), GREY, np.uint8)


def where(image: Frame, colour: tuple[int, int, int]) -> np.ndarray:
    """Return which pixels have a colour, bool (h, w)."""
    return (image == np.array(colour)).all(axis=2)


@pytest.mark.parametrize("scale", [1, 4, 8])
def test_a_region_is_outlined_to_the_pixel(scale: int) -> None:
    """The line lies on the box's own outermost pixels, and nothing outside the box changes."""
    boxes = outlines(box(10, 4, 30, 24), NONE, (40, 60), 0)
    image = drawn(frame(), boxes, scale)
    line = where(image, PATCH)
    rows, columns = np.flatnonzero(line.any(axis=1)), np.flatnonzero(line.any(axis=0))
    outside = np.ones(line.shape, np.bool_)
    outside[4 * scale : 24 * scale, 10 * scale : 30 * scale] = False

    assert image.shape == (40 * scale, 60 * scale, 3)
    assert (rows[0], rows[-1]) == (4 * scale, 24 * scale - 1)
    assert (columns[0], columns[-1]) == (10 * scale, 30 * scale - 1)
    assert line[4 * scale, 10 * scale : 30 * scale].all()
    assert line[4 * scale : 24 * scale, 30 * scale - 1].all()
    assert (image[outside] == GREY).all()
    assert (image[14 * scale, 20 * scale] == GREY).all()


def test_motion_regions_have_bold_corners_alone() -> None:
    """Their corners are drawn, the middles of their sides are not: colour is not all that tells them apart."""
    image = drawn(frame(), outlines(NONE, box(10, 4, 30, 24), (40, 60), 0), 8)
    line = where(image, MOTION)

    for row, column in ((32, 80), (32, 239), (191, 80), (191, 239)):
        assert line[row, column]
    assert not line[32:192, 160].any()
    assert not line[112, 80:240].any()
    assert line[36:60, 80:83].all()


def test_neighbours_and_small_boxes_do_not_hide_each_other() -> None:
    """Boxes that touch have their lines side by side; one inside a larger one is drawn over it, whatever the order."""
    regions = np.array([[20, 10, 24, 14], [0, 0, 60, 40], [0, 0, 20, 20], [20, 0, 40, 20]], np.float32)
    found = outlines(regions, NONE, (40, 60), 4)
    image = drawn(frame(), found, 4)

    assert [outline.area for outline in found] == sorted((outline.area for outline in found), reverse=True)
    assert (image[40, 79] == COLOURS[found[1].colour]).all()
    assert (image[60, 80] == COLOURS[found[2].colour]).all()
    assert (image[40, 80] == COLOURS[found[3].colour]).all()


def test_padding_is_not_drawn() -> None:
    """A box without area is none; numbers are those of the map, so padding leaves a gap in them."""
    regions = np.concatenate([box(0, 0, 0, 0), box(5, 5, 9, 9)])
    found = outlines(regions, np.zeros((3, 4), np.float32), (40, 60), 2)

    assert [outline.says for outline in found] == ["region 2: 4 × 4 at 5, 5"]
    assert (drawn(frame(), outlines(box(0, 0, 0, 0), NONE, (40, 60), 1), 4) == GREY).all()


@pytest.mark.parametrize("power", range(8))
def test_rectangles_are_coloured_by_golden_cuts(power: int) -> None:
    """A rectangle of a share of GOLDEN^-k of the frame has the k-th colour, the last one from there on."""
    found = outlines(box(0, 0, 1000 * GOLDEN**-power, 1000), NONE, (1000, 1000), 1)

    assert found[0].colour == min(power, len(LEVELS) - 1)


def test_boxes_at_the_border_stay_in_the_picture() -> None:
    """The whole frame, a sliver at the end, and a box of a fraction of a pixel are drawn without an error."""
    regions = np.array([[0, 0, 60, 40], [59.7, 39.6, 60, 40], [0.2, 0.2, 0.4, 0.3]], np.float32)
    for scale in (0.3, 1, 4):
        image = drawn(frame(), outlines(regions, regions, (40, 60), 2), scale)

        assert image.shape == (round(40 * scale), round(60 * scale), 3)
        assert not (image == GREY).all()


@pytest.mark.parametrize(
    ("shape", "longest", "scale"),
    [((128, 128), 512, 4), ((96, 128), 600, 4), ((300, 200), 512, 1), ((512, 9), 512, 1), ((1024, 512), 512, 0.5)],
)
def test_frames_are_enlarged_by_whole_numbers(shape: tuple[int, int], longest: int, scale: float) -> None:
    """So that a pixel stays a square; a frame that is too large is made smaller."""
    assert enlargement(shape, longest) == scale


def test_enlarged_pixels_are_the_stored_ones() -> None:
    """What a model is given is what is shown."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)

    assert (drawn(pixels, [], 5) == pixels.repeat(5, 0).repeat(5, 1)).all()


@pytest.mark.parametrize("shape", [(41, 33), (64, 301), (16, 16)])
def test_a_caption_stands_below_and_sides_are_even(shape: tuple[int, int]) -> None:
    """The frame is untouched above it, the text is there, the legend shows every colour, and H.264 takes the size."""
    image = captioned(frame(*shape), "train clip 12 · 1 of 16", "0:04.20")
    other = captioned(frame(*shape), "train clip 13 · 1 of 16", "0:04.20")
    below = image[shape[0] :]

    assert (image[: shape[0], : shape[1]] == GREY).all()
    assert image.shape[0] % 2 == image.shape[1] % 2 == 0
    assert image.shape[1] >= LEAST_WIDTH
    assert (image != other).any()
    assert (image[:, image.shape[1] // 2 :] == other[:, image.shape[1] // 2 :]).all()
    for colour in COLOURS:
        assert where(below, colour).sum() >= 40
    assert (image[: shape[0], shape[1] :] == GROUND).all()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0:00.00"), (4.2, "0:04.20"), (59.999, "1:00.00"), (3723.4, "1:02:03.40"), (-1, "0:00.00")],
)
def test_times(seconds: float, said: str) -> None:
    """Hours only where there are some; hundredths carry over."""
    assert clock(seconds) == said


def moving(count: int, height: int = 48, width: int = 64) -> list[Frame]:
    """Return pictures on which a white square moves."""
    pictures = []
    for number in range(count):
        image = frame(height, width)
        image[8:24, 4 * number : 4 * number + 16] = 250
        pictures.append(image)
    return pictures


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_animations_have_every_picture_for_its_time(tmp_path: Path, suffix: str) -> None:
    """Pillow reads back the pictures, the times and that they go on for ever."""
    pictures, seconds = moving(5), [0.04, 0.2, 0.04, 0.1, 0.5]
    path = tmp_path / f"a.{suffix}"
    write_pictures(path, pictures, seconds)
    times = []
    with Image.open(path) as read:
        assert (read.n_frames, read.size, read.info["loop"]) == (5, (64, 48), 0)
        for number, picture in enumerate(pictures):
            read.seek(number)
            shown = np.asarray(read.convert("RGB"), np.int64)
            times.append(read.info.get("duration", 0))
            assert np.abs(shown - picture).mean() < 4
    if suffix == "gif":
        assert times == [40, 200, 40, 100, 500]


def test_a_sheet_holds_all_pictures_in_rows(tmp_path: Path) -> None:
    """Seven pictures lie in three rows of three, the rest is ground; nothing is lost in a PNG."""
    pictures = moving(7)
    write_pictures(tmp_path / "a.PNG", pictures, [0.04] * 7)
    with Image.open(tmp_path / "a.PNG") as read:
        sheet = np.asarray(read)

    assert sheet.shape == (3 * 48 + 16, 3 * 64 + 16, 3)
    for number, picture in enumerate(pictures):
        top, left = number // 3 * 56, number % 3 * 72
        assert (sheet[top : top + 48, left : left + 64] == picture).all()
    assert (sheet[112:, 72:] == GROUND).all()


def test_a_film_plays_everywhere(tmp_path: Path) -> None:
    """H.264 in yuv420p with its index first; frames, times and, closely, pixels come back; the same bytes again."""
    pictures, seconds = moving(6), [0.04, 0.04, 0.2, 0.04, 0.04, 0.04]
    for name in ("a.mp4", "b.mp4"):
        write_pictures(tmp_path / name, pictures, seconds)
    data = (tmp_path / "a.mp4").read_bytes()
    with av.open(tmp_path / "a.mp4") as film:
        stream = film.streams.video[0]
        read = list(film.decode(stream))
        kind = stream.codec_context.name, stream.codec_context.pix_fmt

    assert kind == ("h264", "yuv420p")
    assert data.index(b"moov") < data.index(b"mdat")
    assert data == (tmp_path / "b.mp4").read_bytes()
    assert [round(shown.time, 3) for shown in read] == [0, 0.04, 0.08, 0.28, 0.32, 0.36]
    for shown, picture in zip(read, pictures, strict=True):
        assert np.abs(shown.to_ndarray(format="rgb24").astype(np.int64) - picture).mean() < 3


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    """A place or name that cannot be leaves nothing behind; an earlier file is replaced."""
    (tmp_path / "old.gif").write_bytes(b"earlier")
    (tmp_path / "folder.gif").mkdir()
    for name in ("a.avi", "a", "gone/a.mp4", "folder.gif"):
        with pytest.raises(ConfigError, match="--out"):
            write_pictures(tmp_path / name, moving(2), [0.1, 0.1])
    odd = [frame(21, 33)] * 2
    with pytest.raises((ConfigError, StoreError)):
        write_pictures(tmp_path / "odd.mp4", odd, [0.1, 0.1])
    write_pictures(tmp_path / "old.gif", moving(2), [0.1, 0.1])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.gif", "old.gif"]
    assert (tmp_path / "old.gif").read_bytes().startswith(b"GIF89a")
