"""The Poincaré ball of curvature -c, and flat space with the same methods.

    tangent vector at the origin -> enter -> point -> distance, add, midpoint, relative -> leave -> tangent vector

The ball has radius 1/sqrt(c) and metric 4 |dx|^2 / (1 - c |x|^2)^2; the scale s stretches tangent vectors on the way in
and shrinks them on the way out, so that points of one level sit deeper or shallower than those of the next. Formulas:
Ungar 2008 (gyrovectors), Ganea et al. 2018. Everything is computed in the dtype it is given, float32 or better.
"""

from dataclasses import dataclass
from math import inf
from typing import Protocol

import torch
from torch import Tensor

from bytropix.geometry.closed_form import SOFTEN, Exp0, Log0, MobiusAdd, PairDistances


def exp0(v: Tensor, c: Tensor, s: Tensor | None = None, limit: float = inf) -> Tensor:
    """Return tanh(a) / a * s v with a = s sqrt(c) |v|: tangent vectors (..., n) at the origin as points of the ball.

    Args:
        v: Tangent vectors of norms up to 1e18; zero maps to zero with gradient s.
        c: Curvature is -c.
        s: Scale of tangent vectors, 1 if left out.
        limit: The depth a is bent to limit * tanh(a / limit): no clip, so a gradient survives at any length.
    """
    out: Tensor = Exp0.apply(v, c, torch.ones_like(c) if s is None else s, limit)  # type: ignore[no-untyped-call]
    return out


def log0(y: Tensor, c: Tensor, s: Tensor | None = None) -> Tensor:
    """Return the inverse of `exp0` without limit: points (..., n) as tangent vectors at the origin."""
    out: Tensor = Log0.apply(y, c, torch.ones_like(c) if s is None else s)  # type: ignore[no-untyped-call]
    return out


def mobius_add(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """Return the Möbius sum of points (..., n): y moved by the translation that takes the origin to x."""
    out: Tensor = MobiusAdd.apply(x, y, c)  # type: ignore[no-untyped-call]
    return out


def smooth_limit(v: Tensor, most: float) -> Tensor:
    """Return v with its norm r bent to most * tanh(r / most)."""
    return exp0(v, v.new_full((), most**-2))


def squared_distances(x_BPD: Tensor, y_BKD: Tensor) -> Tensor:
    """Return |x - y|^2 (B, P, K) for all pairs, by way of float64, since squares less products cancel."""
    x, y = x_BPD.double(), y_BKD.double()
    square = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT
    return square.clamp_min(0).to(x_BPD.dtype)


class Space(Protocol):
    """What a level needs of the space its points live in."""

    def enter(self, v: Tensor, limit: float = inf) -> Tensor:
        """Return tangent vectors at the origin as points, no deeper than `limit`."""
        ...

    def leave(self, x: Tensor) -> Tensor:
        """Return points as tangent vectors at the origin."""
        ...

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y translated by x."""
        ...

    def distances(self, x_BPD: Tensor, y_BKD: Tensor, factor: Tensor | float = 1.0) -> Tensor:
        """Return factor times the geodesic distance (B, P, K) of all pairs."""
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

    def enter(self, v: Tensor, limit: float = inf) -> Tensor:
        """Return exp0(v), of depth s sqrt(c) |v| below `limit`."""
        return exp0(v, self.c, self.s, limit)

    def leave(self, x: Tensor) -> Tensor:
        """Return log0(x)."""
        return log0(x, self.c, self.s)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the Möbius sum."""
        return mobius_add(x, y, self.c)

    def distances(self, x_BPD: Tensor, y_BKD: Tensor, factor: Tensor | float = 1.0) -> Tensor:
        """Return 2/sqrt(c) asinh(sqrt(c |x - y|^2 / ((1 - c|x|^2)(1 - c|y|^2)))): exact for near and for far points.

        Points that meet count as 1e-3 apart in the coordinates of the ball.
        """
        if not isinstance(factor, Tensor):
            factor = torch.full_like(self.c, factor)  # filled where it is used; a copy from the host would wait
        out: Tensor = PairDistances.apply(x_BPD, y_BKD, self.c, factor)  # type: ignore[no-untyped-call]
        return out

    def midpoints(self, weights_BPK: Tensor, y_BKD: Tensor) -> Tensor:
        """Return the gyromidpoints (Ungar 2008), which are the normalized means on the hyperboloid.

        With conformal factors l, t = sum w (l - 1) and u = sum w l y: u / (t + sqrt(t^2 - c |u|^2)), where the root is
        at least 1.
        """
        factor_BK1 = 2 * self._inverse_rim(y_BKD)
        sums = weights_BPK @ torch.cat([factor_BK1 * y_BKD, factor_BK1 - 1], dim=-1)
        u, t = sums[..., :-1], sums[..., -1:]
        root = (t * t - self.c * u.square().sum(-1, keepdim=True)).clamp_min(0.5).sqrt()
        return u / (t + root)

    def relative(self, weights_BPK: Tensor, x_BPD: Tensor, y_BKD: Tensor, distances_BPK: Tensor) -> Tensor:
        """Return the weighted sum of log0(-x (+) y).

        With r = 1 - c|y|^2 and the angle e = sqrt(c) d, log0(-x (+) y) = e / sinh(e) (y / r - (1/r - 1) x) - e / 2
        coth(e / 2) x, since the denominator of the Möbius sum is the product of both rims and cosh(e / 2)^2. So the sum
        over K is one matrix product and no B, P, K, D tensor is built.
        """
        angle_BPK = self.c.sqrt() * distances_BPK
        inverse_BK1 = self._inverse_rim(y_BKD)
        share = weights_BPK * angle_BPK / angle_BPK.sinh()
        sums = share @ torch.cat([inverse_BK1 * y_BKD, inverse_BK1 - 1], dim=-1)
        away = sums[..., -1:] + (weights_BPK * angle_BPK / 2 / (angle_BPK / 2).tanh()).sum(-1, keepdim=True)
        return (sums[..., :-1] - away * x_BPD) / self.s

    def _inverse_rim(self, y: Tensor) -> Tensor:
        """Return 1 / (1 - c |y|^2) (..., 1), half the conformal factor."""
        rim = 1 - self.c * y.square().sum(-1, keepdim=True)
        return 1 / rim.clamp_min(4 * torch.finfo(y.dtype).eps)


@dataclass(frozen=True, slots=True)
class FlatSpace:
    """Euclidean space with the same methods: the control that shows what the curvature is worth.

    The number c does nothing here.
    """

    c: Tensor
    s: Tensor

    def enter(self, v: Tensor, limit: float = inf) -> Tensor:
        """Return s v, of norm below `limit`."""
        return self.s * v if limit == inf else smooth_limit(self.s * v, limit)

    def leave(self, x: Tensor) -> Tensor:
        """Return x / s."""
        return x / self.s

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + y."""
        return x + y

    def distances(self, x_BPD: Tensor, y_BKD: Tensor, factor: Tensor | float = 1.0) -> Tensor:
        """Return 2 |x - y|, the limit of the ball's distance for c -> 0."""
        return 2 * factor * (squared_distances(x_BPD, y_BKD) + SOFTEN).sqrt()

    def midpoints(self, weights_BPK: Tensor, y_BKD: Tensor) -> Tensor:
        """Return the weighted means."""
        return weights_BPK @ y_BKD

    def relative(self, weights_BPK: Tensor, x_BPD: Tensor, y_BKD: Tensor, distances_BPK: Tensor) -> Tensor:
        """Return the weighted sum of (y - x) / s."""
        return (weights_BPK @ y_BKD - weights_BPK.sum(-1, keepdim=True) * x_BPD) / self.s


SPACES: dict[str, type[PoincareBall] | type[FlatSpace]] = {"hyperbolic": PoincareBall, "euclidean": FlatSpace}
