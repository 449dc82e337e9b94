"""Sampling of regions: against RoIAlign in plain loops, fixed boxes and boxes per frame, gradients, invalid boxes."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytropix.gaad import RegionConfig, decompose
from bytropix.gaad.roi import RegionSampler, sample_regions

CASES = [  # image (height, width), map (height, width), bins (down, across)
    ((64, 64), (4, 4), (4, 4)),
    ((180, 320), (11, 20), (5, 5)),
    ((31, 17), (7, 5), (3, 3)),
    ((128, 128), (32, 32), (4, 3)),
    ((48, 48), (1, 1), (2, 2)),
]


def roi_align(
    feature: NDArray[np.float64], box: list[float], image: tuple[int, int], bins: tuple[int, int]
) -> NDArray[np.float64]:
    """RoIAlign after its description, aligned, samples as a bin spans cells; the box scaled and clamped first."""
    sides = []
    for axis, length in ((1, feature.shape[1]), (0, feature.shape[2])):
        count = image[0] if axis == 1 else image[1]
        low = min(max(box[axis] * length / count, 0.0), length - 1e-5)
        sides.append((low, min(max(box[axis + 2] * length / count, low + 1e-5), length)))
    out = np.zeros((feature.shape[0], *bins))
    steps = [math.ceil((high - low) / number) for (low, high), number in zip(sides, bins, strict=True)]
    for i in range(bins[0]):
        for j in range(bins[1]):
            for a in range(steps[0]):
                for b in range(steps[1]):
                    y, x = (
                        low - 0.5 + (high - low) / number * (place + (k + 0.5) / step)
                        for (low, high), number, place, k, step in zip(sides, bins, (i, j), (a, b), steps, strict=True)
                    )
                    out[:, i, j] += bilinear(feature, y, x) / (steps[0] * steps[1])
    return out


def bilinear(feature: NDArray[np.float64], y: float, x: float) -> NDArray[np.float64]:
    """The value between four cells; a cell beyond the border is the one at the border."""
    value = np.zeros(feature.shape[0])
    y, x = (min(max(place, 0.0), length - 1) for place, length in zip((y, x), feature.shape[1:], strict=True))
    for row, of_row in ((int(y), 1 - y % 1), (int(y) + 1, y % 1)):
        for column, of_column in ((int(x), 1 - x % 1), (int(x) + 1, x % 1)):
            if of_row and of_column:
                value += feature[:, row, column] * of_row * of_column
    return value


def random_boxes(n: int, image: tuple[int, int], seed: int) -> Tensor:
    """Boxes of all sizes inside an image, some on its border, f32 [n, 4]."""
    random = np.random.default_rng(seed)
    size = np.array([image[1], image[0]])
    corners = np.sort(random.uniform(0, 1, (n, 2, 2)) * size, axis=1)
    corners[: n // 4, 0] = 0
    corners[n // 8 : n // 2, 1] = size
    return torch.from_numpy(corners.reshape(n, 4).astype(np.float32))


@pytest.mark.parametrize(("image", "size", "bins"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_are_roi_align(
    image: tuple[int, int], size: tuple[int, int], bins: tuple[int, int], dtype: torch.dtype
) -> None:
    """Fixed boxes and boxes per frame, random ones and a region map's, give what RoIAlign in plain loops gives."""
    features = torch.randn(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    fixed = torch.cat(
        [torch.from_numpy(decompose(image[1], image[0], RegionConfig()).boxes.copy()), random_boxes(12, image, 1)]
    )
    fixed = fixed[(fixed[:, 2] > fixed[:, 0]) & (fixed[:, 3] > fixed[:, 1])]
    moving = torch.stack([fixed, random_boxes(len(fixed), image, 2)])

    sampler = RegionSampler(fixed, image_size=image, map_size=size, output_size=bins)
    for boxes, found in (
        (fixed.expand(2, -1, -1), sampler(features)),
        (moving, sample_regions(features, moving, image_size=image, output_size=bins)),
    ):
        expected = np.stack(
            [
                np.stack([roi_align(feature, box, image, bins) for box in of_frame])
                for feature, of_frame in zip(features.double().numpy(), boxes.tolist(), strict=True)
            ]
        )
        assert found.dtype == dtype
        assert found.shape == (2, len(fixed), 3, *bins)
        np.testing.assert_allclose(found.double().numpy(), expected, atol=1e-5, rtol=0)


def test_whole_image_of_one_bin_is_the_mean() -> None:
    """One bin over the whole image is the mean of the map; a bin for each cell is the map itself."""
    features = torch.randn(1, 2, 6, 9, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[[0.0, 0.0, 90.0, 60.0]]])

    one = sample_regions(features, whole, image_size=(60, 90), output_size=(1, 1))
    each = sample_regions(features, whole, image_size=(60, 90), output_size=(6, 9))

    torch.testing.assert_close(one[0, 0, :, 0, 0], features.mean((2, 3))[0])
    torch.testing.assert_close(each[:, 0], features)


@pytest.mark.parametrize(
    "box", [[0, 0, 0, 0], [5, 5, 5, 9], [9, 5, 5, 9], [5, 5, math.nan, 9], [-math.inf, 0, 9, 9], [0, 0, math.inf, 9]]
)
def test_invalid_boxes_give_zeros(box: list[float]) -> None:
    """Padding, a box without area and one that is no box give zeros, and no gradient that is not finite."""
    features = torch.ones(1, 2, 4, 4, requires_grad=True)
    boxes = torch.tensor([[box, [0, 0, 16, 16]]])
    found = sample_regions(features, boxes, image_size=(16, 16), output_size=(2, 2))
    kept = RegionSampler(boxes[0], image_size=(16, 16), map_size=(4, 4), output_size=(2, 2))(features)
    found.sum().backward()

    assert not found[0, 0].any()
    assert (found[0, 1] == 1).all()
    assert torch.equal(kept, found)
    assert features.grad is not None
    assert features.grad.sum() == 8  # four bins of two channels


@pytest.mark.parametrize(("batch", "n"), [(2, 0), (0, 3), (0, 0)])
def test_no_boxes_and_no_maps_give_nothing(batch: int, n: int) -> None:
    """A batch of none, and maps without boxes, have features of the shape that all others have."""
    features = torch.ones(batch, 5, 4, 4, requires_grad=True)
    boxes = torch.zeros(batch, n, 4)
    found = sample_regions(features, boxes, image_size=(16, 16), output_size=(2, 3))
    kept = RegionSampler(torch.zeros(n, 4), image_size=(16, 16), map_size=(4, 4), output_size=(2, 3))(features)
    (found.sum() + kept.sum()).backward()

    assert found.shape == kept.shape == (batch, n, 5, 2, 3)
    assert features.grad is not None
    assert not features.grad.any()


def test_gradients_of_features() -> None:
    """Derivatives by the features are those of finite differences, with fixed boxes and with boxes per frame."""
    features = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    boxes = torch.stack([random_boxes(3, (40, 32), 3), random_boxes(3, (40, 32), 4)])
    sampler = RegionSampler(boxes[0], image_size=(40, 32), map_size=(5, 4), output_size=(2, 3)).double()

    assert torch.autograd.gradcheck(sampler, (features,))
    assert torch.autograd.gradcheck(
        lambda values: sample_regions(values, boxes, image_size=(40, 32), output_size=(2, 3)), (features,)
    )


def test_half_precision_is_computed_in_single() -> None:
    """Features in bfloat16, and any under autocast, give float32 that is exact for those features."""
    features = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    boxes = random_boxes(5, (64, 64), 5)
    exact = sample_regions(features.double(), boxes[None], image_size=(64, 64), output_size=(3, 3))
    sampler = RegionSampler(boxes, image_size=(64, 64), map_size=(8, 8), output_size=(3, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = sampler(features.float())

    for found in (sampler(features), cast):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)


def test_sizes_that_do_not_fit_are_refused() -> None:
    """Features of another size, boxes of another shape and sizes of nothing are refused by name."""
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    sampler = RegionSampler(boxes, image_size=(8, 8), map_size=(4, 4), output_size=(2, 2))

    with pytest.raises(ValueError, match=r"features must be \[B, C, 4, 4\], got \[1, 1, 4, 5\]"):
        sampler(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"boxes must be \[N, 4\]"):
        RegionSampler(boxes[0], image_size=(8, 8), map_size=(4, 4), output_size=(2, 2))
    with pytest.raises(ValueError, match=r"boxes \[B, N, 4\], got \[1, 1, 4, 4\] and \[1, 4\]"):
        sample_regions(torch.zeros(1, 1, 4, 4), boxes, image_size=(8, 8), output_size=(2, 2))
    with pytest.raises(ValueError, match="output_size must be two positive numbers, got \\(0, 2\\)"):
        sample_regions(torch.zeros(1, 1, 4, 4), boxes[None], image_size=(8, 8), output_size=(0, 2))
