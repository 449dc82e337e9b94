"""Patches one by one go through compiled kernels: these give what the modules give."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from bytropix.nesting import LevelConfig, NestedStack, NestingConfig, StackStep, goes_in_steps

LEVELS: dict[str, tuple[LevelConfig, ...]] = {
    "one level": (LevelConfig(dim=6),),
    "three levels": (
        LevelConfig(dim=12, curvature=2.0, scale=0.7),
        LevelConfig(dim=8, spread=0.3),
        LevelConfig(dim=4, curvature=0.2),
    ),
    "quaternions": (LevelConfig(dim=12, rotation="quat", transform="quat", relative="softmax"), LevelConfig(dim=8)),
    "linear maps, sums": (LevelConfig(dim=5, transform="linear", relative="sum", flow="linear"), LevelConfig(dim=3)),
    "no points": (LevelConfig(dim=5, boundary_points=0, relative="none", rotation="identity"), LevelConfig(dim=4)),
    "no landmark, no relative": (LevelConfig(dim=5, relative="none", descriptor=False), LevelConfig(dim=4)),
    "no mixing, no flow": (
        LevelConfig(dim=6, mixing=False, flow="none", use_spread=False, combiner_hidden=()),
        LevelConfig(dim=4, mixing=False, flow_scale=-0.5, combiner_hidden=(7, 5)),
    ),
}


def a_stack(levels: tuple[LevelConfig, ...], **changes: Any) -> NestedStack:
    """Return a stack whose parameters lie far from where training begins."""
    torch.manual_seed(1)
    stack = NestedStack(10, 9, NestingConfig(levels=levels, **changes)).eval()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return stack


def check_as_exact(one_by_one: Tensor, whole: Tensor, stack: NestedStack, h_1PM: Tensor) -> None:
    """Both must be as near to the figures of float64, which deep in a ball lie far from those of float32."""
    with torch.inference_mode():
        exact = deepcopy(stack).double()(h_1PM.double())
    allowed = 3 * float((whole - exact).abs().max()) + 1e-5 * float(exact.abs().max())

    assert float((one_by_one - exact).abs().max()) <= allowed


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("depth", [0.1, 1.0, 30.0])
def test_kernels_equal_modules(name: str, depth: float) -> None:
    """Near the origin, in the middle and at the rim, each kind of level gives the same by kernels and by modules."""
    stack = a_stack(LEVELS[name])
    h_1PM = depth * torch.randn(1, 40, 10)
    with torch.inference_mode():
        whole = stack(h_1PM)
        cache = stack.new_cache()
        step = StackStep(stack, cache.measures)
        single = torch.cat([step(h_1PM[0, patch].numpy(), cache) for patch in range(40)], dim=1)

    check_as_exact(single, whole, stack, h_1PM)


@pytest.mark.parametrize("aggregation", ["concat_tangent", "attention", "gated"])
def test_kernels_and_modules_take_turns(aggregation: str) -> None:
    """One cache serves both roads, in any order, whatever the aggregation."""
    stack = a_stack(LEVELS["three levels"], aggregation=aggregation)
    h_1PM = torch.randn(1, 24, 10)
    with torch.inference_mode():
        whole = stack(h_1PM)
        cache = stack.new_cache()
        step, outs = StackStep(stack, cache.measures), []
        for patch in range(0, 24, 4):
            outs.append(stack(h_1PM[:, patch : patch + 3], cache))
            outs.append(step(h_1PM[0, patch + 3].numpy(), cache))

    check_as_exact(torch.cat(outs, dim=1), whole, stack, h_1PM)


def test_only_balls_in_float32_go_in_steps() -> None:
    """Flat space and float64 have no kernels."""
    ball, flat = a_stack(LEVELS["one level"]), a_stack(LEVELS["one level"], space="euclidean")

    assert [goes_in_steps(ball), goes_in_steps(flat), goes_in_steps(ball.double())] == [True, False, False]
