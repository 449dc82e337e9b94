"""What a stack promises to the model around it: causal, the same in pieces, float32, finite, every number learned."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bytropix.nesting import LevelConfig, NestedStack, NestingConfig
from bytropix.nesting.level import DEPTH_LIMIT


def stack_of(config: NestingConfig, dtype: torch.dtype = torch.float64, seed: int = 0) -> NestedStack:
    """Return a stack for vectors of 6 numbers, in evaluation mode."""
    torch.manual_seed(seed)
    return NestedStack(6, 5, config).to(dtype).eval()


def vectors(batch: int, patches: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Return patch vectors (B, P, 6)."""
    return torch.randn(batch, patches, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def nested(space: str = "hyperbolic", aggregation: str = "concat_tangent", **level: Any) -> NestingConfig:
    """Return three small levels of the same settings; the last has no transition."""
    settings: dict[str, Any] = {"boundary_points": 3, "combiner_hidden": (16,), "spread": 0.5, **level}
    last = {key: value for key, value in settings.items() if key not in ("rotation", "transform", "relative")}
    if not last["boundary_points"]:
        last["relative"] = "none"
    levels = [LevelConfig(dim=dim, **settings) for dim in (8, 8)] + [LevelConfig(dim=4, **last)]
    return NestingConfig(levels=tuple(levels), space=space, aggregation=aggregation)  # type: ignore[arg-type]


ONE_BY_ONE: list[dict[str, Any]] = [
    {"rotation": rotation, "transform": transform}
    for rotation, transform in itertools.product(("so_n", "quat", "identity"), ("mlp", "linear", "quat"))
]
ONE_BY_ONE += [
    {"relative": relative, "mixing": mixing}
    for relative, mixing in itertools.product(("mean", "sum", "softmax", "none"), (True, False))
]
ONE_BY_ONE += [
    {"flow": flow, "descriptor": descriptor, "use_spread": use_spread}
    for flow, descriptor, use_spread in itertools.product(("mlp", "linear", "none"), (True, False), (True, False))
]
ONE_BY_ONE += [
    {"aggregation": aggregation, "space": space}
    for aggregation, space in itertools.product(("concat_tangent", "attention", "gated"), ("hyperbolic", "euclidean"))
]
ONE_BY_ONE += [
    {"boundary_points": 0, "relative": "none", "rotation": "identity"},
    {"boundary_points": 0, "relative": "none", "rotation": "identity", "descriptor": False},
    {"boundary_points": 1, "mixing": False},
    {"boundary_points": 1, "mixing": False, "descriptor": False, "use_spread": False},
    {"combiner_hidden": ()},
    {"combiner_hidden": (8, 2), "flow_ratio": 3.0},
]


@pytest.mark.parametrize("settings", ONE_BY_ONE, ids=lambda settings: "-".join(map(str, settings.values())))
def test_every_parameter_has_a_gradient(settings: dict[str, Any]) -> None:
    """Nothing is learned that cannot be: c, s, sigma, points, angles and offsets of every level count."""
    stack = stack_of(nested(**settings))
    out = stack(vectors(4, 6))
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=out.dtype)).sum().backward()
    sizes = {name: 0.0 if p.grad is None else p.grad.norm().item() for name, p in stack.named_parameters()}

    assert {name for name, size in sizes.items() if not 1e-9 < size < 1e9} == set()


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("name", ["curvature", "scale", "spread"])
def test_curvature_scale_and_spread_learn(name: str, level: int) -> None:
    """The gradients of c, s and sigma agree with finite differences of the whole stack, level by level."""
    stack = stack_of(nested())
    free = stack.levels[level].get_submodule(name).free
    assert isinstance(free, Tensor)
    h = vectors(2, 5)
    (found,) = torch.autograd.grad(stack(h).square().sum(), free)
    sums = []
    for step in (1e-5, -2e-5):
        free.data += step
        sums.append(stack(h).square().sum().item())

    assert found.item() == pytest.approx((sums[0] - sums[1]) / 2e-5, rel=1e-4)
    assert abs(found.item()) > 1e-6


def test_only_used_features_have_parameters() -> None:
    """What is switched off leaves no parameter behind, and a number that is not learned is kept as a buffer."""
    plain = {"descriptor": False, "use_spread": False, "flow": "none", "rotation": "identity"}
    fixed = {"learn_curvature": False, "learn_scale": False}
    stack = stack_of(nested(boundary_points=0, relative="none", **plain, **fixed))
    parts = {part for name, _ in stack.named_parameters() for part in name.split(".")}

    assert not parts & {"descriptor_D", "spread", "flow", "rotation", "boundary_KD", "curvature", "scale", "free"}
    assert {"levels.0.curvature.free", "levels.2.scale.free"} <= set(stack.state_dict())


def test_euclidean_twin_has_the_same_weights() -> None:
    """The control holds the same weights; its c alone is frozen, and means nothing."""
    ball, flat = stack_of(nested()), stack_of(nested(space="euclidean"))
    curvatures = {f"levels.{level}.curvature.free" for level in range(3)}
    before = flat(vectors(2, 5))
    for level in flat.levels:
        level.get_submodule("curvature").free.fill_(3.0)  # type: ignore[operator]

    assert ball.state_dict().keys() == flat.state_dict().keys()
    assert {name for name, _ in ball.named_parameters()} - {name for name, _ in flat.named_parameters()} == curvatures
    assert torch.equal(flat(vectors(2, 5)), before)
    assert (ball(vectors(2, 5)) - before).norm() > 0.01 * before.norm()


def test_twin_is_the_limit_of_small_curvature() -> None:
    """With c of 1e-9 everywhere and short vectors the ball is its twin."""
    tiny = {"curvature": 1e-9, "curvature_min": 1e-10, "scale": 1e-2, "spread": 1e-2}
    ball, flat = stack_of(nested(**tiny)), stack_of(nested(space="euclidean", **tiny))

    torch.testing.assert_close(ball(vectors(2, 5)), flat(vectors(2, 5)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("space", ["hyperbolic", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_patch_never_sees_later_ones(space: str, dtype: torch.dtype) -> None:
    """Other patches after k, however wild, leave the output up to k exactly as it was; those before k change it."""
    stack = stack_of(nested(space=space), dtype)
    h = vectors(2, 9, dtype)
    before = stack(h)
    for k in range(9):
        other = h.clone()
        other[:, k:] = 30 * vectors(2, 9, dtype, seed=k + 1)[:, k:]
        after = stack(other)

        assert torch.equal(before[:, :k], after[:, :k])
        assert (before[:, k:] - after[:, k:]).abs().amax(-1).min() > 1e-6


def test_gradient_never_reaches_later_patches() -> None:
    """The derivative of output k by inputs after k is exactly zero, and by every earlier one it is not."""
    stack = stack_of(nested())
    h = vectors(1, 6).requires_grad_()
    for k in range(6):
        (grad,) = torch.autograd.grad(stack(h)[0, k].square().sum(), h)

        assert not grad[0, k + 1 :].any()
        assert grad[0, : k + 1].norm(dim=-1).min() > 1e-9


@pytest.mark.parametrize("settings", [{}, {"mixing": False}, {"space": "euclidean"}, {"relative": "softmax"}])
@pytest.mark.parametrize("cuts", [range(1, 9), [3, 4], [1, 8], []])
def test_cached_stack_equals_the_whole(settings: dict[str, Any], cuts: list[int]) -> None:
    """Patches given in any pieces to a cached stack give what the window gives at once."""
    stack = stack_of(nested(**settings), torch.float32)
    h = vectors(2, 9, torch.float32)
    cache = stack.new_cache()
    edges = [0, *cuts, 9]
    pieces = [stack(h[:, a:b], cache) for a, b in itertools.pairwise(edges)]

    torch.testing.assert_close(torch.cat(pieces, dim=1), stack(h), rtol=1e-5, atol=1e-5)


def test_copied_cache_grows_apart() -> None:
    """Going on from a copy leaves the cache that it was copied from as it was."""
    stack = stack_of(nested())
    h, cache = vectors(1, 4), stack.new_cache()
    stack(h[:, :3], cache)
    branch = cache.copy()
    stack(5 + h[:, 3:], branch)

    torch.testing.assert_close(stack(h[:, 3:], cache), stack(h)[:, 3:])


@pytest.mark.parametrize("space", ["hyperbolic", "euclidean"])
def test_row_alone_equals_row_in_a_batch(space: str) -> None:
    """Rows of a batch know nothing of each other."""
    stack = stack_of(nested(space=space), torch.float32)
    h = vectors(5, 7, torch.float32)
    alone = torch.cat([stack(row[None]) for row in h])

    torch.testing.assert_close(stack(h), alone, rtol=0, atol=1e-5)


def test_autocast_changes_nothing() -> None:
    """Under bfloat16 autocast the whole stack still runs in float32, to the last bit."""
    stack = stack_of(nested(), torch.float32)
    h = vectors(2, 5, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside, rounded = stack(h), stack(h.bfloat16())

    assert inside.dtype == rounded.dtype == torch.float32
    assert torch.equal(inside, stack(h))
    assert torch.equal(rounded, stack(h.bfloat16().float()))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6, 1e3, 1e8, 1e15])
@pytest.mark.parametrize("settings", [{}, {"curvature": 50.0, "scale": 8.0}, {"curvature": 1e-4}, {"spread": 1e-3}])
def test_tiny_and_huge_vectors_stay_finite(settings: dict[str, Any], size: float) -> None:
    """Patch vectors of any length, at any curvature, give a bounded output of the balls and finite gradients."""
    stack = stack_of(nested(flow="none", **settings), torch.float32)
    seen: list[Tensor] = []
    stack.aggregation.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    h = (size * vectors(2, 5, torch.float32)).requires_grad_()
    out = stack(h)
    out.sum().backward()
    grads = [h.grad, *(parameter.grad for parameter in stack.parameters())]

    assert torch.isfinite(out).all()
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
    for level, config, v in zip(stack.levels, nested(**settings).levels, seen, strict=True):
        radius = config.dim**0.5 / (config.scale * config.curvature**0.5)
        # A patch, its translation and its midpoint are each no deeper than the limit; the rim counts as 8.66.
        assert v.norm(dim=-1).max().item() <= 3.04 * DEPTH_LIMIT * radius, level


def test_scalars_report_every_level() -> None:
    """The metrics of a step hold c, s and sigma of each level, at their first values here."""
    stack = stack_of(nested(curvature=2.0, scale=0.7))
    values = {name: round(value.item(), 4) for name, value in stack.scalars().items()}

    assert values == {
        f"levels/{level}/{name}": value
        for level in range(3)
        for name, value in {"curvature": 2.0, "scale": 0.7, "spread": 0.5}.items()
    }
