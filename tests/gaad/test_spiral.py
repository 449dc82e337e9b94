"""Patches along a spiral: the original's, and what every option changes."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.gaad import SpiralConfig
from bytropix.gaad.config import GOLDEN, AngleName, BoundaryName, MetricName, PatchName, RadiiName
from bytropix.gaad.spiral import GOLDEN_ANGLE, Patches, spiral_patches

# What the original returns for four patches: x, y of the centre and the side as a share of the shorter side.
ORIGINAL = [
    ((64, 64), [(32, 32, 0.25), (35.2, 32, 0.1558), (23.238, 29.789, 0.0987), (54.464, 44.110, 0.05)]),
    ((320, 180), [(160, 90, 0.25), (169, 90, 0.1558), (135.357, 83.781, 0.0987), (223.180, 124.059, 0.05)]),
]
SPIRALS = st.builds(
    SpiralConfig,
    arms=st.integers(1, 16),
    angle=st.sampled_from(get_args(AngleName)),
    radii=st.sampled_from(get_args(RadiiName)),
    start_radius=st.floats(0.001, 1),
    growth=st.floats(1, 4),
    greatest_radius=st.floats(0.01, 2),
    patch=st.sampled_from(get_args(PatchName)),
    metric=st.sampled_from(get_args(MetricName)),
    boundary=st.sampled_from(get_args(BoundaryName)),
)
WIDE = np.array([[0.0, 0.0, 320.0, 180.0]])
CLAMPED = slice(10, 12)


def patches(n: int, rectangle: NDArray[np.float64] = WIDE, **options: Any) -> Patches:
    """Return one spiral."""
    return spiral_patches(rectangle, np.array([n]), SpiralConfig(**options))


def middles(found: Patches) -> NDArray[np.float64]:
    """Return the middle of each box."""
    middle: NDArray[np.float64] = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    return middle


@pytest.mark.parametrize(("size", "expected"), ORIGINAL)
def test_defaults_are_the_original(size: tuple[int, int], expected: list[tuple[float, ...]]) -> None:
    """Four patches lie where the original puts them and are as large."""
    found = patches(4, np.array([[0.0, 0.0, *size]]))

    np.testing.assert_allclose(np.column_stack([middles(found), found.scale]), expected, atol=1e-3)
    np.testing.assert_allclose(found.boxes[:, 2] - found.boxes[:, 0], found.scale * min(size))


def test_points_outside_move_to_the_border_as_in_the_original() -> None:
    """The last of twelve patches of the original, the first of them on the border: its box is the half inside."""
    found = patches(12)

    np.testing.assert_allclose(
        found.boxes[CLAMPED], [(104.01, 175.5, 113.01, 180), (5.326, 113.229, 14.326, 122.229)], atol=1e-2
    )
    np.testing.assert_allclose(found.scale[CLAMPED], 0.05)


@given(
    corner=st.tuples(st.floats(0, 4000), st.floats(0, 4000)),
    size=st.tuples(st.floats(5, 4000), st.floats(5, 4000)),
    n=st.integers(0, 70),
    options=SPIRALS,
)
def test_patches_lie_in_their_rectangle(
    corner: tuple[float, float], size: tuple[float, float], n: int, options: SpiralConfig
) -> None:
    """Whatever the options: as many boxes as asked for, the centre's first, each with an area, none outside."""
    rectangle = np.array([[*corner, corner[0] + size[0], corner[1] + size[1]]])
    found = spiral_patches(rectangle, np.array([n]), options)
    boxes = found.boxes[found.inside]

    assert len(found.boxes) == len(found.inside) == len(found.radius) == len(found.angle) == len(found.scale) == n
    assert found.inside.all() or options.boundary == "drop"
    assert found.inside[:1].all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes >= rectangle[0, [0, 1, 0, 1]]).all()
    assert (boxes <= rectangle[0, [2, 3, 2, 3]]).all()


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=6), options=SPIRALS)
def test_many_rectangles_are_each_as_one(counts: list[int], options: SpiralConfig) -> None:
    """Spirals computed together are those computed one by one."""
    rectangles = np.array([[10.0 * k, 5.0 * k, 50.0 + 60 * k, 40.0 + 13 * k] for k in range(len(counts))])
    together = spiral_patches(rectangles, np.array(counts), options)
    alone = [spiral_patches(rectangles[k : k + 1], np.array([n]), options) for k, n in enumerate(counts)]

    for name in ("boxes", "inside", "radius", "angle", "scale"):
        np.testing.assert_array_equal(getattr(together, name), np.concatenate([getattr(one, name) for one in alone]))


def test_centre_moves_the_spiral() -> None:
    """With a centre given, every patch that is not clipped moves by the same way."""
    moved = spiral_patches(WIDE, np.array([3]), SpiralConfig(), np.array([[100.0, 70.0]]))

    np.testing.assert_allclose(moved.boxes - patches(3).boxes, np.tile([-60.0, -20.0], (3, 2)), atol=1e-9)


def test_radius_grows_by_phi_every_quarter_turn() -> None:
    """Radius and angle of the reference arm follow the golden spiral until the cap."""
    found = patches(20, greatest_radius=2.0)
    turned = np.diff(found.angle[1:]) / (np.pi / 2)

    np.testing.assert_allclose(found.radius[2:] / found.radius[1:-1], GOLDEN**turned)
    assert found.radius[1] == pytest.approx(0.05 * 180)


def test_greatest_radius_is_kept() -> None:
    """Radii end at a share of the longer side, of an elliptic spiral of the shorter one, which is stretched."""
    assert patches(20, greatest_radius=0.4).radius.max() == pytest.approx(0.4 * 320)
    assert patches(20, greatest_radius=0.4, metric="elliptic").radius.max() == pytest.approx(0.4 * 180)


def test_golden_angle_between_neighbours() -> None:
    """Each step turns by 137.5 degrees whatever the count, and reaches as far as the reference does."""
    found = patches(9, angle="golden")

    np.testing.assert_allclose(np.diff(found.angle[1:]), GOLDEN_ANGLE)
    assert pytest.approx(np.radians(137.5077), abs=1e-5) == GOLDEN_ANGLE
    np.testing.assert_allclose(found.radius, patches(9).radius)


def test_arms_are_turned_evenly() -> None:
    """Four arms start a quarter turn apart at the same radius, and the patches are dealt to them in turn."""
    found = patches(9, arms=4)

    np.testing.assert_allclose(found.angle[1:5], np.arange(4) * np.pi / 2)
    np.testing.assert_allclose(found.radius[1:5], found.radius[1])
    np.testing.assert_allclose(found.angle[5:9] - found.angle[1:5], found.angle[5])
    assert found.radius[5] > found.radius[1]


def test_sunflower_is_even() -> None:
    """Half of a sunflower's patches lie in half of its area."""
    found = patches(201, angle="golden", radii="sunflower")
    within = (found.radius[1:] < 90 / np.sqrt(2)).mean()

    assert within == pytest.approx(0.5, abs=0.01)
    assert found.radius.max() == pytest.approx(90, rel=0.01)


def test_patches_shrink_grow_or_stay() -> None:
    """Outwards, sides never rise, never fall, or are all the same."""
    shrink, grow, constant = (patches(12, patch=patch).scale for patch in ("shrink", "grow", "constant"))

    assert (np.diff(shrink) <= 0).all()
    assert shrink[0] > 4 * shrink[-1]
    assert (np.diff(grow) >= 0).all()
    assert grow[-1] > 4 * grow[0]
    assert np.ptp(constant) == 0


def test_elliptic_covers_a_wide_frame() -> None:
    """Points of an elliptic spiral are stretched by the frame's shape: 16 / 9 times as far along x, as far along y."""
    round_, stretched = (patches(6, metric=metric, greatest_radius=2.0) for metric in ("circular", "elliptic"))
    centre = np.array([160.0, 90.0])
    ratio = (middles(stretched) - centre)[2:5] / (middles(round_) - centre)[2:5]

    np.testing.assert_allclose(ratio, np.tile([320 / 180, 1.0], (3, 1)))


def test_drop_leaves_out_what_is_outside() -> None:
    """Of twelve patches the original moves one to the border; `drop` leaves out that one, the others stay."""
    kept, dropped = patches(12), patches(12, boundary="drop")

    assert np.flatnonzero(~dropped.inside).tolist() == [10]
    np.testing.assert_array_equal(dropped.boxes[dropped.inside], kept.boxes[dropped.inside])


def test_point_on_the_border_is_inside() -> None:
    """Points on the border by the formula, where sine and cosine may round either way, are not dropped."""
    found = patches(17, arms=16, start_radius=0.5, growth=1.0, metric="elliptic", boundary="drop")

    assert found.inside.all()


def test_reflect_mirrors_at_the_border() -> None:
    """A point as far outside the frame is put as far inside; the others stay."""
    kept, mirrored = patches(12), patches(12, boundary="reflect")
    beyond = 90 + kept.radius[10] * np.sin(kept.angle[10]) - 180

    assert beyond > 0
    assert middles(mirrored)[10, 1] == pytest.approx(180 - beyond)
    np.testing.assert_allclose(np.delete(mirrored.boxes, 10, 0), np.delete(kept.boxes, 10, 0))


def test_growth_of_one_is_a_circle() -> None:
    """Without growth all patches but the centre's lie at the start radius."""
    found = patches(7, growth=1.0, start_radius=0.3)

    np.testing.assert_allclose(found.radius, [0, *[54.0] * 6])


def test_options_are_compared_by_value() -> None:
    """Equal options are one key, so that a map is cached for both."""
    assert hash(SpiralConfig(arms=3)) == hash(replace(SpiralConfig(), arms=3))
