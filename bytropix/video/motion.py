"""What moves between two frames as tokens.

    features of the frame before, of this one, and how much they differ -- sampled in each motion region --> linear \
    box of the region -> place, size, depth -> small network                                                        + ->

A frame's motion regions lie where it differs from the frame before. The first frame has none before it, so F frames
make F - 1 pairs. Shapes: B clips, F frames, Z features, h x w latent grid, M motion regions, D width.
"""

import torch
from torch import Tensor, nn

from bytropix.gaad.roi import sample_regions
from bytropix.nesting.maps import linear
from bytropix.video.config import ContextConfig, MotionSource
from bytropix.video.regions import BoxEmbedding, box_numbers, valid_boxes

SOURCES: dict[MotionSource, int] = {"maps": 2, "difference": 1, "both": 3}  # maps that are sampled


class MotionEncoder(nn.Module):
    """Tokens of motion regions.

    Args:
        config: Source, bins, features and width.
    """

    def __init__(self, config: ContextConfig) -> None:
        super().__init__()
        self.source, self.bins = config.motion_source, config.motion_bins
        self.inside = linear(SOURCES[self.source] * config.features * config.motion_bins**2, config.region_width)
        self.box = BoxEmbedding(config.region_width)
        self.norm = nn.LayerNorm(config.region_width)

    def forward(
        self, features: Tensor, boxes: Tensor, *, image_size: tuple[int, int], covered: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return tokens [B (F - 1), M, D], and which of them are valid, bool [B (F - 1), M].

        Args:
            features: [B, F, Z, h, w].
            boxes: [B, F, M, 4], in pixels of the frame; those of the first frame are not used.
            image_size: Height and width of the frame.
            covered: Height and width that the features cover, the frame and its padding.
        """
        boxes = boxes[:, 1:].flatten(0, 1)
        valid = valid_boxes(boxes)
        maps = self._maps(features[:, :-1].flatten(0, 1), features[:, 1:].flatten(0, 1))
        inside = sample_regions(maps, boxes, image_size=covered, output_size=(self.bins, self.bins)).flatten(2)
        tokens: Tensor = self.norm(self.inside(inside) + self.box(box_numbers(boxes, valid, image_size)))
        return tokens, valid

    def _maps(self, before: Tensor, after: Tensor) -> Tensor:
        """Return what is sampled; sampling is linear, so only the size of the difference adds to the two maps."""
        if self.source == "maps":
            return torch.cat([before, after], dim=1)
        difference = (after - before).abs()
        return difference if self.source == "difference" else torch.cat([before, after, difference], dim=1)
