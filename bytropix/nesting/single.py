"""The ball for one point at a time, in compiled kernels: what `bytropix.geometry` computes, without gradients.

    tangent vector -> enter -> point -> add, attend, distances, relative -> leave -> tangent vector

Points are float32, what is summed over features float64. Shapes: D dimension, K points to compare with.
"""

import math

import numpy as np

from bytropix.geometry.closed_form import ORIGIN, SOFTEN
from bytropix.kernels import LAYER_NORM_EPS, Matrix, Vector, compiled

LEAST_RIM = 4 * float(np.finfo(np.float32).eps)


@compiled
def enter(v: Vector, c: float, s: float, limit: float) -> Vector:
    """Return `exp0` of a tangent vector (D,)."""
    depth = s * math.sqrt(c * _dot(v, v))
    factor = s
    if depth >= ORIGIN:
        factor = s * math.tanh(limit * math.tanh(depth / limit)) / depth
    return _scaled(v, factor)


@compiled
def leave(x: Vector, c: float, s: float) -> Vector:
    """Return `log0` of a point (D,)."""
    depth = min(math.sqrt(c * _dot(x, x)), 1 - LEAST_RIM / 8)
    return _scaled(x, 1 / s if depth < ORIGIN else math.atanh(depth) / (depth * s))


@compiled
def add(x: Vector, y: Vector, c: float) -> Vector:
    """Return the Möbius sum (D,) of two points."""
    xy, xx, yy = _dot(x, y), _dot(x, x), _dot(y, y)
    bottom = 1 + 2 * c * xy + c * c * xx * yy
    of_x, of_y = np.float32((1 + 2 * c * xy + c * yy) / bottom), np.float32((1 - c * xx) / bottom)
    result = np.empty_like(x)
    for i in range(x.size):
        result[i] = of_x * x[i] + of_y * y[i]
    return result


@compiled
def distances(x: Vector, points: Matrix, c: float) -> Vector:
    """Return the distances (K,) from a point (D,) to others (K, D), softened as `PairDistances` does."""
    result = np.empty(points.shape[0], np.float32)
    x_rim = max(1 - c * _dot(x, x), LEAST_RIM)
    for k in range(points.shape[0]):
        square = SOFTEN
        for i in range(x.size):
            square += (x[i] - points[k, i]) * (x[i] - points[k, i])
        y_rim = max(1 - c * _dot(points[k], points[k]), LEAST_RIM)
        result[k] = 2 / math.sqrt(c) * math.asinh(math.sqrt(c * square / (x_rim * y_rim)))
    return result


@compiled
def attend(x: Vector, keys: Matrix, c: float, sigma: float) -> Vector:
    """Return the midpoint (D,) of points (K, D), weighed by the softmax of -distance / sigma."""
    weights = distances(x, keys, c)
    least = np.float32(np.inf)
    for k in range(weights.size):
        least = min(least, weights[k])
    whole = 0.0
    for k in range(weights.size):
        weights[k] = np.exp((least - weights[k]) / sigma)
        whole += weights[k]
    sums, rest = np.zeros(x.size, np.float32), 0.0
    for k in range(weights.size):
        factor = 2 / max(1 - c * _dot(keys[k], keys[k]), LEAST_RIM)
        rest += weights[k] / whole * (factor - 1)
        share = np.float32(weights[k] / whole * factor)
        for i in range(x.size):
            sums[i] += share * keys[k, i]
    root = math.sqrt(max(rest * rest - c * _dot(sums, sums), 0.5))
    return _scaled(sums, 1 / (rest + root))


@compiled
def relative(weights: Vector, x: Vector, points: Matrix, found: Vector, c: float, s: float) -> Vector:
    """Return the weighted sum (D,) of the tangent vectors that lead from x to each point.

    Args:
        weights: (K,).
        x: (D,).
        points: (K, D).
        found: (K,), the distances from x.
        c: Curvature is -c.
        s: Scale of tangent vectors.
    """
    sums, away = np.zeros(x.size, np.float32), 0.0
    for k in range(points.shape[0]):
        angle = math.sqrt(c) * found[k]
        inverse = 1 / max(1 - c * _dot(points[k], points[k]), LEAST_RIM)
        share = weights[k] * angle / math.sinh(angle)
        away += share * (inverse - 1) + weights[k] * angle / 2 / math.tanh(angle / 2)
        for i in range(x.size):
            sums[i] += np.float32(share * inverse) * points[k, i]
    for i in range(x.size):
        sums[i] = (sums[i] - away * x[i]) / s
    return sums


@compiled
def gelu(x: Vector) -> Vector:
    """Return x Phi(x) (D,)."""
    result = np.empty_like(x)
    for i in range(x.size):
        result[i] = x[i] * np.float32(0.5 * (1 + math.erf(x[i] * math.sqrt(0.5))))
    return result


@compiled
def layer_norm(x: Vector, gain: Vector, bias: Vector) -> Vector:
    """Return x (D,) with mean zero and variance one, times the gain, plus the bias."""
    mean, square = 0.0, 0.0
    for i in range(x.size):
        mean += x[i] / x.size
    for i in range(x.size):
        square += (x[i] - mean) * (x[i] - mean)
    factor = 1 / math.sqrt(square / x.size + LAYER_NORM_EPS)
    result = np.empty_like(x)
    for i in range(x.size):
        result[i] = (x[i] - mean) * factor * gain[i] + bias[i]
    return result


@compiled
def _dot(x: Vector, y: Vector) -> float:
    """Return x . y."""
    total = 0.0
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@compiled
def _scaled(x: Vector, factor: float) -> Vector:
    """Return factor times x."""
    result = np.empty_like(x)
    for i in range(x.size):
        result[i] = np.float32(factor) * x[i]
    return result
