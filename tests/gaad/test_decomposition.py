"""Maps of a frame size: exact counts with padding, boxes inside the frame, one object for the same arguments."""

import subprocess
import sys
from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytropix.errors import ConfigError
from bytropix.gaad import DECOMPOSITIONS, RegionConfig, Regions, SpiralConfig, decompose, rectangle_count
from bytropix.gaad.config import (
    AngleName,
    BoundaryName,
    DecompositionName,
    MetricName,
    PatchName,
    RadiiName,
    RuleName,
    SelectName,
)
from bytropix.gaad.decomposition import _decomposed

SIZES = [(16, 16), (17, 31), (31, 17), (128, 128), (320, 180), (180, 320), (2560, 1080), (7680, 4320), (3, 2000)]
SIDES = st.integers(1, 500) | st.sampled_from([1080, 1920, 4320, 7680])
CONFIGS = st.builds(
    RegionConfig,
    regions=st.integers(1, 80),
    decomposition=st.sampled_from(sorted(DECOMPOSITIONS)),
    rule=st.sampled_from(get_args(RuleName)),
    select=st.sampled_from(get_args(SelectName)),
    full_frame=st.booleans(),
    min_side=st.sampled_from([1.0, 5.0, 50.0]),
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


def check(regions: Regions, width: int, height: int, n: int) -> None:
    """Assert what every map keeps."""
    count = regions.count
    boxes = regions.boxes[:count]

    assert {field.name: len(getattr(regions, field.name)) for field in fields(Regions)} == dict.fromkeys(
        (field.name for field in fields(Regions)), n
    )
    assert 1 <= count <= n
    assert regions.valid[:count].all()
    assert not regions.boxes[count:].any()
    assert regions.boxes.dtype == np.float32
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert len({tuple(box) for box in boxes.round(3).tolist()}) == count
    assert (regions.parent[:count] < np.arange(count)).all()
    assert (regions.parent[count:] == -1).all()
    for name in ("radius", "angle", "scale", "depth"):
        assert np.isfinite(getattr(regions, name)).all()
        assert not getattr(regions, name)[count:].any()
    assert (regions.scale[:count] > 0).all()


@given(width=SIDES, height=SIDES, config=CONFIGS)
def test_every_map_keeps_the_rules(width: int, height: int, config: RegionConfig) -> None:
    """Any size, count and options: exactly n, valid first, inside the frame, no box twice, parents before children."""
    check(decompose(width, height, config), width, height, config.regions)


@pytest.mark.parametrize("name", sorted(DECOMPOSITIONS))
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_size(name: str, width: int, height: int) -> None:
    """From 16 x 16 to 8K, wide, tall and odd, each kind of map has its eight regions; a thread of a frame fewer.

    So has a grid where none of eight equal cells would be too narrow.
    """
    regions = decompose(width, height, RegionConfig(decomposition=name))  # type: ignore[arg-type]

    check(regions, width, height, 8)
    assert regions.count == 8 or width < 5 or (name == "grid" and (regions.count, width) == (6, 16))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 256])
def test_hybrid_is_half_and_half(n: int) -> None:
    """The smaller half are rectangles, then come the patches; of one region it is the centre's patch."""
    regions = decompose(1920, 1080, RegionConfig(regions=n, spiral=SpiralConfig(boundary="reflect")))
    patches = np.flatnonzero(regions.scale[: n // 2 + 1] == np.float32(0.25))

    assert regions.count == n
    assert patches.tolist() == [n // 2]
    assert not regions.radius[: n // 2].any()


@pytest.mark.parametrize(
    ("size", "n", "sides"), [((320, 180), 7, [45, 28.04, 17.77, 9]), ((64, 64), 8, [16, 9.97, 6.32, 3.2])]
)
def test_hybrid_is_the_original(size: tuple[int, int], n: int, sides: list[float]) -> None:
    """The original's rectangles, then squares with its sides."""
    regions = decompose(*size, RegionConfig(regions=n))
    rectangles = decompose(*size, RegionConfig(regions=n // 2, decomposition="subdivide"))

    np.testing.assert_array_equal(regions.boxes[: n // 2], rectangles.boxes)
    np.testing.assert_allclose(regions.boxes[n // 2 :, 2] - regions.boxes[n // 2 :, 0], sides, atol=0.01)


@pytest.mark.parametrize("n", [3, 8, 24, 100])
def test_refine_puts_spirals_into_tiles(n: int) -> None:
    """Rectangles that tile the frame come first; every other region is a patch one deeper, inside its rectangle."""
    regions = decompose(640, 360, RegionConfig(regions=n, decomposition="refine"))
    tiles = int((regions.parent == -1).sum())
    first, patches = regions.boxes[:tiles].astype(np.float64), regions.boxes[tiles : regions.count]
    homes = regions.parent[tiles : regions.count]

    assert regions.count == n
    assert tiles == rectangle_count("refine", n) == max(1, round(n * 0.236068))
    assert ((first[:, 2:] - first[:, :2]).prod(1)).sum() == pytest.approx(640 * 360)
    assert (patches[:, :2] >= first[homes, :2] - 1e-3).all()
    assert (patches[:, 2:] <= first[homes, 2:] + 1e-3).all()
    assert (regions.depth[tiles:] == regions.depth[homes] + 1).all()
    assert np.ptp(np.bincount(homes, minlength=tiles)) <= 1


@given(width=SIDES, height=SIDES, n=st.integers(1, 64), least=st.sampled_from([1.0, 5.0]))
def test_grid_tiles_the_frame(width: int, height: int, n: int, least: float) -> None:
    """A grid's cells are equal, none is too narrow, and together they cover the frame without gap or overlap."""
    regions = decompose(width, height, RegionConfig(regions=n, decomposition="grid", min_side=least))
    boxes = regions.boxes[regions.valid].astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    columns, rows = (len(np.unique(boxes[:, axis])) for axis in (0, 1))

    assert regions.count == columns * rows
    np.testing.assert_allclose(sides, np.broadcast_to([width / columns, height / rows], sides.shape), atol=2e-3)
    np.testing.assert_allclose(boxes[0, :2], 0)
    np.testing.assert_allclose(boxes[-1, 2:], [width, height])
    assert sides.prod(1).sum() == pytest.approx(width * height, rel=1e-4)
    assert sides.min() >= min(least, width, height) - 1e-3
    assert regions.count == n or width < n * least or height < n * least


@pytest.mark.parametrize(
    ("size", "n", "shape"),
    [
        ((96, 64), 8, (4, 2)),
        ((64, 96), 8, (2, 4)),
        ((64, 64), 8, (4, 2)),
        ((64, 64), 9, (3, 3)),
        ((320, 180), 12, (4, 3)),
        ((320, 180), 15, (5, 3)),
        ((64, 64), 7, (7, 1)),
        ((30, 30), 7, (3, 2)),
    ],
)
def test_grid_follows_the_aspect(size: tuple[int, int], n: int, shape: tuple[int, int]) -> None:
    """Of the shapes with n cells, the one whose cells are most nearly squares; one cell fewer where none would do."""
    regions = decompose(*size, RegionConfig(regions=n, decomposition="grid"))
    boxes = regions.boxes[regions.valid]

    assert (len(np.unique(boxes[:, 0])), len(np.unique(boxes[:, 1]))) == shape


@pytest.mark.parametrize("name", sorted(DECOMPOSITIONS))
@pytest.mark.parametrize("n", [1, 2, 8, 23])
def test_rectangles_come_before_patches(name: DecompositionName, n: int) -> None:
    """The first `rectangle_count` regions are rectangles, which scale by area; the side of a patch is its scale."""
    config = RegionConfig(decomposition=name, regions=n)
    regions = decompose(1000, 600, config)
    wide = regions.boxes.astype(np.float64)
    shares = np.sqrt((wide[:, 2:] - wide[:, :2]).prod(1) / (1000 * 600))
    first = rectangle_count(name, n)

    assert first == config.rectangles
    np.testing.assert_allclose(regions.scale[:first], shares[:first], rtol=1e-5)
    assert (regions.scale[first:] > shares[first:] * 1.01).all()


def test_second_call_returns_the_same_object() -> None:
    """An equal config is a hit; another size or config is not."""
    regions = decompose(640, 360, RegionConfig(regions=9))

    assert decompose(640, 360, RegionConfig(regions=9)) is regions
    assert decompose(360, 640, RegionConfig(regions=9)) is not regions
    assert decompose(640, 360, RegionConfig(regions=9, rule="square_remainder")) is not regions


@pytest.mark.parametrize("name", [field.name for field in fields(Regions)])
def test_maps_cannot_be_written_to(name: str) -> None:
    """A map is shared by all who asked for it, so nobody may change it."""
    with pytest.raises(ValueError, match="read-only"):
        getattr(decompose(64, 64, RegionConfig()), name)[0] = 1


def test_same_bytes_when_computed_again() -> None:
    """Computed afresh, in another process and in another order too, a map has the same bytes."""
    code = (
        "from bytropix.gaad import *\n"
        "decompose(99, 77, RegionConfig(regions=64))\n"
        "r = decompose(320, 180, RegionConfig(regions=40, decomposition='refine'))\n"
        "print(r.boxes.tobytes().hex() + r.angle.tobytes().hex())"
    )
    config = RegionConfig(regions=40, decomposition="refine")
    here, again = decompose(320, 180, config), _decomposed.__wrapped__(320, 180, config)
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert here is not again
    assert here.boxes.tobytes() == again.boxes.tobytes()
    assert other.stdout.strip() == here.boxes.tobytes().hex() + here.angle.tobytes().hex()


def test_doubles_become_padding() -> None:
    """Patches that the border brings together are one region, and the count is kept by padding."""
    crowded = RegionConfig(
        regions=40,
        decomposition="spiral",
        spiral=SpiralConfig(start_radius=1.0, growth=1.0, greatest_radius=2.0),
    )
    regions = decompose(64, 64, crowded)

    check(regions, 64, 64, 40)
    assert regions.count < 40


def test_boxes_that_float32_brings_together_are_one() -> None:
    """On the widest of frames, patches that differ by less than float32 tells there are one region too."""
    spiral = SpiralConfig(
        arms=4, angle="golden", growth=1.0, start_radius=0.001, greatest_radius=0.01, patch="grow", boundary="reflect"
    )
    config = RegionConfig(regions=64, decomposition="spiral", select="leaves", min_side=8.5, spiral=spiral)
    regions = decompose(65536, 1, config)

    check(regions, 65536, 1, 64)
    assert 1 < regions.count < 64


def test_dropped_patches_become_padding() -> None:
    """What `drop` leaves out is not valid, and rectangles before it keep their places."""
    config = RegionConfig(regions=24)
    kept, dropped = (
        decompose(320, 180, replace(config, spiral=SpiralConfig(boundary=boundary))) for boundary in ("clamp", "drop")
    )

    assert kept.count == 24
    assert dropped.count == 23
    np.testing.assert_array_equal(dropped.boxes[:22], kept.boxes[:22])


def test_normalized_boxes_are_shares() -> None:
    """The whole frame is 0, 0, 1, 1, and padding stays nothing."""
    regions = decompose(16, 48, RegionConfig(regions=64, decomposition="subdivide"))
    shares = regions.normalized(16, 48)

    assert shares.dtype == np.float32
    assert shares[0].tolist() == [0, 0, 1, 1]
    assert regions.count < 64
    assert not shares[regions.count :].any()


@pytest.mark.parametrize(("width", "height"), [(0, 9), (9, -1), (9, 65537), (9.0, 9), (True, 9)])
def test_frame_sizes_that_cannot_be(width: int, height: int) -> None:
    """A side that is no whole number from 1 to 65536 is refused by name."""
    with pytest.raises(ConfigError, match=r"frame (width|height) must be a whole number from 1 to 65536"):
        decompose(width, height, RegionConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regions": 0}, "regions must be a whole number from 1 to 256, got 0"),
        ({"regions": 257}, "regions must be"),
        ({"regions": 8.0}, "regions must be"),
        ({"decomposition": "rows"}, "decomposition must be one of hybrid, subdivide, spiral, refine, grid, got 'rows'"),
        ({"decomposition": "grid", "adaptive": True}, "adaptive regions follow the picture and decomposition 'grid'"),
        ({"rule": "silver"}, "rule must be one of golden_cut, square_remainder"),
        ({"select": "best"}, "select must be one of largest"),
        ({"min_side": 0.5}, "min_side must lie in 1..10000, got 0.5"),
        ({"min_side": float("nan")}, "min_side must lie"),
        ({"motion_regions": 0}, "motion_regions must be"),
        ({"motion_overlap": 1.5}, "motion_overlap must lie in 0..1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    """A setting out of range is refused with its name, its range and its value."""
    with pytest.raises(ConfigError, match=message):
        RegionConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": 0}, "arms must be a whole number from 1 to 16"),
        ({"angle": "silver"}, "angle must be one of reference, golden"),
        ({"radii": "lin"}, "radii must be one of log, sunflower"),
        ({"patch": "big"}, "patch must be one of shrink, grow, constant"),
        ({"metric": "taxi"}, "metric must be one of circular, elliptic"),
        ({"boundary": "wrap"}, "boundary must be one of clamp, drop, reflect"),
        ({"start_radius": 0.0}, "start_radius must lie in 0.001..1"),
        ({"growth": 0.9}, "growth must lie in 1..4"),
        ({"growth": float("inf")}, "growth must lie in 1..4"),
        ({"greatest_radius": 3.0}, "greatest_radius must lie in 0.01..2"),
    ],
)
def test_spirals_that_cannot_be(settings: dict[str, object], message: str) -> None:
    """So is a setting of the spiral."""
    with pytest.raises(ConfigError, match=message):
        SpiralConfig(**settings)  # type: ignore[arg-type]
