"""The nested levels as data: one table per level, and the list options of the original, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bytropix.errors import ConfigError

Rotation = Literal["so_n", "quat", "identity"]
Transform = Literal["mlp", "linear", "quat"]


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
    """Initial c > 0; the ball has curvature -c and radius 1/sqrt(c)."""
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
    flow: Literal["mlp", "linear", "none"] = "mlp"
    """The tangent flow, added after the ball."""
    flow_ratio: float = 0.5
    """Hidden width of an mlp flow as a share of dim, at least 16."""
    flow_scale: float = 1.0
    """Factor of the flow."""
    combiner_hidden: tuple[int, ...] = (64,)
    """Hidden widths of the network that combines a level's inputs."""
    rotation: Rotation = "so_n"
    """Rotation on the way to the next level; the last level leaves it at its default."""
    transform: Transform = "mlp"
    """Map to the next level's dim; the last level leaves it at its default."""
    transform_hidden: int = 0
    """Hidden width of an mlp transform; 0 takes the mean of both dims, at least 16."""
    relative: Literal["mean", "sum", "softmax", "none"] = "mean"
    """How the vectors from a patch to the boundary points are added up for the next level."""

    def __post_init__(self) -> None:
        if self.dim < 1 or self.boundary_points < 0 or self.transform_hidden < 0:
            raise ConfigError(
                "a level needs dim >= 1, boundary_points >= 0 and transform_hidden >= 0, got "
                f"{self.dim}, {self.boundary_points} and {self.transform_hidden}"
            )
        for name in ("curvature", "scale", "spread"):
            least = getattr(self, f"{name}_min")
            if not 0 < least < getattr(self, name):
                raise ConfigError(f"level {name} must exceed {name}_min > 0, got {getattr(self, name)} and {least}")
        if self.boundary_points == 0 and self.relative != "none":
            raise ConfigError("a level without boundary_points has no relative vectors: set relative = 'none'")
        if self.boundary_points == 0 and not self.mixing:
            raise ConfigError("a level needs boundary_points or mixing; without both its ball does nothing")
        if self.rotation == "quat" and self.dim % 4:
            raise ConfigError(f"rotation 'quat' needs a dim that is a multiple of 4, got {self.dim}")


def default_levels() -> tuple[LevelConfig, ...]:
    """Return three levels of 64, 32 and 16 dimensions."""
    return tuple(LevelConfig(dim=dim, spread=0.25) for dim in (64, 32, 16))


@dataclass(frozen=True, kw_only=True, slots=True)
class NestingConfig:
    """A stack of nested levels."""

    levels: tuple[LevelConfig, ...] = field(default_factory=default_levels)
    """Outermost first."""
    space: Literal["hyperbolic", "euclidean"] = "hyperbolic"
    """euclidean is the control: the same parts and parameters in flat space."""
    aggregation: Literal["concat_tangent", "attention", "gated"] = "concat_tangent"
    """How the levels' tangent vectors become one memory vector."""
    dropout: float = 0.0
    """Share of features dropped inside the combiners, flows and maps in training."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("nesting needs at least one level")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"nesting.dropout must lie in [0, 1), got {self.dropout}")
        plain = LevelConfig(dim=1)
        for name in ("rotation", "transform", "transform_hidden"):
            if getattr(self.levels[-1], name) != getattr(plain, name):
                raise ConfigError(f"the last level leads to no other: remove its '{name}'")
        for index, (level, after) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            if level.rotation != "identity" and not level.boundary_points:
                raise ConfigError(
                    f"levels[{index}]: a rotation acts through boundary points alone; set rotation = 'identity'"
                )
            if level.transform == "quat" and (level.dim % 4 or after.dim % 4):
                raise ConfigError(
                    f"levels[{index}]: transform 'quat' needs multiples of 4 as dims, got {level.dim} and {after.dim}"
                )


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
        ConfigError: An unknown option, or a list of the wrong length.
    """
    if "hyperbolic_dims" not in lists:
        raise ConfigError("num_levels needs hyperbolic_dims, one dimension per level")
    tables: list[dict[str, Any]] = [{} for _ in range(num_levels)]
    for option, values in lists.items():
        if option not in LIST_OPTIONS:
            raise ConfigError(f"unknown list option '{option}'; known: {', '.join(LIST_OPTIONS)}")
        name, between = LIST_OPTIONS[option]
        wanted = num_levels - between
        if len(values) != wanted:
            raise ConfigError(f"{option} needs {wanted} values for num_levels {num_levels}, got {len(values)}")
        for table, value in zip(tables, values, strict=False):
            table[name] = value
    return tuple(LevelConfig(**table) for table in tables)
