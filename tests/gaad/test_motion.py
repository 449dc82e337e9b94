"""Motion regions: they follow what moves, hold still where nothing does, and do not depend on how a film is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.gaad import RegionConfig, decompose
from bytropix.gaad.integral import box_sum, integrate
from bytropix.gaad.maps import region_maps
from bytropix.gaad.motion import motion_regions

Box = tuple[int, int, int, int]


def film(
    size: tuple[int, int], side: int, step: int, *, noise: int = 0, frames: int = 5, seed: int = 0
) -> tuple[NDArray[np.uint8], list[Box]]:
    """Return a square that moves to the right over a rough ground, and where it is in each frame."""
    random = np.random.default_rng(seed)
    height, width = size
    ground = random.integers(60, 120, (height, width, 3))
    images, places = [], []
    x, y = 2, height // 3
    for _ in range(frames):
        image = ground + random.integers(-noise, noise + 1, ground.shape)
        image[y : y + side, x : x + side] = (220, 40, 200)
        images.append(image)
        places.append((x, y, x + side, min(y + side, height)))
        x += step
    return np.stack(images).astype(np.uint8), places


def overlap(one: NDArray[np.float32], other: Box) -> float:
    """Return intersection over union."""
    wide, high = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    common = max(0.0, wide) * max(0.0, high)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(common / (sum(areas) - common))


@pytest.mark.parametrize(("step", "noise"), [(1, 0), (1, 3), (4, 3), (9, 0)])
@pytest.mark.parametrize("side", [16, 32, 60])
@pytest.mark.parametrize("size", [(128, 128), (180, 320), (320, 180), (360, 480)])
def test_best_region_follows_a_moving_square(size: tuple[int, int], side: int, step: int, noise: int) -> None:
    """Its overlap with the square is above 0.3 in each frame, whatever its size and speed; it is no static region."""
    images, places = film(size, side, step, noise=noise)
    found = motion_regions(images, None, RegionConfig())

    assert min(overlap(found[t, 0], places[t]) for t in range(1, len(images))) > 0.3
    assert found[0].tolist() == found[1].tolist()
    static = decompose(size[1], size[0], RegionConfig()).boxes.tolist()
    assert found[1, 0].tolist() not in static
    assert found[1, 0].tolist() != found[4, 0].tolist()


def test_two_movers_have_a_region_each() -> None:
    """Two squares that move in different corners are each found by one of the regions."""
    images, places = film((128, 128), 20, 3)
    images[:, 96:116] = images[:, 96:97, :1]
    others = [(90 - 4 * t, 96, 110 - 4 * t, 116) for t in range(len(images))]
    for image, (x0, y0, x1, y1) in zip(images, others, strict=True):
        image[y0:y1, x0:x1] = 250
    found = motion_regions(images, None, RegionConfig())

    for t in range(1, len(images)):
        for place in (places[t], others[t]):
            assert max(overlap(box, place) for box in found[t]) > 0.3


def test_where_nothing_moves_all_is_padding() -> None:
    """Equal frames, frames that differ by a level of noise, and a frame on its own have no motion region."""
    images, _ = film((96, 64), 20, 0, frames=3)
    images[2] += 2

    assert not motion_regions(images, None, RegionConfig()).any()
    assert not motion_regions(images[:1], None, RegionConfig()).any()


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    count=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    flat=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_regions_lie_in_the_frame(height: int, width: int, count: int, seed: int, flat: bool) -> None:
    """Any size: valid boxes inside the frame, then padding; no two overlap by more than is allowed; twice the same."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    if flat:
        images[1:] = images[0]
        images[2, : height // 2 + 1, : width // 3 + 1] ^= 0xFF
    config = RegionConfig(motion_regions=count)
    found = motion_regions(images, None, config)

    assert found.shape == (3, count, 4)
    assert found.dtype == np.float32
    for boxes in found:
        real = boxes.any(axis=1)
        assert (np.flatnonzero(real) == np.arange(real.sum())).all()
        x0, y0, x1, y1 = boxes[real].T
        assert ((x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)).all()
    assert (found == motion_regions(images.copy(), None, config)).all()


def test_regions_of_a_frame_overlap_little() -> None:
    """In cells of one pixel, no two regions of a frame overlap by more than the config allows."""
    random = np.random.default_rng(5)
    images = np.zeros((4, 90, 120, 3), np.uint8)
    for y, x in ((5, 5), (5, 100), (70, 8), (72, 98), (40, 50)):
        images[:, y : y + 9, x : x + 12] = random.integers(0, 256, (4, 9, 12, 3))
    for boxes in motion_regions(images, None, RegionConfig(motion_regions=8, motion_overlap=0.1)):
        real = [box for box in boxes if box.any()]
        assert len(real) > 2
        for i, box in enumerate(real):
            assert all(overlap(box, tuple(other)) <= 0.1 for other in real[:i])


@pytest.mark.parametrize("cuts", [[1, 2, 3], [4], [2, 7], [5, 6]])
def test_maps_do_not_depend_on_how_a_film_is_handed_over(cuts: list[int]) -> None:
    """In pieces, each with the frame before it, a film has the maps that it has as a whole."""
    images, _ = film((72, 100), 16, 3, noise=2, frames=9)
    whole = region_maps(images, None, RegionConfig())
    if cuts[0] == 1:  # a scene's first frame needs its second
        cuts = [2, *cuts[1:]]
    pieces = []
    for first, last in zip([0, *cuts], [*cuts, len(images)], strict=True):
        pieces.append(region_maps(images[first:last], images[first - 1] if first else None, RegionConfig()))

    for kind in (0, 1):
        assert (np.concatenate([piece[kind] for piece in pieces]) == whole[kind]).all()


def test_static_regions_are_the_map_of_the_size() -> None:
    """Every frame has the map that `decompose` gives for its size, padding included."""
    images, _ = film((16, 16), 4, 1)
    regions, _ = region_maps(images, None, RegionConfig(regions=24, decomposition="subdivide"))

    assert (regions == decompose(16, 16, RegionConfig(regions=24, decomposition="subdivide")).boxes).all()
    assert not regions[:, -1].any()


@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_box_sums_are_those_of_numpy(height: int, width: int, seed: int) -> None:
    """Four look-ups give the sum of any box, in whole numbers."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 2**31 - 1, (height, width), dtype=np.int32)
    integral = np.empty((height + 1, width + 1), np.int64)
    integrate(values, integral)
    (x0, x1), (y0, y1) = (sorted(random.integers(0, side + 1, 2).tolist()) for side in (width, height))

    assert box_sum(integral, x0, y0, x1, y1) == values[y0:y1, x0:x1].sum(dtype=np.int64)
