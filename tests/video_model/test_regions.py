"""Regions as tokens: sampled where the box is, told apart by place, size, depth and kind; padding says nothing."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bytropix.gaad import RegionConfig, decompose
from bytropix.video.config import ContextConfig
from bytropix.video.pooling import POOLINGS
from bytropix.video.regions import FeatureMap, RegionEncoder, box_numbers, slot_kinds, valid_boxes

GOLDEN = (1 + math.sqrt(5)) / 2
CONFIG = ContextConfig(features=8, region_bins=2, region_width=16)
FRAMES = [(180, 320), (320, 180), (90, 210), (17, 31)]


def encoder(regions: RegionConfig | None = None) -> RegionEncoder:
    """Return the encoder of one seed."""
    torch.manual_seed(0)
    return RegionEncoder(CONFIG, regions or RegionConfig())


def features(frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return feature maps."""
    return torch.randn(frames, 8, height, width, generator=torch.Generator().manual_seed(seed))


def boxes_of(height: int, width: int, **settings: Any) -> Tensor:
    """Return the boxes of a region map, f32 [1, R, 4]."""
    return torch.from_numpy(decompose(width, height, RegionConfig(**settings)).boxes.copy())[None]


def numbers(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return what is known of boxes."""
    return box_numbers(boxes, valid_boxes(boxes), (height, width))


@pytest.mark.parametrize(("height", "width"), FRAMES)
def test_golden_cuts_have_whole_depths(height: int, width: int) -> None:
    """A cut adds 1 to the depth of the larger piece and 2 to that of the smaller: whole numbers, 0 for the frame."""
    regions = RegionConfig(decomposition="subdivide", min_side=1.0)
    boxes = boxes_of(height, width, decomposition="subdivide", min_side=1.0)
    depths = numbers(boxes, height, width)[0, :, 4] * 4
    counted = torch.from_numpy(decompose(width, height, regions).depth.copy())

    assert (depths - depths.round()).abs().max() < 1e-3
    assert depths[0].abs() < 1e-5
    assert (depths.round() >= counted).all()
    assert (depths.round() <= 2 * counted).all()


def test_the_numbers_of_a_box() -> None:
    """Middle from -1 to 1, logarithms of the shares, a quarter of the depth, and the depth as an angle."""
    box = torch.tensor([[[0.0, 45.0, 160.0, 90.0]]])  # the left half of the second quarter of 320 x 180
    depth = math.log(8, GOLDEN)
    turn = 2 * math.pi * depth

    torch.testing.assert_close(
        numbers(box, 180, 320)[0, 0],
        torch.tensor([-0.5, -0.25, math.log(1 / 2), math.log(1 / 4), depth / 4, math.cos(turn), math.sin(turn)]),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_numbers_are_shares_of_the_frame(scale: float) -> None:
    """A frame twice as large, with boxes twice as large, is the same."""
    boxes = boxes_of(180, 320)

    torch.testing.assert_close(numbers(boxes, 180, 320), numbers(boxes * scale, int(180 * scale), int(320 * scale)))


@pytest.mark.parametrize(
    "box", [[0.0, 0.0, 0.0, 0.0], [5.0, 2.0, 5.0, 9.0], [9.0, 2.0, 5.0, 9.0], [0.0, math.nan, 5.0, 5.0]]
)
def test_boxes_without_area_are_padding(box: list[float]) -> None:
    """Padding, boxes that are lines, inside out or no numbers: not valid, and their tokens are finite."""
    boxes = torch.tensor([[box, [0.0, 0.0, 8.0, 8.0]]])
    tokens, valid = encoder()(features(1, 4, 4), boxes, image_size=(32, 32), covered=(32, 32))

    assert valid.tolist() == [[False, True]]
    assert tokens.isfinite().all()
    assert numbers(boxes, 32, 32).isfinite().all()


@pytest.mark.parametrize(
    ("decomposition", "wanted"),
    [
        ("hybrid", [0, 0, 0, 0, 1, 1, 1, 1]),
        ("subdivide", [0] * 8),
        ("spiral", [1] * 8),
        ("refine", [0, 0, 1, 1, 1, 1, 1, 1]),
        ("grid", [0] * 8),
    ],
)
def test_slots_have_kinds(decomposition: Any, wanted: list[int]) -> None:
    """Rectangles come first, as many as the decomposition has, then patches of spirals; for any count of slots."""
    config = RegionConfig(regions=3, decomposition=decomposition)

    assert slot_kinds(config, 8).tolist() == wanted


def test_kind_place_and_size_tell_regions_apart() -> None:
    """On a map that is the same everywhere, two boxes differ by what they are and where, alone."""
    same = torch.ones(1, 8, 8, 8)
    one, other, larger = [0.0, 0, 16, 16], [32.0, 0, 48, 16], [0.0, 0, 32, 32]
    encode = encoder(RegionConfig(decomposition="hybrid"))

    def token(*boxes: list[float], slot: int) -> Tensor:
        tokens, _ = encode(same, torch.tensor([boxes]), image_size=(64, 64), covered=(64, 64))
        found: Tensor = tokens[0, slot]
        return found

    first = token(one, one, slot=0)
    for different in (token(other, one, slot=0), token(larger, one, slot=0), token(one, one, slot=1)):
        assert (different - first).norm() > 0.1 * first.norm()


def test_a_token_sees_the_cells_in_its_box() -> None:
    """Changing cells outside of a region leaves its token; inside, it changes."""
    maps = features(1, 8, 8)
    boxes = torch.tensor([[[0.0, 0, 24, 24], [40.0, 40, 64, 64]]])
    changed = maps.clone()
    changed[..., 6:, 6:] += 1
    encode = encoder()
    before, _ = encode(maps, boxes, image_size=(64, 64), covered=(64, 64))
    after, _ = encode(changed, boxes, image_size=(64, 64), covered=(64, 64))

    assert torch.equal(before[0, 0], after[0, 0])
    assert (before[0, 1] - after[0, 1]).norm() > 0.1


def test_padding_of_the_grid_is_no_part_of_the_frame() -> None:
    """A 17 x 31 frame on a 3 x 4 grid of 8 pixels: a box down to row 13 does not see the cells from row 16 on."""
    maps = features(1, 3, 4)
    changed = maps.clone()
    changed[:, :, 2] += 1
    boxes = torch.tensor([[[0.0, 0.0, 31.0, 13.0]]])
    encode = encoder()
    before, _ = encode(maps, boxes, image_size=(17, 31), covered=(24, 32))
    after, _ = encode(changed, boxes, image_size=(17, 31), covered=(24, 32))

    assert torch.equal(before, after)


def test_the_feature_map_keeps_the_grid_and_learns() -> None:
    """One feature vector a cell, made of it and its neighbours, with a gradient in every number."""
    torch.manual_seed(0)
    features = FeatureMap(4, 8)
    out = features(torch.randn(3, 4, 5, 7))
    (out * torch.randn_like(out)).sum().backward()

    assert out.shape == (3, 8, 5, 7)
    assert all((parameter.grad != 0).all() for parameter in features.parameters())


@pytest.mark.parametrize("kind", POOLINGS)
def test_pools_ignore_what_is_not_valid(kind: Any) -> None:
    """Tokens that are not valid change nothing, whatever is in them, and a row without valid tokens is zeros."""
    torch.manual_seed(0)
    pool = POOLINGS[kind](6)
    tokens = torch.randn(3, 4, 6)
    valid = torch.tensor([[True, True, False, False], [True, True, True, True], [False] * 4])
    out = pool(tokens, valid)
    changed = torch.where(valid[..., None], tokens, 1e4)

    assert torch.equal(out, pool(changed, valid))
    assert torch.equal(out[2], torch.zeros(6))
    torch.testing.assert_close(out[:1], pool(tokens[:1, :2], valid[:1, :2]))


@pytest.mark.parametrize("kind", POOLINGS)
def test_pools_have_finite_gradients(kind: Any) -> None:
    """Also where no token is valid; what is not valid has none."""
    torch.manual_seed(0)
    pool = POOLINGS[kind](6)
    tokens = torch.randn(2, 4, 6, requires_grad=True)
    valid = torch.tensor([[True, False, True, True], [False] * 4])
    pool(tokens, valid).square().sum().backward()
    assert tokens.grad is not None
    moved = tokens.grad.abs().sum(-1) > 0

    assert tokens.grad.isfinite().all()
    assert not (moved & ~valid).any()
    assert all(parameter.grad.isfinite().all() for parameter in pool.parameters())
    if kind != "max":
        assert moved[0, [0, 2, 3]].all()


def test_pools_by_their_names() -> None:
    """Mean and maximum are that; attention is a mean whose weights follow the query."""
    tokens = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    attention = POOLINGS["attention"](2)
    attention.query_D.data = torch.tensor([100.0, 0.0])

    assert POOLINGS["mean"](2)(tokens, valid).tolist() == [[2.0, 2.0]]
    assert POOLINGS["max"](2)(tokens, valid).tolist() == [[3.0, 4.0]]
    assert attention(tokens, valid).tolist() == [[3.0, 4.0]]
