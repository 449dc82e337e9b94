"""The maps of the Poincaré ball with hand-written gradients.

    Exp0          y = s f v,  f = tanh(u) / a,  u = R tanh(a / R),  a = s sqrt(c) |v|
    Log0          v = f y / s,  f = artanh(a) / a,  a = sqrt(c) |y|
    MobiusAdd     x (+) y = (A x + B y) / D
    PairDistances k asinh(sqrt(q)),  q = c |x - y|^2 / ((1 - c |x|^2)(1 - c |y|^2))

A radial map has the derivative f g + (v.g) f'(r) v / r, one pass over the vectors forward and one backward, where
autograd through norm, division and tanh takes five. Where a is small, closed forms that cancel give way to series.
Shapes: B batch, P points, K points to compare with, D dimension; c, s and k hold one number each.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SERIES = 1e-2  # below it the series of f', exact to a^2, beats the difference of nearly equal numbers
ORIGIN = 1e-4  # below it the first two terms of f are exact to rounding, also in float64

# Squared distance is softened by this, so that the slope of its root stays finite where two points meet.
SOFTEN = 1e-6


class Exp0(torch.autograd.Function):
    """Tangent vectors at the origin to points of the ball, the depth a bent to stay below R (which may be inf)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, c: Tensor, s: Tensor, limit: float) -> Tensor:
        """Return points."""
        a = s * c.sqrt() * v.norm(dim=-1, keepdim=True)
        bend = (a / limit).tanh()
        t = (a if math.isinf(limit) else limit * bend).tanh()
        f = torch.where(a < ORIGIN, 1 - (1 + limit**-2) / 3 * a * a, t / a)
        ctx.save_for_backward(v, c, s, a, f, (1 - t * t) * (1 - bend * bend))
        ctx.limit = limit
        return s * f * v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of v, c and s."""
        v, c, s, a, f, slope = ctx.saved_tensors
        low = ctx.limit**-2
        series = -2 / 3 * (1 + low) + 4 * (2 / 15 + low / 3 + 2 / 15 * low * low) * a * a
        bent = torch.where(a < SERIES, series, (slope - f) / (a * a))
        along = (v * g).sum(-1, keepdim=True)
        grad_v = torch.addcmul(s * f * g, s**3 * c * bent * along, v)
        grad_c = (along * bent * a * a).sum() * s / (2 * c)
        return grad_v, grad_c.reshape(c.shape), (along * slope).sum().reshape(s.shape), None


class Log0(torch.autograd.Function):
    """Points of the ball to tangent vectors at the origin; points on or past the rim count as the last one inside."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, c: Tensor, s: Tensor) -> Tensor:
        """Return tangent vectors."""
        a = (c.sqrt() * y.norm(dim=-1, keepdim=True)).clamp_max(1 - torch.finfo(y.dtype).eps / 2)
        f = torch.where(a < ORIGIN, 1 + a * a / 3, a.atanh() / a)
        ctx.save_for_backward(y, c, s, a, f)
        return f / s * y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of y, c and s."""
        y, c, s, a, f = ctx.saved_tensors
        bent = torch.where(a < SERIES, 2 / 3 + 4 / 5 * a * a, (1 / ((1 - a) * (1 + a)) - f) / (a * a))
        along = (y * g).sum(-1, keepdim=True) / s
        grad_y = torch.addcmul(f / s * g, c * bent * along, y)
        grad_c = (along * bent * a * a).sum() / (2 * c)
        return grad_y, grad_c.reshape(c.shape), (-(along * f).sum() / s).reshape(s.shape)


class MobiusAdd(torch.autograd.Function):
    """The sum of points (..., D) that broadcast against each other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """Return y moved by the translation that takes the origin to x."""
        xy = (x * y).sum(-1, keepdim=True)
        xx, yy = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
        top_x, top_y = 1 + 2 * c * xy + c * yy, 1 - c * xx
        bottom = 1 + 2 * c * xy + c * c * xx * yy
        ctx.save_for_backward(x, y, c, xy, xx, yy, top_x, top_y, bottom)
        return torch.addcmul(top_x / bottom * x, top_y / bottom, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of x, y and c."""
        x, y, c, xy, xx, yy, top_x, top_y, bottom = ctx.saved_tensors
        on_x = (g * x).sum(-1, keepdim=True) / bottom
        on_y = (g * y).sum(-1, keepdim=True) / bottom
        on_bottom = -(on_x * top_x + on_y * top_y) / bottom
        on_xy = 2 * c * (on_x + on_bottom)
        on_xx = c * (c * yy * on_bottom - on_y)
        on_yy = c * (on_x + c * xx * on_bottom)
        on_c = on_x * (2 * xy + yy) - on_y * xx + 2 * on_bottom * (xy + c * xx * yy)
        grad_x = top_x / bottom * g + on_xy * y + 2 * on_xx * x
        grad_y = top_y / bottom * g + on_xy * x + 2 * on_yy * y
        return grad_x.sum_to_size(x.shape), grad_y.sum_to_size(y.shape), on_c.sum().reshape(c.shape)


class PairDistances(torch.autograd.Function):
    """factor times the geodesic distance (B, P, K) of all pairs of x (B, P, D) and y (B, K, D).

    |x|^2 - 2 x.y + |y|^2 cancels for near points, so q comes out of one matrix product in float64, whose two extra
    columns carry the squares; all passes over B, P, K that follow are in the dtype of x. The gradient needs two matrix
    products and no B, P, K, D tensor.
    """

    @staticmethod
    def forward(ctx: Any, x_BPD: Tensor, y_BKD: Tensor, c: Tensor, factor: Tensor) -> Tensor:
        """Return the distances."""
        x, y, c64 = x_BPD.double(), y_BKD.double(), c.double()
        xx, yy = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
        least = 4 * torch.finfo(x_BPD.dtype).eps
        x_rim, y_rim = (1 - c64 * xx).clamp_min(least), (1 - c64 * yy).clamp_min(least)
        left = torch.cat([x, xx + SOFTEN, torch.ones_like(xx)], dim=-1) * (c64 / x_rim)
        right = torch.cat([-2 * y, torch.ones_like(yy), yy], dim=-1) / y_rim
        q = (left @ right.mT).to(x_BPD.dtype).clamp_min_(torch.finfo(x_BPD.dtype).tiny)
        root = q.sqrt()
        # asinh in terms of log1p, which is exact for small q too and which, unlike asinh, runs vectorized.
        arc = root.add_(q / (1 + q).sqrt_().add_(1)).log1p_()
        ctx.save_for_backward(x_BPD, y_BKD, c, factor, x_rim.to(q.dtype), y_rim.to(q.dtype), q, arc)
        return arc * (2 * factor / c.sqrt())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of x, y, c and factor."""
        x, y, c, factor, x_rim, y_rim, q, arc = ctx.saved_tensors
        per_arc = 2 * factor / c.sqrt()
        on_q = (q * q).add_(q).rsqrt_().mul_(g)  # times per_arc / 2
        both = on_q * q
        x_share, y_share = both.sum(2, keepdim=True), both.sum(1)[..., None]
        toward_y = on_q @ torch.cat([y, torch.ones_like(y_rim)], dim=-1).div_(y_rim)
        toward_x = on_q.mT @ torch.cat([x, torch.ones_like(x_rim)], dim=-1).div_(x_rim)
        grad_x = torch.addcmul(-toward_y[..., :-1], toward_y[..., -1:] + x_share, x).mul_(per_arc * c / x_rim)
        grad_y = torch.addcmul(-toward_x[..., :-1], toward_x[..., -1:] + y_share, y).mul_(per_arc * c / y_rim)
        # c enters q directly and through both rims: |x|^2 / rim = (1 / rim - 1) / c.
        through_q = (x_share / x_rim).sum() + (y_share * (1 / y_rim - 1)).sum()
        through_arc = torch.dot(g.reshape(-1), arc.reshape(-1))
        grad_c = per_arc / (2 * c) * (through_q - through_arc)
        return grad_x, grad_y, grad_c.reshape(c.shape), (2 / c.sqrt() * through_arc).reshape(factor.shape)
