"""exp0 and log0: the round trip over radii, gradients at every length, and the bend that keeps points off the rim."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bytropix.geometry import FlatSpace, PoincareBall, exp0, log0, smooth_limit

DTYPES = [torch.float32, torch.float64]
DECADES = [10.0**power for power in range(-15, 1)]

# Largest relative error of log0(exp0(v)) that plain tanh and artanh reach, by dtype, curvature and norm. Past the
# radius 8.66 (18.7 in float64) a point holds no trace of the length that it came from.
ROUND_TRIP = {
    torch.float32: {
        0.1: {1e-6: 0.0, 1e-4: 0.0, 0.01: 1.2e-8, 1: 9.4e-8, 8: 1.8e-6, 10: 8.0e-6, 20: 1.7e-3},
        1.0: {
            1e-6: 0.0,
            1e-4: 0.0,
            0.01: 8.1e-8,
            1: 1.9e-7,
            3: 5.1e-6,
            4: 2.7e-5,
            6: 1.1e-3,
            8: 4.0e-2,
            10: 0.17,
            20: 0.57,
        },
        4.0: {1e-6: 0.0, 0.01: 5.5e-8, 1: 8.2e-7, 2: 2.7e-5, 4: 4.0e-2, 8: 0.46, 20: 0.79},
    },
    torch.float64: {
        0.1: {1e-6: 0.0, 1e-3: 0.0, 0.02: 0.0, 15: 2.6e-13, 20: 3.2e-12},
        1.0: {1e-6: 0.0, 1e-3: 0.0, 6: 1.6e-12, 8: 8.0e-11, 10: 3.1e-9, 15: 6.5e-5, 18: 3e-2, 20: 9.2e-2},
        4.0: {1e-6: 1.5e-16, 3: 1.6e-12, 4: 7.4e-11, 5: 3.1e-9, 9: 3e-2, 10: 8.2e-2, 20: 0.54},
    },
}
ROWS = [
    (dtype, c, norm, error)
    for dtype, table in ROUND_TRIP.items()
    for c, errors in table.items()
    for norm, error in errors.items()
]


def directions(count: int, dim: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Return unit vectors (count, dim)."""
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn / drawn.norm(dim=-1, keepdim=True)).to(dtype)


def one(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a tensor of no dimensions."""
    return torch.tensor(value, dtype=dtype)


@pytest.mark.parametrize(("dtype", "c", "norm", "error"), ROWS)
def test_log0_undoes_exp0(dtype: torch.dtype, c: float, norm: float, error: float) -> None:
    """A tangent vector survives the round trip as well as tanh and artanh allow, short ones exactly."""
    v = norm * directions(256, 128, dtype)
    back = log0(exp0(v, one(c, dtype)), one(c, dtype))

    found = ((back - v).norm(dim=-1) / v.norm(dim=-1)).max().item()
    assert found <= 2 * error + 3 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [0.1, 1.0, 4.0])
def test_length_is_monotone_and_finite_past_the_rim(dtype: torch.dtype, c: float) -> None:
    """A longer tangent vector is never nearer to the origin, and its way back is finite and hardly longer."""
    norms = torch.logspace(-6, 12, 400, dtype=dtype)
    v = norms[:, None] * directions(1, 8, dtype)
    x = exp0(v, one(c, dtype))
    back = log0(x, one(c, dtype)).norm(dim=-1)
    slack = 1 + 4 * torch.finfo(dtype).eps

    assert (x.norm(dim=-1).diff() >= -4 * torch.finfo(dtype).eps / c**0.5).all()
    assert torch.isfinite(back).all()
    assert (back <= norms * slack + 1.3 / c**0.5).all()  # three roundings at the rim are worth that much
    assert (x.norm(dim=-1) <= slack / c**0.5).all()


@pytest.mark.parametrize("limit", [float("inf"), 2.5])
@pytest.mark.parametrize("norm", [1e-7, 5e-5, 3e-3, 0.02, 1.0, 4.0])
def test_exp0_gradients_in_float64(limit: float, norm: float) -> None:
    """The hand-written gradients of v, c and s agree with finite differences from the origin to near the rim."""
    v = (norm * directions(3, 5, torch.float64)).requires_grad_()
    c, s = one(0.7).requires_grad_(), one(1.3).requires_grad_()

    assert torch.autograd.gradcheck(lambda v, c, s: exp0(v, c, s, limit), (v, c, s), eps=norm * 1e-5, atol=1e-8)


@pytest.mark.parametrize("radius", [1e-7, 5e-5, 3e-3, 0.02, 0.5, 0.9999])
def test_log0_gradients_in_float64(radius: float) -> None:
    """The same of log0."""
    y = (radius * directions(3, 5, torch.float64)).requires_grad_()
    c, s = one(0.99).requires_grad_(), one(1.3).requires_grad_()

    step = min(radius, 1 - radius) * 1e-3
    assert torch.autograd.gradcheck(log0, (y, c, s), eps=step, atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize("limit", [float("inf"), 2.5])
def test_gradients_pass_through_a_bent_round_trip(limit: float) -> None:
    """With a limit, log0(exp0(v)) depends on v, c and s; without one, on v alone: the pair then changes nothing."""
    v = directions(4, 6, torch.float64).requires_grad_()
    c, s = one(2.0).requires_grad_(), one(0.8).requires_grad_()
    back = log0(exp0(v, c, s, limit), c, s)
    on_c, on_s = torch.autograd.grad(back.norm(), (c, s), retain_graph=True)

    assert torch.autograd.gradcheck(lambda v, c, s: log0(exp0(v, c, s, limit), c, s), (v, c, s), atol=1e-7)
    if limit == float("inf"):
        torch.testing.assert_close(back, v)
        assert max(abs(on_c.item()), abs(on_s.item())) < 1e-12
    else:
        assert min(abs(on_c.item()), abs(on_s.item())) > 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [exp0, log0], ids=["exp0", "log0"])
def test_zero_maps_to_zero_with_unit_slope(function: Callable[..., Tensor], dtype: torch.dtype) -> None:
    """The origin stays where it is, and around it both maps are the identity."""
    v = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    out = function(v, one(2.0, dtype))
    out.sum().backward()

    assert torch.equal(out, torch.zeros_like(out))
    assert v.grad is not None
    assert torch.equal(v.grad, torch.ones_like(v.grad))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*DECADES, 10.0, 1e4, 1e12])
def test_gradients_are_finite_over_all_decades(dtype: torch.dtype, size: float) -> None:
    """Neither tiny nor huge vectors, at tiny or large curvature, give a gradient that is not a number."""
    for c in (1e-5, 1.0, 1e3):
        for limit in (float("inf"), 2.5):
            v = (size * directions(4, 8, dtype)).requires_grad_()
            values = [one(c, dtype).requires_grad_(), one(1.0, dtype).requires_grad_()]
            out = log0(exp0(v, *values, limit), *values)
            grads = torch.autograd.grad(out.sum(), (v, *values))

            assert all(torch.isfinite(found).all() for found in (out, *grads))


@pytest.mark.parametrize("c", [1e-4, 0.1, 1.0, 40.0])
@pytest.mark.parametrize("s", [0.1, 1.0, 9.0])
def test_limit_keeps_every_point_off_the_rim(c: float, s: float) -> None:
    """No vector gets deeper than the limit, whatever c and s have become, and at it a gradient is left."""
    v = (torch.logspace(-3, 6, 40)[:, None] * directions(1, 4, torch.float32)).requires_grad_()
    ball = PoincareBall(one(c, torch.float32), one(s, torch.float32))
    depth = (ball.c.sqrt() * ball.enter(v, 2.5).norm(dim=-1)).atanh()
    near = (2.5 / (s * c**0.5) * directions(1, 4, torch.float32)).requires_grad_()
    ball.enter(near, 2.5).norm().backward()

    assert depth.max().item() <= 2.5 + 1e-4
    assert near.grad is not None
    assert near.grad.norm().item() > 0.005 * s


def test_limit_leaves_short_vectors() -> None:
    """A vector far below the limit enters as if there were none, in the ball and in flat space."""
    v = 1e-3 * directions(3, 4, torch.float64)
    for space in (PoincareBall(one(1.0), one(1.0)), FlatSpace(one(1.0), one(1.0))):
        torch.testing.assert_close(space.enter(v, 2.5), space.enter(v), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", [1e-6, 0.1, 1.0, 1e3])
def test_smooth_limit_bends_norms(norm: float) -> None:
    """A norm r becomes most * tanh(r / most), and the direction stays."""
    v = norm * directions(3, 4, torch.float64)
    bent = smooth_limit(v, 2.0)

    torch.testing.assert_close(bent, 2.0 * torch.tanh(torch.tensor(norm / 2.0).double()) * v / norm)
