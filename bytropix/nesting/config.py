"""The nested levels as data: one table per level, and the list options of the original, checked."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bytropix.config import ADDED_LATER, from_plain
from bytropix.errors import ConfigError

Rotation = Literal["so_n", "quat", "identity"]
RotationInit = Literal["small", "phi"]
Transform = Literal["mlp", "linear", "quat"]
Flow = Literal["mlp", "linear", "none"]
Relative = Literal["mean", "sum", "softmax", "none"]
SpaceName = Literal["hyperbolic", "euclidean"]
Aggregation = Literal["concat_tangent", "attention", "gated"]
Kappa = Literal[-1, 0, 1]

GOLDEN = (1 + math.sqrt(5)) / 2  # phi


def _check_choice(name: str, value: object, choices: object) -> None:
    """Refuse a value that is none of a Literal."""
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(map(str, get_args(choices)))}, got {value!r}")


def _check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below `least`, or one that is not finite."""
    if not (value >= least and math.isfinite(value)):
        raise ConfigError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelConfig:
    """One level, and the transition that leads from it to the next."""

    dim: int
    """Dimension of the ball."""
    boundary_points: int = 5
    """Learned points of the ball that patches are measured against."""
    boundary_init: float = 0.1
    """Spread of the boundary points' tangent vectors at the start."""
    curvature: float = 1.0
    """Initial c; the ball has curvature -c and radius 1/sqrt(c)."""
    scale: float = 1.0
    """Initial s: stretches tangent vectors on the way into the ball."""
    spread: float = 1.0
    """Initial sigma: the temperature of attention over distances."""
    learn_curvature: bool = True
    """Learn c."""
    learn_scale: bool = True
    """Learn s."""
    learn_spread: bool = True
    """Learn sigma."""
    curvature_min: float = 1e-5
    """Lower bound of c."""
    scale_min: float = 1e-5
    """Lower bound of s."""
    spread_min: float = 1e-5
    """Lower bound of sigma."""
    use_spread: bool = True
    """Whether sigma divides distances at all; without it they count as they are."""
    descriptor: bool = True
    """Whether the level has a point of its own that translates patches here and is a landmark at the next level."""
    descriptor_init: float = 0.01
    """Spread of the descriptor's tangent vector at the start."""
    mixing: bool = True
    """Whether a patch attends to earlier patches; otherwise only to boundary points and landmark."""
    flow: Flow = "mlp"
    """The tangent flow, added after the ball."""
    flow_ratio: float = 0.5
    """Hidden width of an mlp flow as a share of dim, at least 16."""
    flow_scale: float = 1.0
    """Factor of the flow."""
    combiner_hidden: tuple[int, ...] = (64,)
    """Hidden widths of the network that combines a level's inputs."""
    rotation: Rotation = "so_n"
    """Rotation on the way to the next level; the last level leaves it at its default."""
    rotation_init: RotationInit = field(default="small", metadata=ADDED_LATER)
    """First angles: small ones by chance, or 2 pi / phi^k in the k-th plane of two coordinates, k = 1, 2, ..."""
    transform: Transform = "mlp"
    """Map to the next level's dim; the last level leaves it at its default."""
    transform_hidden: int = 0
    """Hidden width of an mlp transform; 0 takes the mean of both dims, at least 16."""
    relative: Relative = "mean"
    """How the vectors from a patch to the boundary points are added up for the next level; the last level has no use
    for it."""

    def __post_init__(self) -> None:
        _check_choice("level flow", self.flow, Flow)
        _check_choice("level rotation", self.rotation, Rotation)
        _check_choice("level rotation_init", self.rotation_init, RotationInit)
        _check_choice("level transform", self.transform, Transform)
        _check_choice("level relative", self.relative, Relative)
        _check_at_least("level dim", self.dim, 1)
        _check_at_least("level boundary_points", self.boundary_points, 0)
        _check_at_least("level descriptor_init", self.descriptor_init, 0)
        for width in self.combiner_hidden:
            _check_at_least("level combiner_hidden widths", width, 2)
        for name in ("boundary_init", "flow_ratio"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"level {name} must be positive, got {getattr(self, name)}")
        for name in ("curvature", "scale", "spread"):
            least = getattr(self, f"{name}_min")
            if not 0 < least < getattr(self, name) < math.inf:
                raise ConfigError(f"level {name} must exceed {name}_min > 0, got {getattr(self, name)} and {least}")
        if self.flow_scale == 0 or not math.isfinite(self.flow_scale):
            raise ConfigError(f"level flow_scale must not be {self.flow_scale}: set flow = 'none' for no flow")
        self._check_points()
        self._check_maps()

    def _check_points(self) -> None:
        """Refuse a ball in which nothing happens."""
        if self.boundary_points == 0 and self.relative != "none":
            raise ConfigError("a level with boundary_points = 0 has no relative vectors: set relative = 'none'")
        if self.boundary_points == 0 and not self.mixing:
            raise ConfigError("a level needs boundary_points or mixing; without both its ball does nothing")

    def _check_maps(self) -> None:
        """Refuse dims that a rotation cannot turn, angles of none, and a hidden width that no map has."""
        if self.rotation == "identity" and self.rotation_init != "small":
            raise ConfigError("level rotation_init is for rotations with angles, not for 'identity': remove it")
        if self.rotation == "quat" and self.dim % 4:
            raise ConfigError(f"level rotation 'quat' needs a dim that is a multiple of 4, got {self.dim}")
        if self.transform_hidden and self.transform != "mlp":
            raise ConfigError(f"level transform_hidden is for transform 'mlp', not for '{self.transform}': remove it")
        if self.transform_hidden != 0:  # normalizing a single number leaves nothing
            _check_at_least("level transform_hidden, if not 0,", self.transform_hidden, 2)


def default_levels() -> tuple[LevelConfig, ...]:
    """Return three levels of 64, 32 and 16 dimensions."""
    return tuple(LevelConfig(dim=dim, spread=0.25) for dim in (64, 32, 16))


@dataclass(frozen=True, kw_only=True, slots=True)
class NestingConfig:
    """A stack of nested levels."""

    levels: tuple[LevelConfig, ...] = field(default_factory=default_levels)
    """Outermost first."""
    space: SpaceName = "hyperbolic"
    """euclidean is the control: the same parts and parameters in flat space."""
    aggregation: Aggregation = "concat_tangent"
    """How the levels' tangent vectors become one memory vector."""
    dropout: float = 0.0
    """Share of features dropped inside the combiners, flows and maps in training."""
    phi_curvature: Kappa = field(default=0, metadata=ADDED_LATER)
    """kappa: the curvature of level i is phi^(kappa (i - i0)) times its own number, in training as at its start; i0 is
    the middle, so that the factors' product is one. 1: inner levels are more curved; -1: outer ones; 0: no factor."""

    def __post_init__(self) -> None:
        _check_choice("nesting.space", self.space, SpaceName)
        _check_choice("nesting.aggregation", self.aggregation, Aggregation)
        _check_choice("nesting.phi_curvature", self.phi_curvature, Kappa)
        if not self.levels:
            raise ConfigError("nesting.levels must hold at least one level")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"nesting.dropout must lie in [0, 1), got {self.dropout}")
        if self.aggregation == "attention" and len(self.levels) == 1:
            raise ConfigError("nesting.aggregation 'attention' chooses among levels: one level needs another kind")
        for index, (level, after) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            self._check_transition(f"nesting.levels[{index}]", level, after)
        self._check_last(f"nesting.levels[{len(self.levels) - 1}]")

    def curvature_factors(self) -> tuple[float, ...]:
        """Return what each level's own curvature is multiplied by; 1 without `phi_curvature`."""
        middle = (len(self.levels) - 1) / 2
        return tuple(GOLDEN ** (self.phi_curvature * (index - middle)) for index in range(len(self.levels)))

    def _check_transition(self, where: str, level: LevelConfig, after: LevelConfig) -> None:
        """Refuse a rotation that nothing could see, and dims that a map cannot have."""
        if level.rotation != "identity" and not level.boundary_points:
            raise ConfigError(f"{where}: a rotation acts through boundary_points alone; set rotation = 'identity'")
        if level.rotation == "so_n" and level.dim < 2:
            raise ConfigError(f"{where}: rotation 'so_n' needs a dim of at least 2, got {level.dim}")
        if level.transform == "quat" and (level.dim % 4 or after.dim % 4):
            raise ConfigError(f"{where}: transform 'quat' needs dims by four, got {level.dim} and {after.dim}")

    def _check_last(self, where: str) -> None:
        """Refuse settings of the last level that would have no effect, and a sigma that could have no gradient."""
        last, plain = self.levels[-1], LevelConfig(dim=1)
        for name in ("rotation", "rotation_init", "transform", "transform_hidden", "relative"):
            unused = {getattr(plain, name), "none"} if name == "relative" else {getattr(plain, name)}
            if getattr(last, name) not in unused:
                raise ConfigError(f"{where}: the last level leads to no other: remove its '{name}'")
        landmark = len(self.levels) > 1 and self.levels[-2].descriptor
        if last.use_spread and not last.mixing and last.boundary_points + landmark == 1:
            raise ConfigError(f"{where}: a spread that weighs one point does nothing: set use_spread = false")


# Option of the original -> (field of a level, whether the last level has none).
LIST_OPTIONS: dict[str, tuple[str, bool]] = {
    "hyperbolic_dims": ("dim", False),
    "boundary_points_per_level": ("boundary_points", False),
    "initial_curvatures": ("curvature", False),
    "initial_scales": ("scale", False),
    "initial_spread_values": ("spread", False),
    "rotation_types": ("rotation", True),
    "transform_types": ("transform", True),
    "transform_hidden_dims": ("transform_hidden", True),
}


def levels_from_lists(num_levels: int, lists: dict[str, Sequence[Any]]) -> tuple[LevelConfig, ...]:
    """Return the levels that the original's parallel list options describe.

    Args:
        num_levels: L.
        lists: Values by option name (see LIST_OPTIONS), each L long, those of transitions L - 1. `hyperbolic_dims` is
            needed; what is not given keeps its default.

    Raises:
        ConfigError: An unknown option, a list of the wrong length, or a value that a level cannot have.
    """
    if num_levels < 1:
        raise ConfigError(f"num_levels must be at least 1, got {num_levels}")
    if "hyperbolic_dims" not in lists:
        raise ConfigError("num_levels needs hyperbolic_dims, one dimension per level")
    tables: list[dict[str, Any]] = [{} for _ in range(num_levels)]
    for option, values in lists.items():
        if option not in LIST_OPTIONS:
            near = difflib.get_close_matches(option, LIST_OPTIONS, n=1, cutoff=0.0)
            raise ConfigError(f"unknown list option '{option}'; did you mean '{near[0]}'?")
        name, between = LIST_OPTIONS[option]
        wanted = num_levels - between
        if len(values) != wanted:
            raise ConfigError(f"{option} needs {wanted} values for num_levels {num_levels}, got {len(values)}")
        for table, value in zip(tables, values, strict=False):
            table[name] = value
    for table in tables:
        if table.get("boundary_points") == 0:  # no list says so, and nothing else is possible
            table["relative"] = "none"
    return tuple(from_plain(LevelConfig, table, where=f"levels[{index}]") for index, table in enumerate(tables))
