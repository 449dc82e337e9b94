"""Golden subdivision: the original's rectangles, tilings without gap or overlap, and which rectangles are kept."""

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.gaad import RegionConfig, Regions, decompose
from bytropix.gaad.config import GOLDEN, RuleName, SelectName
from bytropix.gaad.subdivision import grow
from bytropix.jobs.bench.original_regions import original_regions, rounded

# What the original returns, in its order, rounded: frame size, count, boxes after the frame itself.
ORIGINAL = [
    ((320, 180), 3, [(0, 0, 197.77, 180), (197.77, 0, 320, 180)]),
    ((320, 180), 4, [(0, 0, 197.77, 180), (197.77, 0, 320, 180), (0, 0, 122.23, 180)]),
    (
        (320, 180),
        8,
        [
            *[(0, 0, 197.77, 180), (197.77, 0, 320, 180), (0, 0, 122.23, 180), (197.8, 0, 320, 111.2)],
            *[(0, 0, 122.2, 111.2), (122.2, 0, 197.8, 180), (197.8, 111.2, 320, 180)],
        ],
    ),
    ((180, 320), 4, [(0, 0, 180, 197.8), (0, 197.8, 180, 320), (0, 0, 180, 122.2)]),
    ((64, 64), 4, [(0, 0, 39.55, 64), (0, 0, 39.55, 39.55), (39.55, 0, 64, 64)]),
    (
        (64, 64),
        8,
        [
            *[(0, 0, 39.55, 64), (0, 0, 39.55, 39.55), (39.55, 0, 64, 64), (0, 0, 24.4, 39.6)],
            *[(0, 39.6, 39.6, 64), (39.6, 0, 64, 39.6), (24.4, 0, 39.6, 39.6)],
        ],
    ),
    ((1920, 1080), 4, [(0, 0, 1186.6, 1080), (1186.6, 0, 1920, 1080), (0, 0, 733.4, 1080)]),
]
SIDES = st.integers(16, 400) | st.sampled_from([16, 17, 31, 1080, 1920, 2560, 4320, 7680])
RULES, SELECTIONS = get_args(RuleName), get_args(SelectName)


def subdivided(width: int, height: int, n: int, **settings: object) -> Regions:
    """Return the rectangles of a frame."""
    return decompose(width, height, RegionConfig(regions=n, decomposition="subdivide", **settings))  # type: ignore[arg-type]


def areas(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the area of each box."""
    wide = boxes.astype(np.float64)
    found: NDArray[np.float64] = (wide[:, 2] - wide[:, 0]) * (wide[:, 3] - wide[:, 1])
    return found


def overlap(boxes: NDArray[np.float32]) -> float:
    """Return the largest area that two of the boxes share."""
    wide = boxes.astype(np.float64)
    low = np.maximum(wide[:, None, :2], wide[None, :, :2])
    high = np.minimum(wide[:, None, 2:], wide[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    np.fill_diagonal(shared, 0)
    return float(shared.max(initial=0))


@pytest.mark.parametrize(("size", "n", "parts"), ORIGINAL)
def test_largest_is_the_original(size: tuple[int, int], n: int, parts: list[tuple[float, ...]]) -> None:
    """The default selection returns the original's boxes in the original's order, ties and all."""
    regions = subdivided(*size, n)

    assert regions.valid.all()
    np.testing.assert_allclose(regions.boxes, [(0, 0, *size), *parts], atol=0.06)


@pytest.mark.parametrize(("size", "distinct"), [((16, 16), 11), ((8, 64), 20)])
def test_small_frames_run_out(size: tuple[int, int], distinct: int) -> None:
    """Where the original repeats its last box for want of others, the rest is padding."""
    regions = subdivided(*size, 32)

    assert regions.count == distinct
    assert regions.valid[:distinct].all()
    assert not regions.boxes[distinct:].any()
    assert (regions.parent[distinct:] == -1).all()


@given(width=SIDES, height=SIDES, n=st.integers(1, 48), rule=st.sampled_from(RULES))
def test_leaves_tile_the_frame(width: int, height: int, n: int, rule: RuleName) -> None:
    """Leaves cover the frame without gap or overlap, whatever the rule, and there are n where 16 pixels allow it."""
    regions = subdivided(width, height, n, rule=rule, select="leaves")
    boxes = regions.boxes[regions.valid]

    assert areas(boxes).sum() == pytest.approx(width * height, rel=1e-5)
    assert overlap(boxes) <= 1e-3 * max(width, height)
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 5 - 1e-3
    assert regions.count == n or regions.count >= width * height // 240


@given(width=SIDES, height=SIDES, n=st.integers(2, 40), rule=st.sampled_from(RULES), by_area=st.booleans())
def test_parts_tile_their_parent(*, width: int, height: int, n: int, rule: RuleName, by_area: bool) -> None:
    """The two parts of every divided rectangle have its area between them, share nothing and lie inside it."""
    rectangles, divided = grow(width, height, rule, 5, deepest=12, enough=n, by_area=by_area)
    for number, parent in enumerate(rectangles):
        parts = [part for part in rectangles if part.parent == number]
        assert len(parts) == (2 if divided[number] else 0)
        if parts:
            first, second = parts
            assert first.area + second.area == pytest.approx(parent.area)
            assert (first.x, first.y) == (parent.x, parent.y)
            beside = second.x == pytest.approx(first.x + first.width) and second.height == parent.height
            below = second.y == pytest.approx(first.y + first.height) and second.width == parent.width
            assert beside != below
            assert (second.x + second.width, second.y + second.height) == pytest.approx(
                (parent.x + parent.width, parent.y + parent.height)
            )


@given(width=SIDES, height=SIDES, n=st.integers(2, 40))
def test_golden_cut_is_golden_across_the_longer_side(width: int, height: int, n: int) -> None:
    """The larger part has 0.618 of its parent's longer side and all of the shorter one."""
    rectangles, _ = grow(width, height, "golden_cut", 5, deepest=12, enough=n)
    for part in rectangles[1::2]:
        parent = rectangles[part.parent]
        longer, shorter = max(parent[2:4]), min(parent[2:4])
        assert sorted((part.width, part.height)) == pytest.approx(sorted((longer / GOLDEN, shorter)))


def test_square_remainder_takes_squares_off() -> None:
    """A 16:9 frame gives squares of 9, 7, 2, 2, 2 units, and the remainder is there, so that nothing is uncovered."""
    regions = subdivided(1600, 900, 6, rule="square_remainder", select="leaves")
    sides = regions.boxes[:, 2:] - regions.boxes[:, :2]

    assert sides.tolist() == [[900, 900], [700, 700], [200, 200], [200, 200], [200, 200], [100, 200]]


def test_squares_wait_until_nothing_else_is_left() -> None:
    """The square rule cuts a square only after every other rectangle, so that a square frame is divided too."""
    wide = subdivided(1600, 900, 5, rule="square_remainder", select="leaves")
    square = subdivided(128, 128, 8, rule="square_remainder", select="leaves")

    assert tuple(wide.boxes[0, 2:]) == (900, 900)
    assert square.count == 8


def test_rules_agree_on_a_golden_rectangle() -> None:
    """Taking a square off a golden rectangle is the golden cut."""
    golden = subdivided(1597, 987, 3, rule="golden_cut", select="breadth_first")
    square = subdivided(1597, 987, 3, rule="square_remainder", select="breadth_first")

    np.testing.assert_allclose(golden.boxes, square.boxes, atol=0.01)


@given(width=SIDES, height=SIDES, n=st.integers(1, 60), rule=st.sampled_from(RULES))
def test_breadth_first_keeps_coarse_before_fine(width: int, height: int, n: int, rule: RuleName) -> None:
    """Depths never fall; the frame comes first, and a box's parent stands before it and contains it."""
    regions = subdivided(width, height, n, rule=rule, select="breadth_first")
    kept = regions.boxes[regions.valid]

    assert regions.boxes[0].tolist() == [0, 0, width, height]
    for number in range(1, regions.count):
        parent = regions.parent[number]
        assert 0 <= parent < number
        assert regions.depth[number] == regions.depth[parent] + 1
        assert (kept[number, :2] >= kept[parent, :2] - 1e-3).all()
        assert (kept[number, 2:] <= kept[parent, 2:] + 1e-3).all()
    if rule == "golden_cut":
        assert (np.diff(regions.depth[: regions.count]) >= 0).all()


@pytest.mark.parametrize("n", [4, 8, 16, 64])
def test_multi_scale_shares_between_depths(n: int) -> None:
    """No depth has two rectangles fewer than another, unless it has no more."""
    regions = subdivided(1920, 1080, n, select="multi_scale")
    counts = np.bincount(regions.depth)

    assert regions.count == n
    assert len(counts) == 2 + math.floor(math.log2(n))
    richest = counts.max()
    assert all(count >= richest - 1 or count == 2**depth for depth, count in enumerate(counts))


def test_multi_scale_spreads_over_the_frame() -> None:
    """The finest rectangles are not all in one corner: each half of the frame, either way, has some."""
    regions = subdivided(1024, 1024, 32, select="multi_scale")
    finest = regions.boxes[regions.depth == regions.depth.max()]
    middles = (finest[:, :2] + finest[:, 2:]) / 2

    assert (middles.min(0) < 512).all()
    assert (middles.max(0) > 512).all()


@pytest.mark.parametrize("select", SELECTIONS)
def test_full_frame_is_left_out(select: SelectName) -> None:
    """Without the full frame no rectangle is the frame, and there are as many."""
    regions = subdivided(320, 180, 8, select=select, full_frame=False)

    assert regions.count == 8
    assert areas(regions.boxes).max() < 320 * 180
    assert regions.depth.min() > 0


def test_undividable_frame_is_its_own_region() -> None:
    """A frame too small to cut is the one region, even where the full frame is not asked for."""
    regions = subdivided(8, 8, 4, full_frame=False)

    assert regions.count == 1
    assert regions.boxes[0].tolist() == [0, 0, 8, 8]


def test_parent_is_the_nearest_kept_ancestor() -> None:
    """Of the original's eight on 64 x 64, every box lies in its parent, and no kept box lies between the two."""
    regions = subdivided(64, 64, 8)

    assert regions.parent.tolist() == [-1, 0, 1, 0, 2, 1, 3, 2]
    assert regions.depth.tolist() == [0, 1, 2, 1, 3, 2, 2, 3]


@pytest.mark.parametrize("select", ["largest", "breadth_first", "multi_scale"])
@pytest.mark.parametrize("rule", RULES)
def test_parent_is_the_smallest_kept_that_contains(select: SelectName, rule: RuleName) -> None:
    """Also where the rectangle that a region was cut from is not in the map, its parent is the tightest around it."""
    regions = subdivided(1920, 1080, 24, select=select, rule=rule)
    wide = regions.boxes.astype(np.float64)
    for number in range(1, 24):
        around = [
            other
            for other in range(24)
            if regions.depth[other] < regions.depth[number]
            and (wide[other, :2] <= wide[number, :2] + 1e-3).all()
            and (wide[other, 2:] >= wide[number, 2:] - 1e-3).all()
        ]
        assert regions.parent[number] == max(around, key=lambda other: regions.depth[other])


@pytest.mark.parametrize("n", [2, 5, 8, 33, 64])
def test_leaves_are_about_as_large(n: int) -> None:
    """The largest is always divided next: no leaf has less than 0.382 of the area of another."""
    sizes = areas(subdivided(1920, 1080, n, select="leaves").boxes)

    assert sizes.min() >= sizes.max() / GOLDEN**2 * 0.999
    assert (np.diff(sizes) <= 1).all()


@given(width=SIDES, height=SIDES, n=st.integers(1, 64))
def test_largest_is_the_original_at_any_size(width: int, height: int, n: int) -> None:
    """The default map is that of a plain port of the original; where that has a box twice, ours has padding."""
    regions = decompose(width, height, RegionConfig(regions=n))
    original = list(dict.fromkeys(rounded(box) for box in original_regions(width, height, n)))

    assert regions.count == len(original)
    np.testing.assert_allclose(regions.boxes[: regions.count], original, atol=2e-3)
