"""Features of regions: RoIAlign as two small matrices and two batched products.

boxes in pixels -> in cells of the feature map -> for each bin, how much each row and each column counts
                -> features [C, h, w] times columns, then times rows -> [C, bins down, bins across]

A bin's value is the mean of samples spread evenly in it, each interpolated between four cells whose middles lie at half
cells (He et al., "Mask R-CNN", 2017, aligned; as many samples as cells a bin spans, rounded up). Interpolation is a
product of one weight for the row and one for the column, so rows and columns are summed one after the other.
Gradients flow to the features; boxes are constants.
"""

import math

import torch
from torch import Tensor, nn

LEAST_EXTENT = 1e-5  # of a box on the feature map, in cells


class RegionSampler(nn.Module):
    """Samples the same boxes from many feature maps.

    Args:
        boxes: [N, 4], x0, y0, x1, y1 in pixels of the image.
        image_size: Height and width of the image that the boxes lie in.
        map_size: Height and width of the feature maps.
        output_size: Bins down and across.

    Raises:
        ValueError: The boxes have another shape, or a size is not positive.
    """

    rows_NPH: Tensor
    columns_NQW: Tensor

    def __init__(
        self, boxes: Tensor, *, image_size: tuple[int, int], map_size: tuple[int, int], output_size: tuple[int, int]
    ) -> None:
        super().__init__()
        if boxes.dim() != 2:
            raise ValueError(f"boxes must be [N, 4], got {list(boxes.shape)}")
        rows, columns = _weights(boxes, image_size, map_size, output_size)
        self.register_buffer("rows_NPH", rows.float(), persistent=False)
        self.register_buffer("columns_NQW", columns.float(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features of each box.

        Args:
            features: [B, C, h, w], of `map_size`.

        Returns:
            [B, N, C, bins down, bins across], float32, or float64 for such features; zeros for an invalid box.
        """
        if features.dim() != 4 or features.shape[2:] != (self.rows_NPH.shape[2], self.columns_NQW.shape[2]):
            size = [self.rows_NPH.shape[2], self.columns_NQW.shape[2]]
            raise ValueError(f"features must be [B, C, {size[0]}, {size[1]}], got {list(features.shape)}")
        return _sample(features, self.rows_NPH[None], self.columns_NQW[None])


def sample_regions(
    features: Tensor, boxes: Tensor, *, image_size: tuple[int, int], output_size: tuple[int, int]
) -> Tensor:
    """Return the features of boxes that differ from map to map.

    Args:
        features: [B, C, h, w].
        boxes: [B, N, 4], x0, y0, x1, y1 in pixels of the image. One without area, or with a coordinate that is no
            number, is invalid.
        image_size: Height and width of the image that the boxes lie in.
        output_size: Bins down and across.

    Returns:
        [B, N, C, bins down, bins across], float32, or float64 for such features; zeros for an invalid box.

    Raises:
        ValueError: Shapes do not fit, or a size is not positive.
    """
    if features.dim() != 4 or boxes.dim() != 3 or len(features) != len(boxes):
        raise ValueError(
            f"features must be [B, C, h, w] and boxes [B, N, 4], got {list(features.shape)} and {list(boxes.shape)}"
        )
    map_size = (features.shape[2], features.shape[3])
    rows, columns = _weights(boxes.to(features.device), image_size, map_size, output_size)
    return _sample(features, rows, columns)


def _sample(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return [B, N, C, P, Q] of features [B, C, h, w], rows [B or 1, N, P, h] and columns [B or 1, N, Q, w]."""
    batch, channels, height, width = features.shape
    n, down, across = rows.shape[1], rows.shape[2], columns.shape[2]
    kind = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        flat = features.to(kind).reshape(batch, channels * height, width)
        summed = flat @ columns.to(kind).reshape(len(columns), n * across, width).mT
        bands = summed.reshape(batch, channels, height, n, across).permute(0, 3, 2, 1, 4)
        bins = rows.to(kind) @ bands.reshape(batch, n, height, channels * across)
    return bins.reshape(batch, n, down, channels, across).transpose(2, 3)


@torch.no_grad()
def _weights(
    boxes: Tensor, image_size: tuple[int, int], map_size: tuple[int, int], output_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return what rows [..., N, P, h] and columns [..., N, Q, w] count in each bin, in float64."""
    if boxes.shape[-1] != 4:
        raise ValueError(f"boxes must have 4 coordinates, got {list(boxes.shape)}")
    for name, size in (("image_size", image_size), ("map_size", map_size), ("output_size", output_size)):
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"{name} must be two positive numbers, got {size}")
    x0, y0, x1, y1 = boxes.double().unbind(-1)
    valid = (x0 < x1) & (y0 < y1) & boxes.isfinite().all(-1)
    rows = _axis_weights(y0, y1, valid, image_size[0], map_size[0], output_size[0])
    columns = _axis_weights(x0, x1, valid, image_size[1], map_size[1], output_size[1])
    return rows, columns


def _axis_weights(low: Tensor, high: Tensor, valid: Tensor, image: int, size: int, bins: int) -> Tensor:
    """Return [..., bins, size], what each cell along an axis counts in each bin; all zero for an invalid box."""
    low = torch.where(valid, low, 0.0) * size / image
    high = torch.where(valid, high, 0.0) * size / image
    low = low.clamp(0.0, size - LEAST_EXTENT)
    high = torch.maximum(high, low + LEAST_EXTENT).clamp(max=size)
    extent = high - low
    samples = torch.ceil(extent / bins)
    cells = torch.arange(size, device=low.device, dtype=low.dtype)
    bin_starts = low[..., None] + torch.arange(bins, device=low.device) * extent[..., None] / bins
    step = (extent / bins / samples)[..., None]
    weights = low.new_zeros((*low.shape, bins, size))
    for k in range(math.ceil(size / bins)):  # samples of a bin one after the other: no large temporaries
        points = (bin_starts + (k + 0.5) * step - 0.5).clamp(0, size - 1)
        held = (1 - (points[..., None] - cells).abs()).clamp(min=0)
        weights += torch.where((k < samples)[..., None, None], held, 0.0)
    return torch.where(valid[..., None, None], weights / samples[..., None, None], 0.0)
