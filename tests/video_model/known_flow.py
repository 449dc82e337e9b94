"""Clips made of endless patterns, of which it is known how far every pixel moves.

    seed -> pattern, kind of motion, speed -> frames u8, and the flow from each frame to the next, of each pixel

    pan     all of it goes by
    zoom    all of it comes nearer or goes away
    patch   a patterned square goes over a still pattern

A flow is (across, down) in pixels per frame, on the grid of the later frame of a pair, as bytropix.video.flow has it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bytropix.gaad.config import RegionConfig
from bytropix.gaad.motion import motion_regions
from bytropix.jobs.film import texture

FINER = np.float32(3)  # than jobs.film has its pattern, which is for frames many times as large
Pictures, Flow = NDArray[np.uint8], NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class KnownClips:
    """Clips and their flow."""

    frames: Tensor
    """u8 [B, T, H, W, 3]."""
    flow: Tensor
    """f32 [B, T - 1, 2, H, W]."""
    motion: Tensor
    """f32 [B, T, M, 4], motion regions as ingestion finds them."""

    def on_grid(self, stride: int) -> Tensor:
        """Return the flow's mean over each cell of a grid, still in pixels, [B, T - 1, 2, H / stride, W / stride]."""
        return F.avg_pool2d(self.flow.flatten(0, 1), stride).unflatten(0, self.flow.shape[:2])


def known_clips(count: int, frames: int, side: int, *, seed: int, speed: float = 3.0, regions: int = 4) -> KnownClips:
    """Return clips whose kinds of motion take turns: the first, the fourth... is a pan.

    Args:
        count: Clips.
        frames: Frames of each.
        side: Height and width.
        seed: Of patterns and speeds.
        speed: The greatest, in pixels per frame along an axis; a zoom moves its rim by it.
        regions: Motion regions of a frame.
    """
    generator = np.random.default_rng(seed)
    made = [KINDS[number % len(KINDS)](frames, side, speed, generator) for number in range(count)]
    config = RegionConfig(motion_regions=regions)
    motion = [motion_regions(pictures, None, config) for pictures, _ in made]
    pictures, flows = zip(*made, strict=True)
    return KnownClips(*(torch.from_numpy(np.stack(part)) for part in (pictures, flows, motion)))


def pan(frames: int, side: int, speed: float, generator: np.random.Generator) -> tuple[Pictures, Flow]:
    """Return a pattern that goes by."""
    seed, step = int(generator.integers(2**31)), generator.uniform(-speed, speed, 2).astype(np.float32)
    place = np.arange(side, dtype=np.float32)
    shown = [FINER * (place - number * step[:, None]) for number in np.arange(frames, dtype=np.float32)]
    pictures = [texture(x, y, seed) for x, y in shown]
    return np.stack(pictures), np.broadcast_to(step[:, None, None], (frames - 1, 2, side, side)).copy()


def zoom(frames: int, side: int, speed: float, generator: np.random.Generator) -> tuple[Pictures, Flow]:
    """Return a pattern that comes nearer by the same factor each frame, or goes away."""
    seed, factor = int(generator.integers(2**31)), np.float32(1 + generator.uniform(-speed, speed) / (side / 2))
    middles = np.arange(side, dtype=np.float32) + np.float32(0.5 - side / 2)
    shown = (FINER * middles * factor**-number for number in range(frames))
    moved = np.broadcast_to(middles * (1 - 1 / factor), (side, side))
    flow = np.stack([moved, moved.T])
    return np.stack([texture(x, x, seed) for x in shown]), np.broadcast_to(flow, (frames - 1, *flow.shape)).copy()


def patch(frames: int, side: int, speed: float, generator: np.random.Generator) -> tuple[Pictures, Flow]:
    """Return a still pattern, and before it a square half as wide, of another one, that moves by whole pixels."""
    seeds, step = generator.integers(2**31, size=2).tolist(), generator.uniform(-speed, speed, 2)
    extent, way = side // 2, (frames - 1) * step
    start = generator.uniform(0, 1, 2) * (side - extent - np.abs(way)) - np.minimum(way, 0)  # it never leaves
    corners = np.rint(start + np.arange(frames)[:, None] * step).astype(int)
    place = np.arange(side, dtype=np.float32)
    pictures = np.repeat(texture(FINER * place, FINER * place, seeds[0])[None], frames, axis=0)
    square = texture(FINER * place[:extent], FINER * place[:extent], seeds[1])
    flow = np.zeros((frames - 1, 2, side, side), np.float32)
    for number, (left, top) in enumerate(corners.tolist()):
        pictures[number, top : top + extent, left : left + extent] = square
        if number:
            moved = corners[number] - corners[number - 1]
            flow[number - 1, :, top : top + extent, left : left + extent] = moved[:, None, None]
    return pictures, flow


KINDS: tuple[Callable[[int, int, float, np.random.Generator], tuple[Pictures, Flow]], ...] = (pan, zoom, patch)
