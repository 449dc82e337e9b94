"""The golden ratio in curvatures and first rotations: exact, lasting, and nothing but a switch."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bytropix.config import from_plain, to_plain
from bytropix.geometry import ROTATIONS, QuaternionRotation, SpecialOrthogonal
from bytropix.nesting import LevelConfig, NestedStack, NestingConfig

PHI = (1 + math.sqrt(5)) / 2


def levels(count: int) -> tuple[LevelConfig, ...]:
    """Return small levels of curvature 1."""
    return tuple(LevelConfig(dim=8, boundary_points=3, combiner_hidden=(16,), spread=0.5) for _ in range(count))


def stack_of(config: NestingConfig) -> NestedStack:
    """Return the stack of one seed for vectors of 6 numbers."""
    torch.manual_seed(0)
    return NestedStack(6, 5, config)


def curvatures(stack: NestedStack) -> list[float]:
    """Return what the stack reports of each level's c."""
    return [value.item() for tag, value in stack.scalars().items() if tag.endswith("curvature")]


def output(stack: NestedStack) -> Tensor:
    """Return what the stack makes of fixed vectors."""
    out: Tensor = stack(torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1)))
    return out


@pytest.mark.parametrize(
    ("kappa", "wanted"),
    [(1, [0.486, 0.786, 1.272, 2.058]), (-1, [2.058, 1.272, 0.786, 0.486]), (0, [1.0, 1.0, 1.0, 1.0])],
)
def test_four_levels_have_the_factors_of_the_ladder(kappa: int, wanted: list[float]) -> None:
    """Factors are phi^(kappa (i - 1.5)) for four levels, and the space of each level is made with them."""
    stack = stack_of(NestingConfig(levels=levels(4), phi_curvature=kappa))  # type: ignore[arg-type]

    assert curvatures(stack) == pytest.approx(wanted, abs=1e-3)
    assert [frame.space.c.item() for frame in stack.measures().frames] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_middle_of_the_ladder_keeps_its_curvature(count: int) -> None:
    """Whatever the number of levels, the factors' product is one and each is phi times the one before."""
    factors = NestingConfig(levels=levels(count), phi_curvature=1).curvature_factors()

    assert math.prod(factors) == pytest.approx(1)
    assert [after / before for before, after in itertools.pairwise(factors)] == pytest.approx([PHI] * (count - 1))


def test_the_factor_stays_when_curvatures_learn() -> None:
    """After training, each level's c is still its own number, which has moved, times its factor."""
    config = NestingConfig(levels=levels(3), phi_curvature=1)
    stack = stack_of(config)
    optimizer = torch.optim.Adam(stack.parameters(), lr=0.05)
    for _ in range(10):
        optimizer.zero_grad()
        output(stack).square().mean().backward()
        optimizer.step()
    own = [level.get_submodule("curvature")().item() for level in stack.levels]

    assert [number for number in own if abs(number - 1) < 1e-3] == []
    assert curvatures(stack) == pytest.approx(
        [number * factor for number, factor in zip(own, config.curvature_factors(), strict=True)]
    )


def test_a_factor_is_the_curvature_that_it_makes() -> None:
    """Levels with the factor, and levels that begin at the product, give the same output."""
    golden = NestingConfig(levels=levels(3), phi_curvature=1)
    plain = NestingConfig(
        levels=tuple(
            replace(level, curvature=factor)
            for level, factor in zip(levels(3), golden.curvature_factors(), strict=True)
        )
    )

    torch.testing.assert_close(output(stack_of(golden)), output(stack_of(plain)))


@pytest.mark.parametrize("dim", [4, 8, 12])
@pytest.mark.parametrize("name", ["so_n", "quat"])
def test_golden_rotations_turn_successive_planes(name: str, dim: int) -> None:
    """Plane k = 1, 2, ... of two coordinates turns by 2 pi / phi^k, and planes do not mix."""
    matrix = ROTATIONS[name](dim, "phi")(torch.eye(dim)).double()
    blocks = []
    for plane in range(1, dim // 2 + 1):
        c, s = math.cos(2 * math.pi / PHI**plane), math.sin(2 * math.pi / PHI**plane)
        blocks.append(torch.tensor([[c, s], [-s, c]], dtype=torch.float64))

    torch.testing.assert_close(matrix, torch.block_diag(*blocks), atol=1e-5, rtol=0)
    assert (matrix @ matrix.T - torch.eye(dim)).abs().max() < 1e-5


def test_an_odd_dimension_has_one_axis_that_does_not_turn() -> None:
    """so_n turns what planes there are."""
    matrix = SpecialOrthogonal(5, "phi").matrix()

    assert matrix[4].tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("rotation", ["so_n", "quat"])
def test_golden_angles_learn(rotation: str) -> None:
    """Every angle, also one that begins at zero, has a gradient, and the rotation stays one."""
    first, *rest = levels(2)
    golden = replace(first, rotation=rotation, rotation_init="phi")  # type: ignore[arg-type]
    stack = stack_of(NestingConfig(levels=(golden, *rest)))
    turn = stack.transitions[0].get_submodule("rotation")
    assert isinstance(turn, SpecialOrthogonal | QuaternionRotation)
    before = turn(torch.eye(8)).detach()
    optimizer = torch.optim.Adam(stack.parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        output(stack).square().mean().backward()
        optimizer.step()
    after = turn(torch.eye(8)).detach()

    for parameter in turn.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()
    assert (after - before).norm() > 0.05
    assert (after @ after.T - torch.eye(8)).abs().max() < 1e-5


@pytest.mark.parametrize("rotation", ["so_n", "quat"])
def test_the_control_differs_in_nothing_else(rotation: str) -> None:
    """With golden angles or factors, all other weights of a seed are those of the control."""
    first, *rest = levels(2)
    control = replace(first, rotation=rotation)  # type: ignore[arg-type]
    golden = replace(control, rotation_init="phi")
    plain = stack_of(NestingConfig(levels=(control, *rest))).state_dict()
    turned = stack_of(NestingConfig(levels=(golden, *rest), phi_curvature=1)).state_dict()
    differing = {name for name in plain if not torch.equal(plain[name], turned[name])}

    assert differing
    assert all("transitions.0.rotation" in name for name in differing)


def test_switches_that_are_off_leave_no_trace_in_a_recipe() -> None:
    """The plain form of a config without them is that of before they existed; with them it is read back."""
    plain = NestingConfig(levels=levels(2))
    first, last = levels(2)
    golden = NestingConfig(levels=(replace(first, rotation_init="phi"), last), phi_curvature=-1)

    assert "phi_curvature" not in to_plain(plain)
    assert all("rotation_init" not in level for level in to_plain(plain)["levels"])
    assert from_plain(NestingConfig, to_plain(golden)) == golden
