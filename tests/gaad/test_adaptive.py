"""Maps that follow the picture: valid, exact counts, mirrored as the picture is, finer where it has detail."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.gaad import DECOMPOSITIONS, RegionConfig, SpiralConfig, decompose
from bytropix.gaad.adaptive import adaptive_regions
from bytropix.gaad.config import (
    AngleName,
    BoundaryName,
    MetricName,
    PatchName,
    RadiiName,
    RuleName,
    SelectName,
)
from bytropix.gaad.energy import energy_maps, grid
from bytropix.gaad.maps import region_maps

FOLLOWING = sorted(set(DECOMPOSITIONS) - {"grid"})
KINDS = ["noise", "plain", "across", "down", "both", "turned", "half", "dots"]
CONFIGS = st.builds(
    RegionConfig,
    regions=st.integers(1, 40),
    decomposition=st.sampled_from(FOLLOWING),
    rule=st.sampled_from(get_args(RuleName)),
    select=st.sampled_from(get_args(SelectName)),
    full_frame=st.booleans(),
    min_side=st.sampled_from([1.0, 5.0, 20.0]),
    spiral=st.builds(
        SpiralConfig,
        arms=st.integers(1, 5),
        angle=st.sampled_from(get_args(AngleName)),
        radii=st.sampled_from(get_args(RadiiName)),
        patch=st.sampled_from(get_args(PatchName)),
        metric=st.sampled_from(get_args(MetricName)),
        boundary=st.sampled_from(get_args(BoundaryName)),
    ),
)


def picture(kind: str, width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Return one frame u8 [1, h, w, 3]: noise, plain, the same after some mirroring, half plain, or dots on black."""
    random = np.random.default_rng(seed)
    frame = random.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    if kind == "plain":
        frame[:] = frame[0, 0, 0]
    if kind in ("across", "both"):
        frame = np.maximum(frame, frame[:, :, ::-1])
    if kind in ("down", "both"):
        frame = np.maximum(frame, frame[:, ::-1])
    if kind == "turned":
        frame = np.maximum(frame, frame[:, ::-1, ::-1])
    if kind == "half":
        frame[:, : height // 2] = 40
    if kind == "dots":
        frame[random.random(frame.shape[:3]) < 0.98] = 0
    return frame


def mirror(boxes: NDArray[np.float32], width: int, height: int, *, across: bool, down: bool) -> NDArray[np.float32]:
    """Return boxes [n, 4] mirrored; padding stays."""
    boxes = boxes.copy()
    real = boxes.any(axis=1)
    if across:
        boxes[real, 0::2] = width - boxes[real][:, [2, 0]]
    if down:
        boxes[real, 1::2] = height - boxes[real][:, [3, 1]]
    return boxes


def as_set(boxes: NDArray[np.float32]) -> set[tuple[float, ...]]:
    """Return the boxes as a set."""
    return {tuple(box) for box in boxes.tolist()}


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
    config=CONFIGS,
)
def test_every_map_keeps_the_rules_and_turns_with_its_picture(
    width: int, height: int, kind: str, seed: int, config: RegionConfig
) -> None:
    """Any picture, size and options: exactly n, valid first, inside, no box twice; mirrored either way, to the bit."""
    frame = picture(kind, width, height, seed)
    (boxes,) = adaptive_regions(frame, config)
    count = int(boxes.any(axis=1).sum())

    assert boxes.shape == (config.regions, 4)
    assert boxes.dtype == np.float32
    assert count >= 1 or (config.spiral.boundary == "drop" and config.decomposition == "spiral")
    assert not boxes[count:].any()
    assert (boxes[:count, :2] < boxes[:count, 2:]).all()
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert len(as_set(boxes[:count])) == count
    assert (boxes == adaptive_regions(frame.copy(), config)[0]).all()
    for across, down in ((True, False), (False, True), (True, True)):
        turned = frame[:, :: -1 if down else 1, :: -1 if across else 1]
        expected = mirror(boxes, width, height, across=across, down=down)
        assert as_set(adaptive_regions(turned, config)[0]) == as_set(expected)


@pytest.mark.parametrize("name", FOLLOWING)
@pytest.mark.parametrize("size", [(128, 128), (320, 180), (90, 160), (257, 101)])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_count(name: str, size: tuple[int, int], kind: str) -> None:
    """Every kind of picture, plain and symmetric ones too, has as many regions as are asked for."""
    frame = picture(kind, *size, seed=1)
    for n in (1, 4, 7, 8, 24):
        boxes = adaptive_regions(frame, RegionConfig(regions=n, decomposition=name))[0]  # type: ignore[arg-type]
        assert boxes.any(axis=1).all()


def test_order_is_mirrored_too() -> None:
    """Of a picture that is not symmetric, each row of the mirrored map is the mirrored row."""
    frame = picture("noise", 128, 96, seed=2)
    for name in FOLLOWING:
        config = RegionConfig(regions=24, decomposition=name)  # type: ignore[arg-type]
        found = adaptive_regions(frame[:, :, ::-1], config)[0]
        np.testing.assert_array_equal(
            found, mirror(adaptive_regions(frame, config)[0], 128, 96, across=True, down=False)
        )


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 999),
    n=st.integers(1, 40),
    rule=st.sampled_from(get_args(RuleName)),
)
def test_leaves_tile_the_frame(width: int, height: int, kind: str, seed: int, n: int, rule: RuleName) -> None:
    """Leaves have the area of the frame and do not overlap, whatever the picture."""
    config = RegionConfig(regions=n, decomposition="subdivide", select="leaves", rule=rule)
    boxes = adaptive_regions(picture(kind, width, height, seed), config)[0].astype(np.float64)
    boxes = boxes[boxes.any(axis=1)]
    wide = np.minimum(boxes[:, None, 2], boxes[None, :, 2]) - np.maximum(boxes[:, None, 0], boxes[None, :, 0])
    high = np.minimum(boxes[:, None, 3], boxes[None, :, 3]) - np.maximum(boxes[:, None, 1], boxes[None, :, 1])
    common = np.maximum(wide, 0) * np.maximum(high, 0)

    assert np.trace(common) == width * height
    assert common.sum() == width * height


def textured(x0: int, y0: int, x1: int, y1: int, size: int = 128) -> NDArray[np.uint8]:
    """Return a grey frame with noise in one rectangle."""
    frame = np.full((1, size, size, 3), 90, np.uint8)
    frame[0, y0:y1, x0:x1] = np.random.default_rng(0).integers(0, 256, (y1 - y0, x1 - x0, 3))
    return frame


@pytest.mark.parametrize("corner", [(0, 0), (96, 0), (0, 96), (96, 96)])
@pytest.mark.parametrize("rule", get_args(RuleName))
def test_detail_is_cut_finer(corner: tuple[int, int], rule: RuleName) -> None:
    """Where the noise is, tiles are far smaller than where the frame is plain, whichever corner it is in."""
    x, y = corner
    config = RegionConfig(regions=16, decomposition="subdivide", select="leaves", rule=rule)
    boxes = adaptive_regions(textured(x, y, x + 32, y + 32), config)[0]
    inside = np.minimum(boxes[:, 2:], [x + 32, y + 32]) - np.maximum(boxes[:, :2], [x, y])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    noisy = np.prod(np.maximum(inside, 0), axis=1) / area > 0.4

    assert noisy.sum() >= 3
    assert area[noisy].mean() < area[~noisy].mean() / 3


def test_calm_end_has_the_golden_share() -> None:
    """The first cut gives 0.618 of the frame to the end without detail."""
    for x, cut in ((0, 128 * (1 - 0.618034)), (96, 128 * 0.618034)):
        config = RegionConfig(regions=2, decomposition="subdivide", select="leaves")
        boxes = adaptive_regions(textured(x, 0, x + 32, 128), config)[0]
        assert sorted(boxes[:, 0])[1] == pytest.approx(cut, abs=1 / 64)


@pytest.mark.parametrize("place", [(20, 30), (90, 30), (64, 100)])
def test_spiral_sits_on_the_detail(place: tuple[int, int]) -> None:
    """The patch at a spiral's centre lies on the only detail, nearer than an eighth of the side."""
    x, y = place
    frame = textured(x - 8, y - 8, x + 8, y + 8)
    for name, number in (("spiral", 0), ("hybrid", 4)):
        box = adaptive_regions(frame, RegionConfig(decomposition=name))[0, number]  # type: ignore[arg-type]
        assert np.abs((box[:2] + box[2:]) / 2 - [x, y]).max() < 16


def test_patches_of_refine_lie_in_their_tiles() -> None:
    """Each patch lies inside a tile, and the tiles with most detail have the more patches."""
    boxes = adaptive_regions(textured(0, 0, 40, 40), RegionConfig(regions=25, decomposition="refine"))[0]
    tiles = RegionConfig(regions=25, decomposition="refine").rectangles
    inside = (boxes[tiles:, None, :2] >= boxes[None, :tiles, :2]) & (boxes[tiles:, None, 2:] <= boxes[None, :tiles, 2:])
    held = inside.all(axis=2)

    assert held.any(axis=1).all()
    assert held.sum(axis=0).max() - held.sum(axis=0).min() == 1
    assert held.sum(axis=0)[0] == held.sum(axis=0).max()


def test_plain_frame_is_symmetric_and_follows_the_flat_rule() -> None:
    """A plain frame's tiling is its own mirror image both ways, and its tiles are of like size."""
    for n in (2, 3, 4, 5, 8, 13, 16):
        config = RegionConfig(regions=n, decomposition="subdivide", select="leaves")
        boxes = adaptive_regions(picture("plain", 160, 90, 0), config)[0]
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)

        assert (areas > 0).all()
        assert areas.max() / areas.min() < 7
        for across, down in ((True, False), (False, True)):
            assert as_set(boxes) == as_set(mirror(boxes, 160, 90, across=across, down=down))


@pytest.mark.parametrize("name", FOLLOWING)
def test_symmetric_frames_that_repeat_have_their_own_maps(name: str) -> None:
    """Among repeats and mirrorings of several symmetric pictures, each frame has the map that it has alone."""
    kinds = ["plain", "across", "down", "both", "turned", "noise"]
    some = np.stack([picture(kind, 80, 60, seed)[0] for seed in range(2) for kind in kinds])
    frames = np.concatenate([some, some[:, :, ::-1], some[::-1], some[:, ::-1]])
    config = RegionConfig(regions=13, decomposition=name)  # type: ignore[arg-type]

    alone = np.concatenate([adaptive_regions(frame[None], config) for frame in frames])
    np.testing.assert_array_equal(adaptive_regions(frames, config), alone)


@pytest.mark.parametrize("name", FOLLOWING)
def test_maps_do_not_depend_on_how_frames_are_handed_over(name: str) -> None:
    """A frame's map is the same alone, among others, and in a slice of an array with other strides."""
    frames = np.concatenate([picture(kind, 71, 50, seed) for seed in range(3) for kind in KINDS])
    config = RegionConfig(regions=13, decomposition=name, adaptive=True)  # type: ignore[arg-type]
    whole = region_maps(frames, None, config)[0]

    np.testing.assert_array_equal(whole, adaptive_regions(frames, config))
    for cuts in ([1], [5, 6, 20], [12]):
        pieces = [region_maps(piece, None, config)[0] for piece in np.split(frames, cuts)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(adaptive_regions(frames[::2], config), whole[::2])


def test_adaptive_differs_from_the_static_map_and_between_pictures() -> None:
    """Two pictures have two maps, and neither is that of their size."""
    config = RegionConfig()
    one, other = (adaptive_regions(picture("noise", 128, 128, seed), config)[0] for seed in (1, 2))

    assert (one != other).any()
    assert (one != decompose(128, 128, config).boxes).any()


@given(width=st.integers(1, 300), height=st.integers(1, 300))
@settings(deadline=None)
def test_grid_is_its_own_mirror_image(width: int, height: int) -> None:
    """Cells cover the frame, none is empty, at most 32 a side, and edges are the same from either end."""
    cells = grid(width, height)
    for edges, owner, length in ((cells.columns, cells.column_of, width), (cells.rows, cells.row_of, height)):
        assert edges[0] == 0
        assert (edges + edges[::-1] == length).all()
        assert (np.diff(edges) > 0).all()
        assert edges.size <= 33
        assert ((edges[owner] <= np.arange(length)) & (np.arange(length) < edges[owner + 1])).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 3), (128, 96), (65, 130)])
def test_energy_is_the_sum_of_differences(size: tuple[int, int]) -> None:
    """Differences of luma beyond noise, given to both pixels, summed over cells, and a little everywhere: in numpy."""
    width, height = size
    frame = picture("noise", width, height, seed=4)
    luma = frame[0].astype(np.int64) @ [1, 2, 1]
    pixels = np.zeros_like(luma)
    across, down = (np.maximum(np.abs(np.diff(luma, axis=axis)) - 12, 0) for axis in (1, 0))
    pixels[:, 1:] += across
    pixels[:, :-1] += across
    pixels[1:] += down
    pixels[:-1] += down
    pixels += 1 + pixels.sum() // (8 * width * height)
    cells = grid(width, height)
    expected = np.add.reduceat(np.add.reduceat(pixels, cells.rows[:-1], axis=0), cells.columns[:-1], axis=1)

    np.testing.assert_array_equal(energy_maps(frame)[0], expected)


def test_noise_has_no_energy() -> None:
    """Differences of two levels change nothing: the energies are a plain frame's."""
    frame = np.full((1, 64, 64, 3), 100, np.uint8)
    noisy = frame + np.random.default_rng(0).integers(0, 3, frame.shape, dtype=np.uint8)

    np.testing.assert_array_equal(energy_maps(noisy), energy_maps(frame))


def test_settings_of_motion_do_not_matter() -> None:
    """Only what is about regions changes the regions."""
    frame = picture("noise", 64, 48, seed=5)
    config = RegionConfig()

    np.testing.assert_array_equal(
        adaptive_regions(frame, config), adaptive_regions(frame, replace(config, motion_regions=9, adaptive=True))
    )
