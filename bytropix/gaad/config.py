"""The settings of region maps and motion regions, checked.

RegionConfig -> decompose (one map for a frame size) | region_maps (maps of frames)
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from bytropix.errors import ConfigError

DecompositionName = Literal["hybrid", "subdivide", "spiral", "refine", "grid"]
RuleName = Literal["golden_cut", "square_remainder"]
SelectName = Literal["largest", "leaves", "breadth_first", "multi_scale"]
AngleName = Literal["reference", "golden"]
RadiiName = Literal["log", "sunflower"]
PatchName = Literal["shrink", "grow", "constant"]
MetricName = Literal["circular", "elliptic"]
BoundaryName = Literal["clamp", "drop", "reflect"]

GOLDEN = (1 + math.sqrt(5)) / 2
MOST_REGIONS = 256
MOST_ARMS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class SpiralConfig:
    """Where the patches of a spiral lie and how large they are."""

    arms: int = 1
    """Arms of the spiral, 1 to 16, turned evenly against each other; the patches are dealt to them in turn."""
    angle: AngleName = "reference"
    """reference: an arm turns golden-ratio times in all, in equal steps. golden: each step is the golden angle, 137.5
    degrees, whatever the count."""
    radii: RadiiName = "log"
    """log: radii grow by the same factor from patch to patch. sunflower: as the square root, so that patches lie evenly
    over the frame."""
    start_radius: float = 0.05
    """Radius of the first patch after the centre's, as a share of the shorter side; with radii `log`."""
    growth: float = GOLDEN
    """How many times larger the radius is a quarter turn on, 1 to 4; with radii `log`."""
    greatest_radius: float = 0.6
    """Where radii end, as a share of the longer side; with metric `elliptic`, of each side."""
    patch: PatchName = "shrink"
    """shrink: patches get smaller outwards. grow: larger, as an eye sees. constant: all the same."""
    metric: MetricName = "circular"
    """circular: round, so that a wide frame is covered in its middle. elliptic: stretched to the frame's shape."""
    boundary: BoundaryName = "clamp"
    """A point outside the frame is moved to its border (clamp), left out (drop), or mirrored there (reflect)."""

    def __post_init__(self) -> None:
        _check_range("arms", self.arms, 1, MOST_ARMS)
        _check_name("angle", self.angle, get_args(AngleName))
        _check_name("radii", self.radii, get_args(RadiiName))
        _check_name("patch", self.patch, get_args(PatchName))
        _check_name("metric", self.metric, get_args(MetricName))
        _check_name("boundary", self.boundary, get_args(BoundaryName))
        _check_share("start_radius", self.start_radius, 0.001, 1)
        _check_share("growth", self.growth, 1, 4)
        _check_share("greatest_radius", self.greatest_radius, 0.01, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionConfig:
    """How a frame is divided into regions, and how many regions follow what moves."""

    regions: int = 8
    """Regions of a frame, 1 to 256."""
    decomposition: DecompositionName = "hybrid"
    """subdivide: rectangles by golden cuts. spiral: squares along a golden spiral. hybrid: half and half. refine: the
    frame cut into rectangles, and a spiral in each of them. grid: equal rectangles in rows and columns, against which
    the golden ones are measured."""
    rule: RuleName = "golden_cut"
    """golden_cut: a rectangle is cut across its longer side at 0.618. square_remainder: a square is cut off, and the
    rest is divided further."""
    select: SelectName = "largest"
    """Which rectangles are kept. largest: the frame and its largest parts, which overlap. leaves: a tiling without gap
    or overlap. breadth_first: the frame, its parts, their parts. multi_scale: an equal share of every depth of cutting.
    With decomposition refine it is always leaves."""
    full_frame: bool = True
    """Whether the whole frame is one of the rectangles; leaves never have it."""
    min_side: float = 5.0
    """Least side of a rectangle, in pixels of the stored frame, at least 1."""
    spiral: SpiralConfig = field(default_factory=SpiralConfig)
    """Where the squares of a spiral lie."""
    adaptive: bool = False
    """Whether the regions follow the picture: which rectangle is divided next, which end gets the larger share, and
    where the spiral's centre sits are chosen frame by frame by where the detail is."""
    motion_regions: int = 4
    """Regions of a frame that follow the difference to the frame before, 1 to 64."""
    motion_overlap: float = 0.3
    """Most that two motion regions of a frame may overlap, as intersection over union, 0 to 1."""

    def __post_init__(self) -> None:
        _check_range("regions", self.regions, 1, MOST_REGIONS)
        _check_name("decomposition", self.decomposition, get_args(DecompositionName))
        _check_name("rule", self.rule, get_args(RuleName))
        _check_name("select", self.select, get_args(SelectName))
        _check_share("min_side", self.min_side, 1, 10_000)
        _check_range("motion_regions", self.motion_regions, 1, 64)
        _check_share("motion_overlap", self.motion_overlap, 0, 1)
        if self.adaptive and self.decomposition == "grid":
            raise ConfigError(
                "adaptive regions follow the picture and decomposition 'grid' does not: choose one of them"
            )

    @property
    def rectangles(self) -> int:
        """How many of the regions are rectangles, the first ones, where the frame yields as many."""
        return rectangle_count(self.decomposition, self.regions)


def rectangle_count(decomposition: DecompositionName, regions: int) -> int:
    """Return how many of a map's regions are rectangles; they come before the patches of spirals."""
    counts: dict[DecompositionName, int] = {
        "subdivide": regions,
        "spiral": 0,
        "hybrid": regions // 2,
        "refine": max(1, round(regions / GOLDEN**3)),
        "grid": regions,
    }
    return counts[decomposition]


def _check_range(name: str, value: int, least: int, greatest: int) -> None:
    """Raise ConfigError unless `value` is a whole number from `least` to `greatest`."""
    if type(value) is not int or not least <= value <= greatest:
        raise ConfigError(f"{name} must be a whole number from {least} to {greatest}, got {value!r}")


def _check_share(name: str, value: float, least: float, greatest: float) -> None:
    """Raise ConfigError unless `value` lies from `least` to `greatest`."""
    if not (math.isfinite(value) and least <= value <= greatest):
        raise ConfigError(f"{name} must lie in {least:g}..{greatest:g}, got {value!r}")


def _check_name(field_name: str, value: str, names: tuple[str, ...]) -> None:
    """Raise ConfigError unless `value` is one of `names`."""
    if value not in names:
        raise ConfigError(f"{field_name} must be one of {', '.join(names)}, got {value!r}")
