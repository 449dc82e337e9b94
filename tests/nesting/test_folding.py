r"""The folding test: no device of the geometry can be replaced by a linear layer and an offset.

    stack -> vectors of all levels, target                stack without the device -> vectors of all levels
                                        \                /
                      best affine map between them, by least squares -> what is left over

In these stacks every map outside the balls is linear, so a device that only re-parametrizes linear layers leaves
nothing. The original's construction, built below from the same parts, leaves nothing for each of its devices, which
shows that the test can tell the two apart.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bytropix.geometry import NoRotation, PoincareBall, SpecialOrthogonal, exp0, log0, mobius_add
from bytropix.nesting import LevelConfig, NestedStack, NestingConfig
from bytropix.nesting.level import Inflow, Level
from bytropix.nesting.transition import Transition

ROUNDING = 1e-9
DIMS = (8, 4)


def patches() -> Tensor:
    """Return patch vectors (64, 16, 6): many more than the affine map has numbers."""
    return torch.randn(64, 16, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def best_affine(target: Tensor, features: Tensor) -> Tensor:
    """Return the affine map of `features` (..., F) that is nearest to `target` (..., M), by least squares."""
    known = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1).flatten(0, -2)
    solution = torch.linalg.lstsq(known, target.flatten(0, -2), driver="gelsd").solution
    return (known @ solution).reshape(target.shape)


def left_over(target: Tensor, features: Tensor) -> float:
    """Return the share of `target` (N, M) that no affine map of `features` (N, F) explains."""
    fitted = best_affine(target, features)
    return ((target - fitted).norm() / (target - target.mean(0)).norm()).item()


def stack_of(**changes: Any) -> NestedStack:
    """Return two levels with linear layers alone outside the balls, and devices far from their first values."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"boundary_points": 3, "boundary_init": 0.6, "descriptor_init": 0.5, "scale": 1.2}
    settings |= {"spread": 0.4, "combiner_hidden": (), "flow": "none", "transform": "linear", **changes}
    last = {key: value for key, value in settings.items() if key not in ("rotation", "transform", "relative")}
    levels = (LevelConfig(dim=DIMS[0], **settings), LevelConfig(dim=DIMS[1], **last))
    stack = NestedStack(6, 5, NestingConfig(levels=levels)).double().eval()
    for transition in stack.transitions:
        assert isinstance(transition, Transition)
        for angles in transition.rotation.parameters():
            angles.data = angles.data + 0.5 * torch.randn_like(angles)
    return stack


def level_vectors(stack: NestedStack) -> Tensor:
    """Return the vectors of all levels (N, sum of dims) for the same patches."""
    seen: list[Tensor] = []
    hook = stack.aggregation.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    with torch.no_grad():
        stack(patches())
    hook.remove()
    return torch.cat(seen, dim=-1).flatten(0, 1)


def levels(stack: NestedStack) -> list[Level]:
    """Return the levels of a stack."""
    return [level for level in stack.levels if isinstance(level, Level)]


def set_value(stack: NestedStack, name: str, value: float) -> None:
    """Set c, s or sigma of every level."""
    for level in levels(stack):
        level.get_submodule(name).free.data.fill_(value).expm1_().log_()  # type: ignore[operator, union-attr]


def without_curvature(stack: NestedStack) -> None:
    """Make the balls flat."""
    set_value(stack, "curvature", 1e-7)


def without_scale(stack: NestedStack) -> None:
    """Set s to 1."""
    set_value(stack, "scale", 1.0)


def without_spread(stack: NestedStack) -> None:
    """Set sigma to 1."""
    set_value(stack, "spread", 1.0)


class FoldedTranslation(PoincareBall):
    """A ball in which a single point moves others by the best affine map of tangent vectors."""

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the Möbius sum, of a single point and many its affine equivalent."""
        moved = mobius_add(x, y, self.c)
        return moved if x.dim() > 1 else exp0(best_affine(log0(moved, self.c), log0(y, self.c)), self.c)


def without_descriptor(stack: NestedStack) -> None:
    """Replace the translation by the descriptor by a matrix and an offset, which linear layers could take up."""
    for level in levels(stack):
        object.__setattr__(level, "_space", FoldedTranslation)


def without_boundary_points(stack: NestedStack) -> None:
    """Put all boundary points at the origin."""
    for level in levels(stack):
        assert level.boundary_KD is not None
        level.boundary_KD.data.zero_()


def without_rotation(stack: NestedStack) -> None:
    """Fold the rotation into the map behind it, as could be done with the original's."""
    (transition,) = stack.transitions
    assert isinstance(transition, Transition)
    turn = transition.rotation(torch.eye(DIMS[0], dtype=torch.float64)).detach()
    assert isinstance(transition.map, nn.Linear)
    transition.map.weight.data = transition.map.weight.data @ turn.T
    transition.rotation = NoRotation(DIMS[0])


def folded(stack: NestedStack, name: str) -> None:
    """Replace a piece of what the second level receives by the best affine map of the vectors it receives."""

    def fold(_module: nn.Module, _inputs: object, inflow: Inflow) -> Inflow:
        return replace(inflow, **{name: best_affine(getattr(inflow, name), inflow.v_BPD)})

    stack.transitions[0].register_forward_hook(fold)


def without_relative_vectors(stack: NestedStack) -> None:
    """Replace the relative vectors by an affine map of the vectors, which they were in the original."""
    folded(stack, "relative_BPD")


def without_distances(stack: NestedStack) -> None:
    """Replace the distances to boundary points by an affine map of the vectors."""
    folded(stack, "distances_BPK")


def without_mixing(stack: NestedStack) -> None:
    """Let no patch see another."""
    for level in levels(stack):
        object.__setattr__(level.config, "mixing", False)


DEVICES = [
    without_curvature,
    without_scale,
    without_spread,
    without_descriptor,
    without_boundary_points,
    without_rotation,
    without_relative_vectors,
    without_distances,
    without_mixing,
]


@pytest.mark.parametrize("relative", ["mean", "sum", "softmax"])
@pytest.mark.parametrize("rotation", ["so_n", "quat"])
@pytest.mark.parametrize("remove", DEVICES)
def test_no_device_folds(remove: Callable[[NestedStack], None], rotation: str, relative: str) -> None:
    """Without the device, the best affine map misses the levels' vectors by far more than rounding."""
    whole, part = (stack_of(rotation=rotation, relative=relative) for _ in range(2))
    remove(part)

    features = torch.cat([level_vectors(part), patches().flatten(0, 1)], dim=-1)
    assert left_over(level_vectors(whole), features) > 1e-3


def test_what_is_linear_folds() -> None:
    """A stack explains itself, and another map behind the same balls: the fit is exact where it can be."""
    stack = stack_of()
    vectors = level_vectors(stack)
    mixed = vectors @ torch.randn(12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 3.0

    assert left_over(vectors, level_vectors(stack_of())) < ROUNDING
    assert left_over(mixed, vectors) < ROUNDING


@pytest.mark.parametrize("kind", ["so_n", "quat"])
def test_balls_are_no_linear_maps(kind: str) -> None:
    """No affine map of the patch vectors alone gives what the levels return."""
    assert left_over(level_vectors(stack_of(rotation=kind)), patches().flatten(0, 1)) > 0.05


class OriginalLike:
    """Two levels as the original had them: exp0 and log0 at the same c, relative vectors in tangent space."""

    def __init__(self, *, relative: str) -> None:
        made = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return 0.3 * torch.randn(*shape, generator=made, dtype=torch.float64)

        torch.manual_seed(0)
        rotation = SpecialOrthogonal(8).double()
        rotation.angles.data += 0.5 * torch.randn_like(rotation.angles)
        self.turn = rotation.matrix().detach()
        self.curvature, self.spread, self.relative = torch.tensor(1.3, dtype=torch.float64), 0.4, relative
        self.entry, self.map, self.combine = draw(6, 8), draw(8, 4), draw(13, 4)
        self.boundary, self.descriptor, self.relative_share = draw(3, 8), draw(8), 1.0

    def through_the_ball(self, v: Tensor) -> Tensor:
        """Return v by way of the ball."""
        return log0(exp0(v, self.curvature), self.curvature)

    def __call__(self) -> Tensor:
        """Return the vectors of both levels for the same patches as above."""
        v = self.through_the_ball(patches().flatten(0, 1) @ self.entry)
        turned = v @ self.turn @ self.map
        away_NKE = turned[:, None] - self.boundary @ self.turn @ self.map
        relative = self.relative_share * (away_NKE.mean(1) if self.relative == "mean" else away_NKE.sum(1))
        landmark = (self.descriptor @ self.turn @ self.map).expand_as(turned)
        sigma = torch.full_like(turned[:, :1], self.spread)
        second = torch.cat([turned, relative, landmark, sigma], dim=-1) @ self.combine
        return torch.cat([v, self.through_the_ball(second)], dim=-1)


@pytest.mark.parametrize("relative", ["mean", "sum"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("curvature", torch.tensor(1e-7, dtype=torch.float64)),
        ("turn", torch.eye(8, dtype=torch.float64)),
        ("boundary", torch.zeros(3, 8, dtype=torch.float64)),
        ("descriptor", torch.zeros(8, dtype=torch.float64)),
        ("spread", 1.0),
        ("relative_share", 0.0),
    ],
)
def test_every_device_of_the_original_folds(name: str, value: Any, relative: str) -> None:
    """The same removal from the original's construction leaves rounding alone."""
    whole, part = (OriginalLike(relative=relative) for _ in range(2))
    setattr(part, name, value)

    assert left_over(whole(), torch.cat([part(), patches().flatten(0, 1)], dim=-1)) < ROUNDING
