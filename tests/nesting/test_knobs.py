"""Every setting of the levels does something, wrong ones are refused by name, and the original's lists are checked."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bytropix.errors import ConfigError
from bytropix.nesting import LIST_OPTIONS, LevelConfig, NestedStack, NestingConfig, levels_from_lists

FIRST = LevelConfig(dim=8, boundary_points=3, combiner_hidden=(16,), transform="mlp")
LAST = LevelConfig(dim=4, boundary_points=3, combiner_hidden=(16,))

LEVEL_CHANGES: dict[str, Any] = {
    "dim": 12,
    "boundary_points": 4,
    "boundary_init": 0.3,
    "curvature": 2.0,
    "scale": 0.5,
    "spread": 0.3,
    "learn_curvature": False,
    "learn_scale": False,
    "learn_spread": False,
    "curvature_min": 0.01,
    "scale_min": 0.01,
    "spread_min": 0.01,
    "use_spread": False,
    "descriptor": False,
    "descriptor_init": 0.2,
    "mixing": False,
    "flow": "linear",
    "flow_ratio": 4.0,
    "flow_scale": 0.5,
    "combiner_hidden": (16, 16),
    "rotation": "quat",
    "rotation_init": "phi",
    "transform": "linear",
    "transform_hidden": 24,
    "relative": "softmax",
}
STACK_CHANGES: dict[str, Any] = {
    "levels": (FIRST, LAST, LAST),
    "space": "euclidean",
    "aggregation": "gated",
    "dropout": 0.5,
    "phi_curvature": 1,
}


def config_of(**changes: Any) -> NestingConfig:
    """Return two levels, the first with the given settings."""
    return NestingConfig(levels=(replace(FIRST, **changes), LAST))


def trace(config: NestingConfig) -> tuple[Tensor, list[str], dict[str, Tensor]]:
    """Return output in training mode, names of the parameters, and all weights, from one seed."""
    torch.manual_seed(0)
    stack = NestedStack(6, 5, config)
    h = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(1))
    return stack(h), [name for name, _ in stack.named_parameters()], dict(stack.state_dict())


def differ(one: NestingConfig, other: NestingConfig) -> bool:
    """Return whether two configs differ in output, in what is learned, or in weights."""
    (out, names, weights), (other_out, other_names, other_weights) = trace(one), trace(other)
    same_weights = weights.keys() == other_weights.keys() and all(
        weights[name].shape == other_weights[name].shape and torch.equal(weights[name], other_weights[name])
        for name in weights
    )
    return not (torch.equal(out, other_out) and names == other_names and same_weights)


def test_the_tables_of_changes_name_every_setting() -> None:
    """A new setting must be added to the tables below, or these tests would not see it."""
    assert set(LevelConfig.__dataclass_fields__) == set(LEVEL_CHANGES)
    assert set(NestingConfig.__dataclass_fields__) == set(STACK_CHANGES)


@pytest.mark.parametrize("name", LEVEL_CHANGES)
def test_every_level_setting_does_something(name: str) -> None:
    """A change of the setting changes the output, the parameters or their values."""
    assert not differ(config_of(), config_of())
    assert differ(config_of(), config_of(**{name: LEVEL_CHANGES[name]}))


@pytest.mark.parametrize("name", STACK_CHANGES)
def test_every_stack_setting_does_something(name: str) -> None:
    """The same for the settings of the whole stack."""
    assert differ(config_of(), replace(config_of(), **{name: STACK_CHANGES[name]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"boundary_points": -1}, "boundary_points must be at least 0, got -1"),
        ({"boundary_init": 0.0}, "boundary_init must be positive, got 0.0"),
        ({"descriptor_init": -0.1}, "descriptor_init must be at least 0"),
        ({"curvature": 0.0}, "curvature must exceed curvature_min > 0, got 0.0"),
        ({"curvature": float("nan")}, "curvature must exceed"),
        ({"scale": -1.0}, "scale must exceed scale_min"),
        ({"spread": 1e-6}, "spread must exceed spread_min"),
        ({"spread_min": 0.0}, "spread must exceed spread_min > 0, got 1.0 and 0.0"),
        ({"flow": "mpl"}, "flow must be one of mlp, linear, none, got 'mpl'"),
        ({"flow_ratio": 0.0}, "flow_ratio must be positive"),
        ({"flow_scale": 0.0}, "set flow = 'none'"),
        ({"combiner_hidden": (16, 1)}, "combiner_hidden widths must be at least 2, got 1"),
        ({"rotation": "so(n)"}, "rotation must be one of so_n, quat, identity, got 'so\\(n\\)'"),
        ({"rotation": "quat", "dim": 6}, "rotation 'quat' needs a dim that is a multiple of 4, got 6"),
        ({"rotation_init": "golden"}, "rotation_init must be one of small, phi, got 'golden'"),
        ({"rotation": "identity", "rotation_init": "phi"}, "rotation_init is for rotations with angles"),
        ({"transform": "conv"}, "transform must be one of"),
        ({"transform": "quat", "dim": 6}, r"levels\[0\]: transform 'quat' needs .* got 6 and 4"),
        ({"transform": "linear", "transform_hidden": 8}, "transform_hidden is for transform 'mlp', not for 'linear'"),
        ({"transform_hidden": -3}, "transform_hidden, if not 0, must be at least 2, got -3"),
        ({"transform_hidden": 1}, "transform_hidden, if not 0, must be at least 2, got 1"),
        ({"relative": "max"}, "relative must be one of mean, sum, softmax, none, got 'max'"),
        ({"boundary_points": 0}, "boundary_points = 0 has no relative vectors: set relative = 'none'"),
        ({"boundary_points": 0, "relative": "none", "mixing": False}, "needs boundary_points or mixing"),
        ({"boundary_points": 0, "relative": "none"}, r"levels\[0\]: a rotation acts through boundary_points alone"),
        ({"dim": 1}, r"levels\[0\]: rotation 'so_n' needs a dim of at least 2"),
    ],
)
def test_wrong_level_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    """The error names the setting, the value and the rule or remedy."""
    with pytest.raises(ConfigError, match=message):
        config_of(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": ()}, "nesting.levels must hold at least one"),
        ({"space": "spherical"}, "nesting.space must be one of hyperbolic, euclidean"),
        ({"aggregation": "sum"}, "nesting.aggregation must be one of"),
        ({"aggregation": "attention", "levels": (LAST,)}, "'attention' chooses among levels"),
        ({"phi_curvature": 2}, "nesting.phi_curvature must be one of -1, 0, 1, got 2"),
        ({"levels": (FIRST, replace(LAST, rotation_init="phi"))}, r"levels\[1\]: .*remove its 'rotation_init'"),
        ({"dropout": 1.0}, r"nesting.dropout must lie in \[0, 1\), got 1.0"),
        ({"levels": (FIRST, replace(LAST, rotation="quat"))}, r"levels\[1\]: .*remove its 'rotation'"),
        ({"levels": (replace(LAST, transform="linear"),)}, r"levels\[0\]: .*remove its 'transform'"),
        ({"levels": (replace(LAST, transform_hidden=9),)}, "remove its 'transform_hidden'"),
        ({"levels": (replace(LAST, relative="sum"),)}, "remove its 'relative'"),
        ({"levels": (replace(LAST, mixing=False, boundary_points=1),)}, "set use_spread = false"),
    ],
)
def test_wrong_stack_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    """What a last level cannot use, and what could have no gradient, is refused too."""
    with pytest.raises(ConfigError, match=message):
        NestingConfig(**{"levels": (FIRST, LAST), **changes})


def test_lists_of_the_original() -> None:
    """Parallel lists give the same levels as tables; lists of transitions are one shorter."""
    levels = levels_from_lists(
        3,
        {
            "hyperbolic_dims": [8, 4, 4],
            "boundary_points_per_level": [5, 4, 3],
            "initial_curvatures": [1, 2.0, 4.0],
            "initial_scales": [1.0, 0.8, 0.5],
            "initial_spread_values": [1.0, 0.7, 0.4],
            "rotation_types": ["so_n", "quat"],
            "transform_types": ["linear", "mlp"],
            "transform_hidden_dims": [0, 32],
        },
    )

    assert levels == (
        LevelConfig(dim=8, rotation="so_n", transform="linear"),
        LevelConfig(
            dim=4, boundary_points=4, curvature=2.0, scale=0.8, spread=0.7, rotation="quat", transform_hidden=32
        ),
        LevelConfig(dim=4, boundary_points=3, curvature=4.0, scale=0.5, spread=0.4),
    )


def test_lists_of_one_level() -> None:
    """One level has no transition, so lists of transitions are empty."""
    lists = {"hyperbolic_dims": [8], "boundary_points_per_level": [0], "rotation_types": [], "transform_types": []}

    assert levels_from_lists(1, lists) == (LevelConfig(dim=8, boundary_points=0, relative="none"),)


@pytest.mark.parametrize("option", LIST_OPTIONS)
def test_lists_of_the_wrong_length_are_refused(option: str) -> None:
    """The message says how many values are needed and how many came."""
    values = {"rotation_types": "so_n", "transform_types": "mlp"}
    lists: dict[str, list[Any]] = {"hyperbolic_dims": [8, 8, 8], option: [values.get(option, 4)] * 5}
    wanted = 3 - LIST_OPTIONS[option][1]

    with pytest.raises(ConfigError, match=f"{option} needs {wanted} values for num_levels 3, got 5"):
        levels_from_lists(3, lists)


@pytest.mark.parametrize(
    ("count", "lists", "message"),
    [
        (2, {"hyperbolic_dims": [8, 4], "initial_curvature": [1.0, 2.0]}, "did you mean 'initial_curvatures'"),
        (2, {"initial_curvatures": [1.0, 2.0]}, "needs hyperbolic_dims"),
        (0, {"hyperbolic_dims": []}, "num_levels must be at least 1, got 0"),
        (1, {"hyperbolic_dims": ["wide"]}, r"levels\[0\].dim must be of type int, got 'wide'"),
        (2, {"hyperbolic_dims": [8, 4], "rotation_types": ["spin"]}, r"levels\[0\].rotation must be one of so_n"),
    ],
)
def test_wrong_lists_are_refused(count: int, lists: dict[str, Any], message: str) -> None:
    """An unknown option names the nearest known one; a wrong value names its level and field."""
    with pytest.raises(ConfigError, match=message):
        levels_from_lists(count, lists)


def test_original_settings_build() -> None:
    """The whole of the original's default table is a stack that runs."""
    levels = levels_from_lists(
        3, {"hyperbolic_dims": [128, 64, 32], "initial_curvatures": [1.0, 1.0, 1.0], "rotation_types": ["so_n"] * 2}
    )
    out = NestedStack(256, 512, NestingConfig(levels=levels, dropout=0.1))(torch.randn(1, 3, 256))

    assert out.shape == (1, 3, 512)
