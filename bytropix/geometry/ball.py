"""The Poincaré ball of curvature -c, and flat space with the same methods.

    tangent vector at the origin -> enter -> point -> distance, add, midpoint, relative -> leave -> tangent vector

The ball has radius 1/sqrt(c) and metric 4 |dx|^2 / (1 - c |x|^2)^2; the scale s stretches tangent vectors on the way in
and shrinks them on the way out, so that points of one level sit deeper or shallower than those of the next. Formulas:
Ungar 2008 (gyrovectors), Ganea et al. 2018. Everything is computed in the dtype it is given, float32 or better.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bytropix.geometry.closed_form import Exp0, Log0

# Squared distance is softened by this, so that the slope of its root stays finite where two points meet.
SOFTEN = 1e-6


def exp0(v: Tensor, c: Tensor, s: Tensor | None = None) -> Tensor:
    """Return tanh(s sqrt(c) |v|) v / (sqrt(c) |v|): tangent vectors (..., n) at the origin as points of the ball."""
    out: Tensor = Exp0.apply(v if s is None else s * v, c)  # type: ignore[no-untyped-call]
    return out


def log0(y: Tensor, c: Tensor, s: Tensor | None = None) -> Tensor:
    """Return the inverse of `exp0`: points (..., n) as tangent vectors at the origin."""
    v: Tensor = Log0.apply(y, c)  # type: ignore[no-untyped-call]
    return v if s is None else v / s


def mobius_add(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """Return the Möbius sum of points (..., n): y moved by the translation that takes the origin to x."""
    xy = (x * y).sum(-1, keepdim=True)
    xx, yy = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    top = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    return top / (1 + 2 * c * xy + c * c * xx * yy)


def smooth_limit(v: Tensor, most: Tensor | float) -> Tensor:
    """Return v with its norm r bent to most * tanh(r / most): no clip, so a gradient survives at any length."""
    small = torch.as_tensor(most, dtype=v.dtype, device=v.device) ** -2
    return exp0(v, small)


def squared_distances(x_BPD: Tensor, y_BKD: Tensor) -> Tensor:
    """Return |x - y|^2 (B, P, K) for all pairs.

    The sum of squares minus twice the product cancels for near points, so it is taken in float64; P x K x D products
    are cheap beside the layers around them.
    """
    x, y = x_BPD.double(), y_BKD.double()
    cross = x @ y.transpose(-1, -2)
    square = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * cross
    return square.clamp_min(0).to(x_BPD.dtype)


class Space(Protocol):
    """What a level needs of the space its points live in."""

    def enter(self, v: Tensor) -> Tensor:
        """Return tangent vectors at the origin as points."""
        ...

    def leave(self, x: Tensor) -> Tensor:
        """Return points as tangent vectors at the origin."""
        ...

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y translated by x."""
        ...

    def distances(self, x_BPD: Tensor, y_BKD: Tensor) -> Tensor:
        """Return the geodesic distance (B, P, K) of all pairs."""
        ...

    def midpoints(self, weights_BPK: Tensor, y_BKD: Tensor) -> Tensor:
        """Return the weighted means (B, P, D) of points; weights sum to one over K."""
        ...

    def relative(self, weights_BPK: Tensor, x_BPD: Tensor, y_BKD: Tensor, distances_BPK: Tensor) -> Tensor:
        """Return the weighted sum (B, P, D) of the tangent vectors that lead from x to each y."""
        ...


@dataclass(frozen=True, slots=True)
class PoincareBall:
    """The ball of curvature -c with tangent scale s; both hold one positive number, with gradient."""

    c: Tensor
    s: Tensor

    def enter(self, v: Tensor) -> Tensor:
        """Return exp0(v)."""
        return exp0(v, self.c, self.s)

    def leave(self, x: Tensor) -> Tensor:
        """Return log0(x)."""
        return log0(x, self.c, self.s)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the Möbius sum."""
        return mobius_add(x, y, self.c)

    def distances(self, x_BPD: Tensor, y_BKD: Tensor) -> Tensor:
        """Return 2/sqrt(c) asinh(sqrt(c |x - y|^2 / ((1 - c|x|^2)(1 - c|y|^2)))): exact for near and for far points."""
        rim = self._rim(x_BPD)[..., :, None] * self._rim(y_BKD)[..., None, :]
        ratio = self.c * (squared_distances(x_BPD, y_BKD) + SOFTEN) / rim
        return 2 / self.c.sqrt() * ratio.sqrt().asinh()

    def midpoints(self, weights_BPK: Tensor, y_BKD: Tensor) -> Tensor:
        """Return the gyromidpoints (Ungar 2008): half of sum w l y / sum w (l - 1), l the conformal factor."""
        factor_BK1 = 2 / self._rim(y_BKD)[..., None]
        top = weights_BPK @ (factor_BK1 * y_BKD)
        mean = top / (weights_BPK @ (factor_BK1 - 1))
        square = self.c * mean.square().sum(-1, keepdim=True)
        return mean / (1 + (1 - square).clamp_min(0).sqrt())

    def relative(self, weights_BPK: Tensor, x_BPD: Tensor, y_BKD: Tensor, distances_BPK: Tensor) -> Tensor:
        """Return the weighted sum of log0(-x (+) y).

        -x (+) y is a combination of x and y by two numbers a pair, and its length is tanh(sqrt(c) d / 2) / sqrt(c), so
        the sum over K is one matrix product and no B, P, K, D tensor is built.
        """
        c = self.c
        xy = x_BPD @ y_BKD.transpose(-1, -2)
        xx, yy = x_BPD.square().sum(-1)[..., :, None], y_BKD.square().sum(-1)[..., None, :]
        half = c.sqrt() * distances_BPK / 2
        stretch = half / half.tanh() / (1 - 2 * c * xy + c * c * xx * yy)
        share = weights_BPK * stretch / self.s
        away = (share * (1 - 2 * c * xy + c * yy)).sum(-1, keepdim=True)
        return (share * (1 - c * xx)) @ y_BKD - away * x_BPD

    def _rim(self, x: Tensor) -> Tensor:
        """Return 1 - c |x|^2 (...), which falls to zero at the rim."""
        return (1 - self.c * x.square().sum(-1)).clamp_min(1e-6)


@dataclass(frozen=True, slots=True)
class FlatSpace:
    """Euclidean space with the same methods: the control that shows what the curvature is worth.

    The number c does nothing here.
    """

    c: Tensor
    s: Tensor

    def enter(self, v: Tensor) -> Tensor:
        """Return s v."""
        return self.s * v

    def leave(self, x: Tensor) -> Tensor:
        """Return x / s."""
        return x / self.s

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + y."""
        return x + y

    def distances(self, x_BPD: Tensor, y_BKD: Tensor) -> Tensor:
        """Return 2 |x - y|, the limit of the ball's distance for c -> 0."""
        return 2 * (squared_distances(x_BPD, y_BKD) + SOFTEN).sqrt()

    def midpoints(self, weights_BPK: Tensor, y_BKD: Tensor) -> Tensor:
        """Return the weighted means."""
        return weights_BPK @ y_BKD

    def relative(self, weights_BPK: Tensor, x_BPD: Tensor, y_BKD: Tensor, distances_BPK: Tensor) -> Tensor:
        """Return the weighted sum of (y - x) / s."""
        return (weights_BPK @ y_BKD - weights_BPK.sum(-1, keepdim=True) * x_BPD) / self.s


SPACES: dict[str, type[PoincareBall] | type[FlatSpace]] = {"hyperbolic": PoincareBall, "euclidean": FlatSpace}
