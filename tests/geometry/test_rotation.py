"""Rotations keep lengths and orientation; quaternion maps are Hamilton products."""

import pytest
import torch
from torch import Tensor, nn

from bytropix.errors import ConfigError
from bytropix.geometry import (
    ROTATIONS,
    NoRotation,
    PositiveParameter,
    QuaternionLinear,
    QuaternionRotation,
    SpecialOrthogonal,
    hamilton,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Return float64 numbers, the same on every machine."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def far_from_start(module: nn.Module) -> nn.Module:
    """Return the module in float64 with parameters far from their first values."""
    for index, parameter in enumerate(module.double().parameters()):
        parameter.data = drawn(*parameter.shape, seed=index + 10)
    return module


@pytest.mark.parametrize("dim", [4, 8, 12])
@pytest.mark.parametrize("name", ROTATIONS)
def test_rotations_are_orthogonal_with_determinant_one(name: str, dim: int) -> None:
    """Lengths, angles and orientation stay, also far from the first values."""
    rotation = far_from_start(ROTATIONS[name](dim))
    matrix = rotation(torch.eye(dim, dtype=torch.float64))

    torch.testing.assert_close(matrix @ matrix.T, torch.eye(dim, dtype=torch.float64))
    assert matrix.det().item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["so_n", "quat"])
def test_rotations_begin_near_the_identity_and_can_leave_it(name: str) -> None:
    """The first rotation is small; other parameters give a large one."""
    eye = torch.eye(8)
    first = (ROTATIONS[name](8)(eye) - eye).norm().item()
    later = (far_from_start(ROTATIONS[name](8))(eye.double()) - eye).norm().item()

    assert 1e-3 < first < 0.5
    assert later > 1


@pytest.mark.parametrize("name", ["so_n", "quat"])
def test_rotation_gradients(name: str) -> None:
    """Gradients of vectors and of all angles hold."""
    rotation = far_from_start(ROTATIONS[name](4))
    x = drawn(3, 4).requires_grad_()

    assert torch.autograd.gradcheck(lambda x, *_: rotation(x), (x, *rotation.parameters()))


def test_small_angles_of_so_n() -> None:
    """One small angle turns its plane by that angle."""
    rotation = SpecialOrthogonal(3).double()
    rotation.angles.data = torch.tensor([0.02, 0.0, 0.0], dtype=torch.float64)
    turned = rotation(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))

    torch.testing.assert_close(turned[1:], torch.tensor([0.02, 0.0], dtype=torch.float64).sin(), atol=1e-5, rtol=0)


def test_quaternion_rotation_is_p_x_q() -> None:
    """Each block of four is multiplied by its own unit quaternions, from the left and from the right."""
    rotation = far_from_start(QuaternionRotation(8))
    assert isinstance(rotation, QuaternionRotation)
    x = drawn(5, 8)
    p, q = (nn.functional.normalize(side, dim=-1) for side in (rotation.left, rotation.right))
    wanted = torch.cat([hamilton(hamilton(p[b], x[:, 4 * b : 4 * b + 4]), q[b]) for b in (0, 1)], dim=-1)

    torch.testing.assert_close(rotation(x), wanted)


def test_hamilton_rules() -> None:
    """On units: ij = k, ji = -k, i^2 = -1, and lengths multiply."""
    one, i, j, k = torch.eye(4, dtype=torch.float64)
    a, b = drawn(20, 4), drawn(20, 4, seed=1)

    assert torch.equal(hamilton(i, j), k)
    assert torch.equal(hamilton(j, i), -k)
    assert torch.equal(hamilton(i, i), -one)
    torch.testing.assert_close(hamilton(a, b).norm(dim=-1), a.norm(dim=-1) * b.norm(dim=-1))


def test_quaternion_linear_is_a_sum_of_hamilton_products() -> None:
    """Output quaternion o is the sum of x_i w_io over the input quaternions, plus the offset."""
    layer = far_from_start(QuaternionLinear(8, 12))
    assert isinstance(layer, QuaternionLinear)
    x = drawn(5, 8)
    outs = [sum(hamilton(x[:, 4 * i : 4 * i + 4], layer.weight[i, o]) for i in range(2)) for o in range(3)]

    torch.testing.assert_close(layer(x), torch.cat([torch.as_tensor(out) for out in outs], dim=-1) + layer.bias)
    assert sum(p.numel() for p in layer.parameters()) == 8 * 12 // 4 + 12


def test_no_rotation_is_the_identity() -> None:
    """The rotation of kind identity returns its argument and learns nothing."""
    x = drawn(2, 5)

    assert NoRotation(5)(x) is x
    assert not list(NoRotation(5).parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: QuaternionRotation(6), "multiple of 4, got 6"),
        (lambda: QuaternionLinear(8, 6), "multiples of 4, got 8 and 6"),
        (lambda: SpecialOrthogonal(1), "at least 2, got 1"),
        (lambda: PositiveParameter(1.0, least=1.0, learn=True), r"above its minimum 1.0 > 0, got 1.0"),
        (lambda: PositiveParameter(1.0, least=0.0, learn=True), r"minimum 0.0 > 0"),
    ],
)
def test_sizes_that_cannot_work_are_refused(build: type[nn.Module], message: str) -> None:
    """The error names the rule and the number that broke it."""
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("least", [1e-5, 0.1])
@pytest.mark.parametrize("first", [0.15, 1.0, 7.0, 120.0, 5000.0])
def test_positive_parameter_begins_at_its_value(first: float, least: float) -> None:
    """The first value is the one asked for, not its softplus."""
    assert PositiveParameter(first, least=least, learn=True)().item() == pytest.approx(first, rel=1e-6)


def test_positive_parameter_of_a_value_just_above_its_minimum() -> None:
    """A small distance to the minimum is kept too."""
    assert PositiveParameter(2e-5, least=1e-5, learn=True)().item() == pytest.approx(2e-5, rel=1e-4)


@pytest.mark.parametrize("free", [-80.0, -10.0, 0.0, 500.0])
def test_positive_parameter_stays_above_its_minimum(free: float) -> None:
    """Wherever the free number wanders, the value is finite, not below the minimum, and has a gradient."""
    parameter = PositiveParameter(1.0, least=0.25, learn=True)
    parameter.free.data.fill_(free)
    value = parameter()
    value.backward()

    assert 0.25 <= value.item() < 501
    assert parameter.free.grad is not None
    assert torch.isfinite(parameter.free.grad)


def test_a_number_that_is_not_learned_has_no_parameter() -> None:
    """It is kept with the weights all the same."""
    fixed = PositiveParameter(2.0, least=1e-5, learn=False)

    assert not list(fixed.parameters())
    assert "free" in fixed.state_dict()
