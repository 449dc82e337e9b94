"""Speed of region maps and motion regions on one core, beside the original's rule.

frame sizes -> a map each, computed anew          moving squares at 128 x 128 -> kept maps, motion regions
"""

import itertools
import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bytropix.gaad import RegionConfig, decompose
from bytropix.gaad.motion import motion_regions
from bytropix.jobs.bench.original_regions import original_regions
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, seconds, torch_threads

SIZES = ((64, 64), (128, 128), (320, 180), (1920, 1080), (7680, 4320))
CONFIG = RegionConfig()
MAPS = 50  # in a turn
SIDE, FRAMES, SQUARES, PACE = 128, 256, 6, 2.5
CALLED = "the original's rule, anew for each frame"


def bench_gaad(settings: BenchSettings) -> list[BenchRow]:
    """Measure maps of frame sizes, and maps and motion regions of frames, in processor time of one core."""
    frames = moving_squares(FRAMES, SIDE)
    with torch_threads(1):
        return [
            *(_map_time(width, height, settings.repeats) for width, height in SIZES),
            *_frame_speeds(frames, settings.repeats),
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


def moving_squares(count: int, side: int) -> NDArray[np.uint8]:
    """Return frames u8 (count, side, side, 3) of bright squares that move over a dim noise, the same every time."""
    random = np.random.default_rng(0)
    frames = np.repeat(random.integers(0, 40, (1, side, side, 3), dtype=np.uint8), count, axis=0)
    starts, ways = random.uniform(0, side, (SQUARES, 2)), random.normal(0, PACE, (SQUARES, 2))
    for number, frame in enumerate(frames):
        for k, (x, y) in enumerate(((starts + number * ways) % (side - side // 8)).astype(int)):
            frame[y : y + side // 8, x : x + side // 8] = 120 + 20 * k
    return frames
