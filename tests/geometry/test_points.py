"""Möbius sums, distances, midpoints and relative vectors: the laws of gyrovectors, and gradients of each."""

import pytest
import torch
from torch import Tensor

from bytropix.geometry import FlatSpace, PoincareBall, exp0, log0, mobius_add, squared_distances

CURVATURES = [0.1, 1.0, 4.0]
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-9}
DTYPES = list(TOLERANCE)


def ball_of(c: float, dtype: torch.dtype = torch.float64, s: float = 1.0) -> PoincareBall:
    """Return a ball whose numbers take gradients."""
    return PoincareBall(*(torch.tensor(value, dtype=dtype, requires_grad=True) for value in (c, s)))


def points(ball: PoincareBall, *shape: int, depth: float = 1.0, seed: int = 0) -> Tensor:
    """Return points whose depth sqrt(c) |v| is about `depth`."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit = (depth / shape[-1] ** 0.5 / ball.c.detach().double().sqrt() * drawn).to(ball.c.dtype)
    return exp0(unit, ball.c).detach()


def pair_distance(ball: PoincareBall, x: Tensor, y: Tensor) -> Tensor:
    """Return the distance of x[n] and y[n], straight from its definition by the Möbius sum."""
    c = ball.c.detach()
    return 2 / c.sqrt() * (c.sqrt() * mobius_add(-x, y, c).norm(dim=-1)).atanh()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CURVATURES)
def test_mobius_laws(c: float, dtype: torch.dtype) -> None:
    """Zero is neutral on both sides, -x cancels x on the left, and a point on one line adds depth to depth."""
    ball = ball_of(c, dtype)
    x, y = points(ball, 50, 6), points(ball, 50, 6, seed=1)
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}

    torch.testing.assert_close(ball.add(torch.zeros_like(x), x), x)
    torch.testing.assert_close(ball.add(x, torch.zeros_like(x)), x)
    torch.testing.assert_close(ball.add(-x, x), torch.zeros_like(x), **close)
    torch.testing.assert_close(ball.add(-x, ball.add(x, y)), y, **close)
    v = 0.3 * y
    torch.testing.assert_close(ball.add(exp0(v, ball.c), exp0(2 * v, ball.c)), exp0(3 * v, ball.c), **close)


@pytest.mark.parametrize("c", CURVATURES)
def test_many_additions_stay_finite(c: float) -> None:
    """A walk that adds the same point again and again ends at the rim, with finite way back and gradient."""
    ball = ball_of(c, torch.float32)
    step = points(ball, 4, 6).requires_grad_()
    x = step
    for _ in range(100):
        x = ball.add(step, x)
    v = ball.leave(x)
    v.sum().backward()

    assert step.grad is not None
    assert torch.isfinite(v).all()
    assert torch.isfinite(step.grad).all()


@pytest.mark.parametrize("c", CURVATURES)
def test_mobius_gradients(c: float) -> None:
    """The hand-written gradients of the sum hold for x, y and c, also where a single point is added to many."""
    ball = ball_of(c)
    x, y = points(ball, 3, 4).requires_grad_(), points(ball, 3, 4, seed=1).requires_grad_()

    assert torch.autograd.gradcheck(mobius_add, (x, y, ball.c))
    assert torch.autograd.gradcheck(mobius_add, (x[0].detach().requires_grad_(), y, ball.c))
    assert torch.autograd.gradcheck(mobius_add, (x, y[:1].detach().requires_grad_(), ball.c))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CURVATURES)
def test_distance_is_a_metric(c: float, dtype: torch.dtype) -> None:
    """Symmetric, zero only where points meet, and never longer over a detour."""
    ball = ball_of(c, dtype)
    x = points(ball, 1, 30, 5)
    d = ball.distances(x, x)[0]

    torch.testing.assert_close(d, d.T, rtol=1e-5, atol=1e-5)
    assert d.diagonal().max().item() < 0.03
    assert (d + 10 * torch.eye(30, dtype=dtype)).min().item() > 0.05
    assert (d[:, None] <= d[:, :, None] + d[None] + 1e-5).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CURVATURES)
def test_distance_by_definition(c: float, dtype: torch.dtype) -> None:
    """From the origin it is 2/sqrt(c) artanh(sqrt(c) |x|), twice the tangent norm; else that of the Möbius sum."""
    ball = ball_of(c, dtype)
    x, y = points(ball, 1, 40, 6), points(ball, 1, 40, 6, seed=1)
    d = ball.distances(x, y)[0]

    torch.testing.assert_close(
        ball.distances(torch.zeros_like(x[:, :1]), x)[0, 0], 2 * log0(x, ball.c)[0].norm(dim=-1), rtol=2e-5, atol=0
    )
    torch.testing.assert_close(d.diagonal(), pair_distance(ball, x[0], y[0]), rtol=2e-4, atol=0)


@pytest.mark.parametrize("depth", [1.0, 2.0])
@pytest.mark.parametrize("c", CURVATURES)
def test_isometries_keep_distances(c: float, depth: float) -> None:
    """Translations and rotations of the ball change no distance, and carry midpoints along."""
    ball = ball_of(c)
    x, y = points(ball, 1, 7, 5, depth=depth), points(ball, 1, 9, 5, depth=depth, seed=1)
    move = points(ball, 5, seed=2)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    weights = torch.rand(1, 7, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64).softmax(-1)
    d, middle = ball.distances(x, y), ball.midpoints(weights, y)

    torch.testing.assert_close(ball.distances(x @ turn, y @ turn), d)
    torch.testing.assert_close(ball.midpoints(weights, y @ turn), middle @ turn)
    torch.testing.assert_close(ball.distances(ball.add(move, x), ball.add(move, y)), d, rtol=3e-4, atol=1e-5)
    torch.testing.assert_close(ball.midpoints(weights, ball.add(move, y)), ball.add(move, middle))


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3])
def test_near_points_have_their_distance_in_float32(gap: float) -> None:
    """At depth 2 a gap far below the size of the points is measured exactly, where squares in float32 lose it."""
    ball = ball_of(1.0, torch.float32)
    x = points(ball, 1, 32, 64, depth=2.0)
    y = ball.add(x, exp0(gap * torch.nn.functional.normalize(torch.randn_like(x), dim=-1), ball.c)).detach()
    found = ball.distances(x, y)[0].diagonal()
    exact = PoincareBall(ball.c.double(), ball.s.double()).distances(x.double(), y.double())[0].diagonal()

    assert exact.max().item() < 3 * gap + 0.06
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("c", CURVATURES)
def test_distance_gradients(c: float) -> None:
    """The hand-written gradients of x, y, c and the factor agree with finite differences."""
    ball = ball_of(c)
    x, y = points(ball, 2, 3, 4).requires_grad_(), points(ball, 2, 5, 4, depth=2.0, seed=1).requires_grad_()
    factor = torch.tensor(-1.7, dtype=torch.float64, requires_grad=True)

    def distances(x: Tensor, y: Tensor, c: Tensor, factor: Tensor) -> Tensor:
        return PoincareBall(c, ball.s).distances(x, y, factor)

    assert torch.autograd.gradcheck(distances, (x, y, ball.c, factor))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_a_point_to_itself(dtype: torch.dtype) -> None:
    """Where a point meets itself the distance pulls it nowhere, and the gradient is finite."""
    ball = ball_of(1.0, dtype)
    x, y = (points(ball, 1, 6, 8, depth=2.0).requires_grad_() for _ in range(2))
    ball.distances(x, y).diagonal(dim1=1, dim2=2).sum().backward()
    scale = 2 / (1 - x.detach().square().sum(-1).max())  # slope of a distance between points that are apart

    assert x.grad is not None
    assert (x.grad.abs().max() / scale).item() < 0.05


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CURVATURES)
def test_midpoints(c: float, dtype: torch.dtype) -> None:
    """All weight on one point gives that point; half on each of two gives the point that is equally far from both."""
    ball = ball_of(c, dtype)
    y = points(ball, 1, 6, 5, depth=2.0)
    alone = torch.eye(6, dtype=dtype)[None]
    half = torch.zeros(1, 1, 6, dtype=dtype)
    half[..., 1:3] = 0.5
    middle = ball.midpoints(half, y)
    to_ends = ball.distances(middle, y)[0, 0, 1:3]

    torch.testing.assert_close(ball.midpoints(alone, y), y, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    torch.testing.assert_close(to_ends[0], to_ends[1], rtol=2e-3, atol=0)
    torch.testing.assert_close(to_ends.sum(), ball.distances(y, y)[0, 1, 2], rtol=2e-3, atol=0)


@pytest.mark.parametrize("c", CURVATURES)
def test_midpoint_gradients(c: float) -> None:
    """Gradients of weights, points and c hold, and stay finite where one deep point has all the weight."""
    ball = ball_of(c)
    y = points(ball, 1, 4, 3).requires_grad_()
    logits = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    deep = points(ball_of(c, torch.float32), 1, 1, 3, depth=8.0).requires_grad_()
    PoincareBall(ball.c.detach().float(), ball.s).midpoints(torch.ones(1, 1, 1), deep).sum().backward()

    def midpoints(logits: Tensor, y: Tensor, c: Tensor) -> Tensor:
        return PoincareBall(c, ball.s).midpoints(logits.softmax(-1), y)

    assert torch.autograd.gradcheck(midpoints, (logits, y, ball.c))
    assert deep.grad is not None
    assert torch.isfinite(deep.grad).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CURVATURES)
def test_relative_is_the_sum_of_log_maps(c: float, dtype: torch.dtype) -> None:
    """The short form equals the weighted sum of log0(-x (+) y), built pair by pair as a B, P, K, D tensor."""
    ball = ball_of(c, dtype, s=1.7)
    x, y = points(ball, 2, 7, 5, depth=1.5), points(ball, 2, 4, 5, depth=1.5, seed=1)
    weights = torch.rand(2, 7, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    c64, s64 = ball.c.double(), ball.s.double()
    moved_BPKD = mobius_add(-x.double()[:, :, None], y.double()[:, None], c64)
    wanted = (weights.double()[..., None] * log0(moved_BPKD, c64, s64)).sum(2).to(dtype)
    found = ball.relative(weights, x, y, ball.distances(x, y))

    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-5 / c**0.5)


@pytest.mark.parametrize("c", CURVATURES)
def test_relative_gradients(c: float) -> None:
    """Gradients of everything that goes into relative vectors hold."""
    ball = ball_of(c)
    x, y = points(ball, 1, 3, 4).requires_grad_(), points(ball, 1, 2, 4, seed=1).requires_grad_()
    weights = torch.rand(1, 3, 2, dtype=torch.float64, requires_grad=True)

    def relative(weights: Tensor, x: Tensor, y: Tensor, c: Tensor, s: Tensor) -> Tensor:
        space = PoincareBall(c, s)
        return space.relative(weights, x, y, space.distances(x, y))

    assert torch.autograd.gradcheck(relative, (weights, x, y, ball.c, ball.s))


def test_small_curvature_is_flat_space() -> None:
    """For c -> 0 every method of the ball becomes that of flat space."""
    c, s = torch.tensor(1e-10, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)
    ball, flat = PoincareBall(c, s), FlatSpace(c, s)
    made = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, count, 4, generator=made, dtype=torch.float64) for count in (5, 3))
    weights = torch.rand(1, 5, 3, generator=made, dtype=torch.float64).softmax(-1)
    close = {"rtol": 1e-7, "atol": 1e-7}

    torch.testing.assert_close(ball.enter(x), flat.enter(x), **close)
    torch.testing.assert_close(ball.leave(x), flat.leave(x), **close)
    torch.testing.assert_close(ball.add(x[:, :3], y), flat.add(x[:, :3], y), **close)
    torch.testing.assert_close(ball.distances(x, y, 0.7), flat.distances(x, y, 0.7), **close)
    torch.testing.assert_close(ball.midpoints(weights, y), flat.midpoints(weights, y), **close)
    torch.testing.assert_close(
        ball.relative(weights, x, y, ball.distances(x, y)), flat.relative(weights, x, y, flat.distances(x, y)), **close
    )


@pytest.mark.parametrize("depth", [1e-12, 1e-3, 1.0, 5.0, 9.0, 30.0])
def test_all_is_finite_at_every_depth_in_float32(depth: float) -> None:
    """From points that coincide to points on the rim: finite distances, midpoints, relative vectors and gradients."""
    ball = ball_of(1.0, torch.float32)
    x, y = (points(ball, 1, 5, 3, depth=depth, seed=seed).requires_grad_() for seed in (0, 1))
    d = ball.distances(x, y)
    weights = (-d).softmax(-1)
    outs = [d, ball.midpoints(weights, y), ball.relative(weights, x, y, d), ball.leave(ball.add(x, y))]
    grads = torch.autograd.grad(sum(out.sum() for out in outs), (x, y, ball.c))

    assert all(torch.isfinite(found).all() for found in (*outs, *grads))


def test_squared_distances_of_near_points() -> None:
    """A gap of 1e-4 between float32 vectors of norm 100 is measured to rounding."""
    x = torch.full((1, 1, 16), 25.0)
    y = x + torch.tensor(2.0**-14)

    assert squared_distances(x, y).item() == pytest.approx(16 * 2.0**-28, rel=1e-4)
