"""One position through a layer in one compiled kernel.

    x (D) + weights + keys and values of the positions before -> x (D) behind the layer

A byte that is read or written by itself costs torch some forty kernels a layer, each over a few hundred numbers, and
most of the time goes into calling them. Here the same sums run in one call on the CPU, over the same weights and the
same cache. `layers.py` decides when; the tests of sessions hold both roads together.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]
Cube = NDArray[np.float32]

LAYER_NORM_EPS = 1e-5  # torch's
LEAST_LENGTH = 1e-6  # as in RMSNorm

# Sums may be taken in any order; infinities and NaNs keep their meaning.
compiled: Any = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


@compiled
def block(
    x: Vector,
    attention_gain: Vector,
    qkv: Matrix,
    head_gain: Vector,
    attention_out: Matrix,
    feed_gain: Vector,
    gate_up: Matrix,
    down: Matrix,
    turn: Matrix,
    keys: Cube,
    values: Cube,
    position: int,
) -> Vector:
    """Return x behind a `Block`; writes its key and value into the cache.

    Args:
        x: (D,).
        attention_gain: (D,), of the norm before the attention; `feed_gain` likewise.
        qkv: (3 D, D).
        head_gain: (E,), of the norm of queries and keys.
        attention_out: (D, D).
        feed_gain: (D,).
        gate_up: (2 F, D).
        down: (D, F).
        turn: (E / 2, 2), cosine and sine of this position.
        keys: (H, S, E), filled up to `position`; `values` likewise.
        values: (H, S, E).
        position: Index of x, below S.
    """
    heads, _, width = keys.shape
    projected = _product(qkv, rms_norm(x, attention_gain)).reshape(3 * heads, width)
    for head in range(heads):
        _normalize_and_turn(projected[head], head_gain, turn)
        _normalize_and_turn(projected[heads + head], head_gain, turn)
        keys[head, position] = projected[heads + head]
        values[head, position] = projected[2 * heads + head]
    mixed = _attend(projected[:heads], keys, values, position + 1)
    x = x + _product(attention_out, mixed)
    both = _product(gate_up, rms_norm(x, feed_gain))
    hidden = down.shape[1]
    gated = np.empty(hidden, np.float32)
    for i in range(hidden):
        gated[i] = both[i] / (np.float32(1) + np.exp(-both[i])) * both[hidden + i]
    return x + _product(down, gated)


@compiled
def read(x: Vector, query: Matrix, head_gain: Vector, out: Matrix, turn: Matrix, keys: Cube, values: Cube) -> Vector:
    """Return what x reads by a `CrossAttention` from slots that are all visible.

    Args:
        x: (D,), normalized.
        query: (D, D).
        head_gain: (E,), of the norm of queries.
        out: (D, D).
        turn: (E / 2, 2), cosine and sine of the freshest slot's number.
        keys: (H, S, E); `values` likewise.
        values: (H, S, E).
    """
    heads, slots, width = keys.shape
    projected = _product(query, x).reshape(heads, width)
    for head in range(heads):
        _normalize_and_turn(projected[head], head_gain, turn)
    return _product(out, _attend(projected, keys, values, slots))


@compiled
def _product(weight: Matrix, x: Vector) -> Vector:
    """Return weight @ x."""
    result = np.empty(weight.shape[0], np.float32)
    for i in range(weight.shape[0]):
        total = np.float32(0)
        for j in range(weight.shape[1]):
            total += weight[i, j] * x[j]
        result[i] = total
    return result


@compiled
def rms_norm(x: Vector, gain: Vector) -> Vector:
    """Return x / rms(x) * gain."""
    square = np.float32(0)
    for i in range(x.size):
        square += x[i] * x[i]
    factor = np.float32(np.sqrt(x.size) / max(np.sqrt(square), LEAST_LENGTH))
    result = np.empty_like(x)
    for i in range(x.size):
        result[i] = x[i] * factor * gain[i]
    return result


@compiled
def _normalize_and_turn(x: Vector, gain: Vector, turn: Matrix) -> None:
    """Layer-normalize x (E,) in place, then turn its pairs by their angles."""
    mean = np.float32(0)
    for i in range(x.size):
        mean += x[i]
    mean /= np.float32(x.size)
    variance = np.float32(0)
    for i in range(x.size):
        variance += (x[i] - mean) * (x[i] - mean)
    factor = np.float32(1 / np.sqrt(variance / x.size + LAYER_NORM_EPS))
    for i in range(x.size // 2):
        first = (x[2 * i] - mean) * factor * gain[2 * i]
        second = (x[2 * i + 1] - mean) * factor * gain[2 * i + 1]
        x[2 * i] = first * turn[i, 0] - second * turn[i, 1]
        x[2 * i + 1] = first * turn[i, 1] + second * turn[i, 0]


@compiled
def _attend(queries: Matrix, keys: Cube, values: Cube, count: int) -> Vector:
    """Return softmax(q k / sqrt(E)) v over the first `count` positions, heads side by side (D,)."""
    heads, width = queries.shape
    scale = np.float32(1 / np.sqrt(width))
    mixed = np.zeros(heads * width, np.float32)
    weights = np.empty(count, np.float32)
    for head in range(heads):
        most = np.float32(-np.inf)
        for s in range(count):
            score = np.float32(0)
            for e in range(width):
                score += queries[head, e] * keys[head, s, e]
            weights[s] = score * scale
            most = max(most, weights[s])
        total = np.float32(0)
        for s in range(count):
            weights[s] = np.exp(weights[s] - most)
            total += weights[s]
        for s in range(count):
            share = weights[s] / total
            for e in range(width):
                mixed[head * width + e] += share * values[head, s, e]
    return mixed


@compiled
def ngram_rows(
    nearest: NDArray[np.int64],
    masks: NDArray[np.int64],
    salts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    rows: int,
) -> NDArray[np.int64]:
    """Return the table row of each n-gram that ends at a byte, as `NgramEmbedding.rows_of` does.

    Args:
        nearest: (8,), the byte and those before it, oldest first.
        masks: (N,), the bits of each n-gram's bytes in the 64-bit word; `salts` and `offsets` likewise.
        salts: (N,).
        offsets: (N,), where the rows of each n-gram begin.
        rows: Rows of a table.
    """
    word = np.uint64(0)
    for byte in nearest:
        word = (word << np.uint64(8)) | np.uint64(byte)
    found = np.empty_like(masks)
    for i in range(masks.size):
        mixed = (word & np.uint64(masks[i])) ^ np.uint64(salts[i])
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found[i] = np.int64((mixed >> np.uint64(31)) & np.uint64(0x7FFFFFFF)) % rows + offsets[i]
    return found
