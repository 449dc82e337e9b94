"""The regions of a frame as tokens.

    latents -> FeatureMap -> features -- sampled in each region, bins x bins --> linear      \
    box -> place, size, depth -> small network                                               + -> norm -> tokens
    slot -> kind: rectangle or patch of a spiral -> learned vector                           /

Shapes: N frames (of all clips), C latent channels, Z features, h x w latent grid, R regions, D width. Boxes are x0, y0,
x1, y1 in pixels; one without area is padding, whose token is finite and says nothing: `valid_boxes` tells it apart.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytropix.gaad.config import GOLDEN, RegionConfig, rectangle_count
from bytropix.gaad.roi import sample_regions
from bytropix.nesting.maps import linear
from bytropix.video.config import ContextConfig

KINDS = 2  # rectangle, patch of a spiral
BOX_NUMBERS = 7
_LEAST_SHARE = 1e-4  # of a frame's side; thinner boxes count as that thin


class FeatureMap(nn.Module):
    """What is sampled: features of each latent cell and the eight around it.

    Args:
        channels: C.
        features: Z.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, features, 3, padding=1)
        self.mix = nn.Linear(features, features)
        # What is in a region counts as much as where it is from the first step on: features of the size of latents.
        nn.init.kaiming_normal_(self.near.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.mix.weight, nonlinearity="relu")

    def forward(self, latents: Tensor) -> Tensor:
        """Return [N, Z, h, w] of latents [N, C, h, w]."""
        near = F.gelu(self.near(latents.contiguous(memory_format=torch.channels_last)))
        out: Tensor = self.mix(near.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # channels last: no copy
        return out


def valid_boxes(boxes: Tensor) -> Tensor:
    """Return which boxes [..., 4] have an area, bool [...]; the others are padding."""
    return (boxes[..., 0] < boxes[..., 2]) & (boxes[..., 1] < boxes[..., 3]) & boxes.isfinite().all(-1)


def box_numbers(boxes: Tensor, valid: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return what is known of boxes without looking into them, f32 [..., 7]; of padding, that of the whole frame.

    The middle across and down, -1 to 1; the logarithms of width and height as shares of the frame; the depth, which is
    log_phi (frame area / box area), a whole number of golden cuts, over 4; and cosine and sine of the depth as an
    angle, the same for all whole numbers.

    Args:
        boxes: In pixels, [..., 4].
        valid: bool [...].
        image_size: Height and width of the frame.
    """
    height, width = image_size
    x0, y0, x1, y1 = boxes.float().unbind(-1)
    x0, x1 = torch.where(valid, x0 / width, 0.0), torch.where(valid, x1 / width, 1.0)
    y0, y1 = torch.where(valid, y0 / height, 0.0), torch.where(valid, y1 / height, 1.0)
    across, down = (x1 - x0).clamp_min(_LEAST_SHARE).log(), (y1 - y0).clamp_min(_LEAST_SHARE).log()
    depth = -(across + down) / math.log(GOLDEN)
    turn = 2 * math.pi * depth
    return torch.stack([x0 + x1 - 1, y0 + y1 - 1, across, down, depth / 4, turn.cos(), turn.sin()], dim=-1)


class BoxEmbedding(nn.Sequential):
    """A small network on the numbers of a box.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__(linear(BOX_NUMBERS, width), nn.GELU(), linear(width, width))


def slot_kinds(config: RegionConfig, count: int, device: torch.device | None = None) -> Tensor:
    """Return the kind of each of `count` slots of a region map, i64 [count]: 0 rectangle, 1 patch of a spiral."""
    return (torch.arange(count, device=device) >= rectangle_count(config.decomposition, count)).long()


class RegionEncoder(nn.Module):
    """Tokens of regions.

    Args:
        config: Bins, features and width.
        regions: What the region maps are like.
    """

    def __init__(self, config: ContextConfig, regions: RegionConfig) -> None:
        super().__init__()
        self.regions, self.bins = regions, config.region_bins
        self.inside = linear(config.features * config.region_bins**2, config.region_width)
        self.box = BoxEmbedding(config.region_width)
        self.kinds_KD = nn.Parameter(0.5 * torch.randn(KINDS, config.region_width))
        self.norm = nn.LayerNorm(config.region_width)

    def forward(
        self, features: Tensor, boxes: Tensor, *, image_size: tuple[int, int], covered: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return tokens [N, R, D], and which of them are valid, bool [N, R].

        Args:
            features: [N, Z, h, w].
            boxes: [N, R, 4], in pixels of the frame.
            image_size: Height and width of the frame.
            covered: Height and width that the features cover, the frame and its padding.
        """
        valid = valid_boxes(boxes)
        inside = sample_regions(features, boxes, image_size=covered, output_size=(self.bins, self.bins)).flatten(2)
        kinds = F.embedding(slot_kinds(self.regions, boxes.shape[1], boxes.device), self.kinds_KD)
        tokens: Tensor = self.norm(self.inside(inside) + self.box(box_numbers(boxes, valid, image_size)) + kinds)
        return tokens, valid
