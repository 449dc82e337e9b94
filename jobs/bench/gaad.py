"""Speed of region maps, motion regions and region sampling on one core, beside the original's rule.

frame sizes -> a map each, computed anew       moving squares at 128 x 128 -> kept maps, adaptive maps, motion regions
feature maps, boxes -> features of each box, beside one box after the other
"""

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bytropix.gaad import RegionConfig, decompose
from bytropix.gaad.adaptive import adaptive_regions
from bytropix.gaad.motion import motion_regions
from bytropix.gaad.roi import RegionSampler, sample_regions
from bytropix.jobs.bench.original_regions import original_regions
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, seconds, torch_threads

SIZES = ((64, 64), (128, 128), (320, 180), (1920, 1080), (7680, 4320))
CONFIG = RegionConfig()
MAPS = 50  # in a turn
SIDE, FRAMES, SQUARES, PACE = 128, 256, 6, 2.5
BATCH, CHANNELS, CELLS, BINS = 32, 64, 16, 4
CALLED = "the original's rule, anew for each frame"


def bench_gaad(settings: BenchSettings) -> list[BenchRow]:
    """Measure maps of frame sizes, maps and motion regions of frames, and sampling, in processor time of one core."""
    frames = moving_squares(FRAMES, SIDE)
    with torch_threads(1):
        return [
            *(_map_time(width, height, settings.repeats) for width, height in SIZES),
            *_frame_speeds(frames, settings.repeats),
            *_sampling_speeds(settings.repeats),
        ]


def _map_time(width: int, height: int, repeats: int) -> BenchRow:
    """Return the time that one map takes where none is kept."""
    # What a map's settings say of motion does not change it, but none is kept for settings not seen before.
    fresh = (replace(CONFIG, motion_overlap=number / 1e6) for number in range(10**6))

    def ours() -> None:
        for config in itertools.islice(fresh, MAPS):
            decompose(width, height, config)

    def theirs() -> None:
        for _ in range(MAPS):
            original_regions(width, height, CONFIG.regions)

    ours()
    theirs()
    turns = [
        (1e3 * seconds(ours, "processor") / MAPS, 1e3 * seconds(theirs, "processor") / MAPS) for _ in range(repeats)
    ]
    return BenchRow(
        name=f"gaad: map of {width} x {height}, none kept",
        value=statistics.median(mine for mine, _ in turns),
        unit="ms",
        baseline=statistics.median(other for _, other in turns),
        ratio=statistics.median(mine / other for mine, other in turns),
        against="the original's rule",
        targets=(Target("value", "<=", 1.0),),
        note=f"{CONFIG.regions} regions; we compute it once for a frame size, the original for every frame",
    )


def _frame_speeds(frames: NDArray[np.uint8], repeats: int) -> list[BenchRow]:
    """Return how many frames a second get a map or motion regions."""
    kept = decompose(SIDE, SIDE, CONFIG)

    def theirs() -> None:
        for _ in range(FRAMES):
            original_regions(SIDE, SIDE, CONFIG.regions)

    def static() -> None:
        for _ in range(FRAMES):
            assert decompose(SIDE, SIDE, CONFIG) is kept

    works: list[tuple[str, Callable[[], object], tuple[Target, ...]]] = [
        ("a map that is kept", static, (Target("ratio", ">=", 10),)),
        ("adaptive maps", lambda: adaptive_regions(frames, CONFIG), (Target("value", ">=", 2000),)),
        ("motion regions", lambda: motion_regions(frames, None, CONFIG), (Target("value", ">=", 2000),)),
    ]
    return [
        against(
            f"gaad: {name}, {SIDE} x {SIDE}, one core",
            "frames/s",
            Contender(work=work, amount=FRAMES),
            Contender(work=theirs, amount=FRAMES),
            repeats,
            called=CALLED,
            clock="processor",
            targets=targets,
            note=f"{CONFIG.regions} regions, {CONFIG.motion_regions} motion regions",
        )
        for name, work, targets in works
    ]


def _sampling_speeds(repeats: int) -> list[BenchRow]:
    """Return how many feature maps a second have their regions sampled: boxes that stay, and boxes of each map."""
    features = torch.randn(BATCH, CHANNELS, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    boxes = torch.from_numpy(decompose(SIDE, SIDE, CONFIG).boxes.copy())
    sampler = RegionSampler(boxes, image_size=(SIDE, SIDE), map_size=(CELLS, CELLS), output_size=(BINS, BINS))
    of_each = boxes.expand(BATCH, -1, -1)

    def theirs() -> Tensor:
        return roi_one_by_one(features, boxes * (CELLS / SIDE), BINS)

    works: list[tuple[str, Callable[[], Tensor]]] = [
        ("the same boxes for all", lambda: sampler(features)),
        (
            "boxes of each frame",
            lambda: sample_regions(features, of_each, image_size=(SIDE, SIDE), output_size=(BINS, BINS)),
        ),
    ]
    return [
        against(
            f"gaad: regions sampled, {name}",
            "frames/s",
            Contender(work=work, amount=BATCH),
            Contender(work=theirs, amount=BATCH),
            repeats,
            called="RoIAlign, box by box",
            clock="processor",
            targets=(Target("ratio", ">=", 2),),
            note=f"{len(boxes)} boxes, {CHANNELS} x {CELLS} x {CELLS} features, {BINS} x {BINS} bins",
        )
        for name, work in works
    ]


def roi_one_by_one(features: Tensor, boxes: Tensor, bins: int) -> Tensor:
    """Return the RoIAlign of every frame and box, one after the other, as the original calls it.

    Args:
        features: (batch, channels, h, w).
        boxes: (n, 4), x0, y0, x1, y1 in cells of the features.
        bins: Along each side.

    Returns:
        (batch, n, channels, bins, bins).
    """
    height, width = features.shape[2:]
    out = features.new_empty(len(features), len(boxes), features.shape[1], bins, bins)
    for frame, found in zip(features, out, strict=True):
        for (x0, y0, x1, y1), region in zip(boxes.tolist(), found, strict=True):
            across, down = (max(1, math.ceil((end - start) / bins)) for start, end in ((x0, x1), (y0, y1)))
            x = x0 + (torch.arange(bins * across) + 0.5) * (x1 - x0) / (bins * across)
            y = y0 + (torch.arange(bins * down) + 0.5) * (y1 - y0) / (bins * down)
            grid = torch.stack(torch.meshgrid(2 * x / width - 1, 2 * y / height - 1, indexing="xy"), dim=-1)
            samples = F.grid_sample(frame[None], grid[None], padding_mode="border", align_corners=False)
            region[:] = F.avg_pool2d(samples, (down, across))[0]
    return out


def moving_squares(count: int, side: int) -> NDArray[np.uint8]:
    """Return frames u8 (count, side, side, 3) of bright squares that move over a dim noise, the same every time."""
    random = np.random.default_rng(0)
    frames = np.repeat(random.integers(0, 40, (1, side, side, 3), dtype=np.uint8), count, axis=0)
    starts, ways = random.uniform(0, side, (SQUARES, 2)), random.normal(0, PACE, (SQUARES, 2))
    for number, frame in enumerate(frames):
        for k, (x, y) in enumerate(((starts + number * ways) % (side - side // 8)).astype(int)):
            frame[y : y + side // 8, x : x + side // 8] = 120 + 20 * k
    return frames
