"""Scenes: cuts at their frames and nowhere else, black and frozen stretches, whatever the chunks."""

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.errors import ConfigError
from bytropix.jobs.film import add_shapes, panned, zoomed
from bytropix.pipelines.video.scenes import SceneFinder, SceneFrames, SceneRules

Images = NDArray[np.uint8]
SIDE = 64


def at(count: int, fps: float = 25.0) -> NDArray[np.float64]:
    """Return the times of frames at a rate."""
    return np.arange(count) / fps


def seen(images: Images, times: NDArray[np.float64], rules: SceneRules, chunks: list[int] | None = None) -> SceneFrames:
    """Return what a finder gives out, joined; fed in chunks of these sizes, and the rest at once."""
    finder = SceneFinder(rules)
    edges = np.cumsum([0, *(chunks or [])]).clip(max=len(images)).tolist()
    pairs = zip(edges, [*edges[1:], len(images)], strict=True)
    given_out = [finder.feed(images[begin:end], times[begin:end]) for begin, end in pairs]
    given_out.append(finder.finish())
    assert finder.frames == sum(map(len, given_out))
    return SceneFrames(
        *(
            np.concatenate([getattr(one, name) for one in given_out if len(one)])
            for name in ("images", "times", "starts", "black", "frozen")
        )
    )


def starts_of(images: Images, fps: float = 25.0) -> list[int]:
    """Return at which frames scenes begin."""
    return np.flatnonzero(seen(images, at(len(images), fps), SceneRules()).starts).tolist()


def scene(count: int, seed: int, speed: int = 1) -> Images:
    """Return a pan."""
    return panned(count, SIDE, SIDE, seed=seed, speed=speed)


def noisy(images: Images, deviation: float, seed: int = 0) -> Images:
    """Return frames with noise of their own in each."""
    noise = np.random.default_rng(seed).normal(0, deviation, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def lit(images: Images, light: NDArray[np.float64]) -> Images:
    """Return frames with as much light each, 1 being theirs."""
    return np.clip(images * light[:, None, None, None], 0, 255).astype(np.uint8)


def read(path: Path) -> tuple[Images, NDArray[np.float64]]:
    """Return the frames of a real file at 128 x 128 and their times."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    shaped = [frame.to_ndarray(format="rgb24", width=128, height=128, interpolation="AREA") for frame in frames]
    return np.stack(shaped), np.array([float(frame.time or 0) for frame in frames])


@pytest.mark.parametrize("fps", [2.0, 10.0, 25.0, 60.0, 240.0])
@pytest.mark.parametrize("speed", [0, 3])
def test_a_cut_begins_a_scene_at_its_frame(fps: float, speed: int) -> None:
    """Two cuts, twenty frames apart, are found where they are, in still and in moving pictures, at any frame rate."""
    film = np.concatenate([scene(20, seed, speed) for seed in (1, 2, 3)])

    assert starts_of(film, fps) == [0, 20, 40]


def test_a_cut_between_dark_scenes_is_found() -> None:
    """Light at a sixth leaves differences of a few levels, which are enough where all else is quiet."""
    film = np.concatenate([scene(20, 1), scene(20, 2)])

    assert starts_of(lit(film, np.full(40, 1 / 4))) == [0, 20]


def test_a_cut_between_plain_colours_is_found() -> None:
    """Pictures without any structure are told apart by their colour."""
    film = np.zeros((20, SIDE, SIDE, 3), np.uint8)
    film[:10] = (200, 30, 30)
    film[10:] = (30, 160, 30)

    assert starts_of(film) == [0, 10]


@pytest.mark.parametrize("motion", ["pan", "jerk", "zoom", "shapes", "shake"])
def test_motion_is_no_cut(motion: str) -> None:
    """A pan, one that begins at full speed, a zoom, shapes of a third of the frame, and a hand-held camera."""
    if motion == "zoom":
        film = zoomed(40, SIDE, SIDE, seed=2, zoom=1.04)
    elif motion == "shapes":
        film = scene(40, 4, 0)
        add_shapes(film, SIDE // 3, seed=1)
    elif motion == "shake":
        whole, places = scene(1, 3, 0)[0], np.random.default_rng(5).integers(0, 6, 40)
        film = np.stack([np.roll(whole, place, axis=1) for place in places])
    else:
        film = scene(40, 6, 5)
        film[:20] = film[:20] if motion == "pan" else film[19]

    assert starts_of(film) == [0]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_flash_is_no_cut(frames: int) -> None:
    """White for up to an eighth of a second, and the scene goes on; the cut behind it is still found."""
    film = np.concatenate([scene(30, 1), scene(30, 2)])
    film[10 : 10 + frames] = 255

    assert starts_of(film) == [0, 30]


def test_light_that_changes_is_no_cut() -> None:
    """Fades down and up and a step of the exposure are the same scene."""
    light = np.concatenate([np.linspace(1, 0.2, 8), np.full(10, 0.2), np.linspace(0.2, 1, 5), np.full(10, 1.25)])

    assert starts_of(lit(scene(len(light), 1), light)) == [0]


def test_a_quick_fade_in_is_no_cut() -> None:
    """A picture that comes up from black within four frames changes a lot in each of them, the first one too."""
    light = np.concatenate([np.linspace(0, 1, 5), np.ones(20)])

    assert starts_of(lit(scene(len(light), 1), light)) == [0]


def test_a_picture_that_comes_up_after_black_begins_a_scene() -> None:
    """A fade to black and a fade from it have no cut between them, but the second picture is another scene."""
    down, up = np.linspace(1, 0, 12), np.linspace(0, 1, 12)
    film = lit(np.concatenate([scene(22, 1), scene(22, 2)]), np.concatenate([np.ones(10), down, up, np.ones(10)]))
    marks = seen(film, at(44, 25.0), SceneRules())
    comes_up = int(np.flatnonzero(marks.black)[-1]) + 1

    assert 22 < comes_up < 27
    assert [0, comes_up] == np.flatnonzero(marks.starts).tolist()


def test_cuts_may_be_let_pass() -> None:
    """With keep_cuts only a gap ends a scene."""
    film = np.concatenate([scene(20, 1), np.zeros((10, SIDE, SIDE, 3), np.uint8), scene(20, 2)])

    assert np.flatnonzero(seen(film, at(50), SceneRules(keep_cuts=True)).starts).tolist() == [0]
    dropped = seen(film, at(50), SceneRules(keep_cuts=True, drop_black=True))
    assert np.flatnonzero(dropped.starts).tolist() == [0, 20]


def test_black_is_dark_nearly_everywhere() -> None:
    """Noise of a dark sensor is black; a dim picture and a line of white writing are not."""
    black = noisy(np.full((4, SIDE, SIDE, 3), 8, np.uint8), 6)
    dim = np.full((4, SIDE, SIDE, 3), 40, np.uint8)
    written = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    written[:, 30:34, 10:50] = 255
    marks = seen(np.concatenate([black, dim, written]), at(12), SceneRules())

    assert marks.black.tolist() == [True] * 4 + [False] * 8


@pytest.mark.parametrize("fps", [5.0, 25.0])
@pytest.mark.parametrize("deviation", [0.0, 1.5])
def test_a_picture_that_stands_still_is_frozen_after_half_a_second(fps: float, deviation: float) -> None:
    """By time, not by frames, and for all that compression or a little noise adds; it ends as the picture moves."""
    moving = panned(10, 128, 128, seed=1, speed=2)
    film = noisy(np.concatenate([moving[::-1], np.repeat(moving[:1], 30, axis=0), moving[1:]]), deviation)
    marks = seen(film, at(49, fps), SceneRules(frozen_seconds=0.6))

    first = 9 + round(0.6 * fps)
    assert list(range(first, 40)) == np.flatnonzero(marks.frozen).tolist()


def test_a_small_thing_that_moves_keeps_a_picture_alive() -> None:
    """A ball of a hundredth of the frame that goes a pixel a frame is no frozen picture."""
    film = np.repeat(scene(1, 1), 50, axis=0)
    for number, image in enumerate(film):
        image[20:26, number : number + 6] = 255

    assert not seen(film, at(50), SceneRules()).frozen.any()


def test_what_is_dropped_leaves_a_gap_that_ends_a_scene() -> None:
    """Black and frozen frames are gone, the others keep their times, and a scene begins behind each gap."""
    one = scene(30, 1)
    black = np.zeros((5, SIDE, SIDE, 3), np.uint8)
    film = np.concatenate([black, one[:10], black, one[10:20], np.repeat(one[19:20], 20, axis=0), one[20:]])
    rules = SceneRules(drop_black=True, drop_frozen=True, frozen_seconds=0.4)
    marks = seen(film, at(60), rules)
    kept = [*range(5, 15), *range(20, 39), *range(50, 60)]

    assert kept == np.rint(marks.times * 25).astype(int).tolist()
    assert np.array_equal(film[kept], marks.images)
    assert np.flatnonzero(marks.starts).tolist() == [0, 10, 29]
    assert not marks.black.any()
    assert not marks.frozen.any()


def test_what_was_seen_is_counted() -> None:
    """Cuts, black and frozen frames are counted whether they are dropped or not, the first frame is no cut."""
    film = np.concatenate([scene(20, 1), scene(20, 2), np.zeros((10, SIDE, SIDE, 3), np.uint8)])
    finder = SceneFinder(SceneRules(drop_black=True))
    finder.feed(film, at(50))
    finder.finish()

    assert (finder.cuts, finder.black, finder.frames) == (2, 10, 40)


MIXED = np.concatenate([scene(15, 1), scene(9, 2), np.zeros((7, SIDE, SIDE, 3), np.uint8), scene(8, 3, 0)])
MIXED[5:7] = 255


@settings(max_examples=60, deadline=None)
@given(chunks=st.lists(st.integers(0, 20), max_size=8), fps=st.sampled_from([8.0, 30.0, 100.0]), drop=st.booleans())
def test_the_chunks_make_no_difference(chunks: list[int], fps: float, drop: bool) -> None:
    """Every frame, time and mark is the same however the frames arrive, empty chunks too."""
    rules = SceneRules(drop_black=drop, drop_frozen=drop, frozen_seconds=0.1)
    times = at(len(MIXED), fps)
    whole, cut = seen(MIXED, times, rules), seen(MIXED, times, rules, chunks)

    for name in ("images", "times", "starts", "black", "frozen"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (17, 31), (300, 33), (2, 400)])
def test_every_size_of_frame_is_taken(height: int, width: int) -> None:
    """From one pixel on, a change of all of it is a cut and black is black."""
    film = np.zeros((20, height, width, 3), np.uint8)
    film[:10] = 200
    marks = seen(film, at(20), SceneRules())

    assert np.flatnonzero(marks.starts).tolist() == [0, 10]
    assert marks.black.tolist() == [False] * 10 + [True] * 10


def test_a_video_without_frames_has_no_scenes() -> None:
    """Nothing comes of nothing."""
    assert len(SceneFinder().finish()) == 0


@pytest.mark.parametrize("wrong", [{"cut_levels": 0}, {"black_level": 256}, {"frozen_seconds": 0}])
def test_rules_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """The message names the setting."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SceneRules(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("moviepy/big_buck_bunny_0_30.webm", [18, 283, 376, 551]),  # up from black at 18
        ("torchcodec/nasa_13013.mp4", [202]),
        ("androidx/bbb_642x642_768kbps_30fps_vp9.webm", [6]),
        ("imageio/cockatoo.mp4", []),  # a bird close to the lens
        ("streamio/awesome movie.mov", []),  # sheets of paper held before the camera, and taken away
        ("androidx/sample_h264.ts", []),  # a fade of four frames from black to white
        ("moviepy/fire2.mp4", []),  # a camera that shakes, uneven frame times
        ("wpt/counting.mp4", []),  # numbers that change
    ],
)
def test_real_films_are_cut_where_the_eye_sees_it(shared_data: Path, name: str, cuts: list[int]) -> None:
    """Cuts that were looked up frame by frame, and none in what was taken in one go."""
    marks = seen(*read(shared_data / "video" / name), SceneRules())

    assert [0, *cuts] == np.flatnonzero(marks.starts).tolist()
