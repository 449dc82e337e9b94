"""How things move between given frames, as boxes and as a grid, and latents moved on by it.

    latents of both frames --(least squares, cell by cell)--> local flow
    a motion region's token, local flow in its box -> its flow, and how sure that is --(cells it covers)--> coarse flow
    coarse and local flow, maps of both frames -> convolutions -> which of the two, and a correction -> dense flow
    earlier latents --(sampled where the flow says each cell came from)--> the later ones, or ones still to come

A flow is (across, down) in pixels per place, on the grid of the later frame of a pair: later(x) = earlier(x - flow(x)).
Latents still to come are moved by boxes that go along with their own flow, so that a thing is not cut by the place it
was seen at last.

Shapes: B clips, F given frames, E = F - 1 pairs of neighbours among them, M motion regions, P target frames,
N any leading rows, C channels, H x W the latent grid.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytropix.gaad.roi import sample_regions
from bytropix.video.config import FlowConfig

CHARBONNIER = 1e-3  # rounds the tip of |x|; latents are of unit size
WINDOW = 1  # cells to each side of one that are taken to move as it does
DAMPING = 0.1  # the slope at which a flow is believed half, squared, as a share of the map's mean


@dataclass(frozen=True, slots=True)
class GivenFlow:
    """The flow of each given frame but the first, from the one before it."""

    boxes_BEM4: Tensor
    """Motion regions, x0, y0, x1, y1 in pixels; all zeros is padding."""
    regions_BEM2: Tensor
    """What each moves by, across and down, in pixels per place."""
    confidence_BEM: Tensor
    """How sure that is, 0 to 1; 0 for padding."""
    coarse_BE2HW: Tensor
    """What each cell of the latent grid moves by, in pixels per place, as the boxes say."""
    dense_BE2HW: Tensor
    """The same, corrected cell by cell."""
    places_BF: Tensor
    """Places of the given frames, rising."""
    image_size: tuple[int, int]
    """Height and width that the latent grid covers, in pixels."""


class FlowHead(nn.Module):
    """Reads flow from what the context knows of the given frames.

    Args:
        config: Its settings.
        tokens: Width of motion tokens.
        features: Channels of the feature maps.
    """

    def __init__(self, config: FlowConfig, *, tokens: int, features: int) -> None:
        super().__init__()
        self.config = config
        self.region = nn.Sequential(
            nn.LayerNorm(tokens), nn.Linear(tokens, config.width), nn.SiLU(), nn.Linear(config.width, 4)
        )
        self.dense = nn.Sequential(
            nn.Conv2d(2 * features + 4, config.width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.width, config.width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.width, 3, 3, padding=1),
        )
        for last in (self.region[-1], self.dense[-1]):  # at first nearly nothing moves, yet every layer has a gradient
            for parameter in last.parameters():
                parameter.data.mul_(0.1)

    def forward(
        self,
        latents: Tensor,
        maps: Tensor,
        tokens: Tensor,
        valid: Tensor,
        boxes: Tensor,
        places: Tensor,
        image_size: tuple[int, int],
    ) -> GivenFlow:
        """Return the flow of each given frame but the first.

        Args:
            latents: [B, F, C, H, W].
            maps: [B, F, Z, H, W], feature maps on the latent grid.
            tokens: [B, E, M, D], motion tokens.
            valid: bool [B, E, M], which of them are no padding.
            boxes: [B, E, M, 4], their boxes in pixels.
            places: i64 [B, F], rising.
            image_size: Height and width that the latent grid covers, in pixels.
        """
        grid = (maps.shape[-2], maps.shape[-1])
        boxes = boxes.float()
        local = local_flow(latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1))
        regions, confidence = self._of_regions(tokens, valid, boxes, in_pixels(local, image_size), image_size)
        coarse = spread_boxes(boxes, regions, confidence, grid, image_size)
        shift = in_cells(coarse, image_size).flatten(0, 1)
        known = (maps[:, :-1].flatten(0, 1), maps[:, 1:].flatten(0, 1), shift, local)
        gate, correction = self.dense(torch.cat(known, dim=1)).float().split([1, 2], dim=1)
        dense = in_pixels(shift + gate.sigmoid() * (local - shift) + correction, image_size).view_as(coarse)
        passed = (places[:, 1:] - places[:, :-1]).to(torch.float32)[..., None, None]
        regions, coarse, dense = regions / passed, coarse / passed[..., None], dense / passed[..., None]
        return GivenFlow(boxes, regions, confidence, coarse, dense, places, image_size)

    def _of_regions(
        self, tokens: Tensor, valid: Tensor, boxes: Tensor, local: Tensor, image_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return what each box moves by from one frame to the next, [B, E, M, 2], and the confidence, [B, E, M].

        A token says which share of the local flow [B E, 2, H, W] in its box is the thing's own, and what to add to it
        in sides of the box.
        """
        inside = sample_regions(local, boxes.flatten(0, 1), image_size=image_size, output_size=(1, 1))
        added, share, sure = self.region(tokens).float().split([2, 1, 1], dim=-1)
        sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
        return (1 + share) * inside.view_as(added) + added * sides, sure[..., 0].sigmoid() * valid


@torch.no_grad()
def local_flow(earlier: Tensor, later: Tensor) -> Tensor:
    """Return the small shift of each cell that explains best how the cells around it changed: [N, 2, H, W], in cells.

    Least squares over all channels (Lucas and Kanade, "An iterative image registration technique", 1981, one step), so
    good up to about a cell. Where nothing has a slope there is no flow.

    Args:
        earlier: [N, C, H, W].
        later: The same.
    """
    earlier, later = earlier.float(), later.float()
    change = later - earlier
    mean = F.pad((earlier + later) / 2, (1, 1, 1, 1), mode="replicate")
    across = (mean[..., 1:-1, 2:] - mean[..., 1:-1, :-2]) / 2
    down = (mean[..., 2:, 1:-1] - mean[..., :-2, 1:-1]) / 2
    products = ((across, across), (across, down), (down, down), (across, change), (down, change))
    sums = torch.stack([(first * second).sum(1) for first, second in products], dim=1)
    sums = F.avg_pool2d(F.pad(sums, (WINDOW,) * 4, mode="replicate"), 2 * WINDOW + 1, stride=1)
    xx, xy, yy, xt, yt = sums.unbind(1)
    damping = DAMPING * (xx + yy).mean((1, 2), keepdim=True) + torch.finfo(torch.float32).eps
    xx, yy = xx + damping, yy + damping
    return torch.stack([xy * yt - yy * xt, xy * xt - xx * yt], dim=1) / (xx * yy - xy * xy)[:, None]


def spread_boxes(
    boxes: Tensor, flows: Tensor, confidence: Tensor, grid: tuple[int, int], image_size: tuple[int, int]
) -> Tensor:
    """Return the flow of each cell, [..., 2, H, W], from those of boxes: none where no box is.

    A cell counts a box by its confidence times the share of the cell that it covers; where boxes lie over one another
    their flows are averaged.

    Args:
        boxes: [..., M, 4] in pixels.
        flows: [..., M, 2].
        confidence: [..., M], 0 to 1.
        grid: H and W.
        image_size: Height and width that the grid covers, in pixels.
    """
    shares = []
    for axis in (1, 0):
        edges = torch.arange(grid[1 - axis], device=boxes.device, dtype=torch.float32)
        low, high = (boxes[..., side, None] * (grid[1 - axis] / image_size[1 - axis]) for side in (axis, axis + 2))
        shares.append((torch.minimum(high, edges + 1) - torch.maximum(low, edges)).clamp(0, 1))
    rows, columns = shares
    weights = confidence[..., None, None] * rows[..., :, None] * columns[..., None, :]
    # One box of weight w leaves a cell w of its flow: the rest is the still background, which counts what all leave.
    total = weights.sum(-3) + (1 - weights).prod(-3)
    moved = (weights[..., None, :, :] * flows[..., None, None]).sum(-4)
    return moved / total[..., None, :, :]


def warp(x: Tensor, shift: Tensor) -> Tensor:
    """Return `x` moved by `shift`: what each cell holds came from the cell at its place less the shift.

    Interpolates between four cells, in float32; beyond an edge lies what the edge holds.

    Args:
        x: [N, C, H, W].
        shift: [N, 2, H, W], across and down, in cells.
    """
    height, width = x.shape[-2:]
    shift = shift.float()
    across = torch.arange(width, device=x.device) + 0.5 - shift[:, 0]
    down = torch.arange(height, device=x.device)[:, None] + 0.5 - shift[:, 1]
    places = torch.stack([across * (2 / width) - 1, down * (2 / height) - 1], dim=-1)
    with torch.autocast(x.device.type, enabled=False):
        return F.grid_sample(x.float(), places, mode="bilinear", padding_mode="border", align_corners=False)


def warped_latents(latents: Tensor, flow: GivenFlow, frame: Tensor, places: Tensor) -> Tensor:
    """Return given latents moved on to places that are still to come.

    Args:
        latents: [B, F, C, H, W], of the given frames.
        flow: Their flow.
        frame: i64 [B, P], the given frame, 0 to F - 1, that each target is moved from. The first frame has no flow of
            its own, and takes the next one's.
        places: i64 [B, P], places of the targets.

    Returns:
        [B, P, C, H, W].
    """
    grid = (latents.shape[-2], latents.shape[-1])
    rows = torch.arange(len(latents), device=latents.device)[:, None]
    pair = (frame - 1).clamp(min=0)
    ahead = (places - flow.places_BF.gather(1, frame)).to(torch.float32)[..., None, None]
    regions = flow.regions_BEM2[rows, pair]
    carried = flow.boxes_BEM4[rows, pair] + (ahead * regions).repeat(1, 1, 1, 2)
    ahead = ahead[..., None]
    coarse = spread_boxes(carried, regions, flow.confidence_BEM[rows, pair], grid, flow.image_size)
    # A cell takes the flow of the place that its box says it came from.
    dense = _warp_rows(flow.dense_BE2HW[rows, pair], ahead * in_cells(coarse, flow.image_size))
    return _warp_rows(latents[rows, frame], ahead * in_cells(dense, flow.image_size))


def end_point_error(flow: Tensor, truth: Tensor) -> Tensor:
    """Return how far flows end from where they should, [...], the mean over cells, in the flows' unit.

    Args:
        flow: [..., 2, H, W].
        truth: The same.
    """
    missed: Tensor = torch.linalg.vector_norm(flow.float() - truth.float(), dim=-3)
    return missed.mean((-2, -1))


def upsample_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a flow [N, 2, H, W] in pixels on a finer grid, [N, 2, height, width], still in pixels."""
    fine: Tensor = F.interpolate(flow.float(), size=size, mode="bilinear", align_corners=False)
    return fine


def supervised_loss(flow: GivenFlow, truth: Tensor) -> Tensor:
    """Return the loss of a flow whose truth is known, [B]: end-point error in cells, of the dense and the coarse flow.

    Args:
        flow: The flow.
        truth: [B, E, 2, H, W], pixels per place.
    """
    truth = in_cells(truth, flow.image_size)
    parts = (in_cells(part, flow.image_size) for part in (flow.dense_BE2HW, flow.coarse_BE2HW))
    return sum((end_point_error(part, truth).mean(1) for part in parts), start=truth.new_zeros(()))


def warp_loss(latents: Tensor, flow: GivenFlow, *, smoothness: float) -> Tensor:
    """Return the loss of a flow whose truth is not known, [B]: what earlier latents, moved, miss the later by.

    Both the coarse flow and the dense one are asked, since the boxes alone say where things go later.

    Args:
        latents: [B, F, C, H, W], of the given frames.
        flow: Their flow.
        smoothness: Weight of how much the dense flow changes from cell to cell, in cells.
    """
    latents = latents.float()
    passed = (flow.places_BF[:, 1:] - flow.places_BF[:, :-1]).to(torch.float32)[..., None, None, None]
    loss = latents.new_zeros(len(latents))
    dense, coarse = (passed * in_cells(part, flow.image_size) for part in (flow.dense_BE2HW, flow.coarse_BE2HW))
    for shift in (dense, coarse):
        missed = latents[:, 1:] - _warp_rows(latents[:, :-1], shift)
        loss = loss + (missed.square() + CHARBONNIER**2).sqrt().flatten(1).mean(1)
    changes = sum((dense.diff(dim=dim).abs().flatten(1).sum(1) for dim in (-2, -1)), start=loss.new_zeros(()))
    return loss + smoothness * changes / dense[0].numel()


def in_cells(flow: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return a flow [..., 2, H, W] in pixels as one in cells of its own grid.

    Args:
        flow: In pixels.
        image_size: Height and width that the grid covers, in pixels.
    """
    return _scaled(flow, flow.shape[-1] / image_size[1], flow.shape[-2] / image_size[0])


def in_pixels(flow: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return a flow [..., 2, H, W] in cells of its own grid as one in pixels: what `in_cells` undoes."""
    return _scaled(flow, image_size[1] / flow.shape[-1], image_size[0] / flow.shape[-2])


def _scaled(flow: Tensor, across: float, down: float) -> Tensor:
    """Return a flow [..., 2, H, W] with its two parts multiplied by numbers: a tensor of them would have to be sent."""
    return torch.stack([flow[..., 0, :, :] * across, flow[..., 1, :, :] * down], dim=-3)


def _warp_rows(x: Tensor, shift: Tensor) -> Tensor:
    """Return `warp` of [B, P, C, H, W] by [B, P, 2, H, W]."""
    return warp(x.flatten(0, 1), shift.flatten(0, 1)).view_as(x)
