"""exp0 and log0 of the Poincaré ball with hand-written gradients.

    y = f v,  f = tanh(a) / a,  a = sqrt(c) |v|          v = f y,  f = artanh(a) / a,  a = sqrt(c) |y|
    dv = f g + h (v.g) v,  dc = (v.g) h |v|^2 / (2 c),  h = f'(a) a / |v|^2

One pass over the vector forward and one backward, where autograd through norm, division and tanh takes five. Small a
use the series of h, whose closed form cancels there.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALL = 1e-2  # below it the series of h, exact to a^4, beats the difference of nearly equal numbers


class Exp0(torch.autograd.Function):
    """Tangent vectors at the origin to points of the ball."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, c: Tensor) -> Tensor:
        """Return points; `c` holds one number."""
        a = c.sqrt() * v.norm(dim=-1, keepdim=True)
        t = a.tanh()
        f = torch.where(a < SMALL, 1 - a * a / 3, t / a)
        ctx.save_for_backward(v, c, a, t, f)
        return f * v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of v and c."""
        v, c, a, t, f = ctx.saved_tensors
        square = a * a
        bent = torch.where(a < SMALL, -2 / 3 + 8 / 15 * square, ((1 - t * t) - f) / square)
        return _spread_gradient(g, v, c, f, bent, square)


class Log0(torch.autograd.Function):
    """Points of the ball to tangent vectors at the origin."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, c: Tensor) -> Tensor:
        """Return tangent vectors; points on or past the rim count as the last number inside."""
        a = (c.sqrt() * y.norm(dim=-1, keepdim=True)).clamp_max(1 - torch.finfo(y.dtype).eps)
        f = torch.where(a < SMALL, 1 + a * a / 3, a.atanh() / a)
        ctx.save_for_backward(y, c, a, f)
        return f * y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of y and c."""
        y, c, a, f = ctx.saved_tensors
        square = a * a
        bent = torch.where(a < SMALL, 2 / 3 + 4 / 5 * square, (1 / ((1 - a) * (1 + a)) - f) / square)
        return _spread_gradient(g, y, c, f, bent, square)


def _spread_gradient(g: Tensor, v: Tensor, c: Tensor, f: Tensor, bent: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Return f g + c bent (v.g) v, and the sum of (v.g) bent a^2 / (2 c)."""
    dot = (v * g).sum(-1, keepdim=True)
    along = dot * bent
    return torch.addcmul(f * g, c * along, v), ((along * square).sum() / (2 * c)).reshape(c.shape)
