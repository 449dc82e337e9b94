"""One position through a layer in one compiled kernel.

    byte -> embed -> block -> ... -> pool, slot (once a patch) -> read -> block -> ... -> two_stage or flat

A byte that is read or written by itself costs torch some forty kernels a layer, each over a few hundred numbers, and
most of the time goes into calling them. Here the same sums run in one call on the CPU, over the same weights and the
same caches. `steps.py` puts the kernels together.

Shapes: D width, H heads, E head width, S room of a cache, M width of a memory slot.
"""

import numpy as np
from numpy.typing import NDArray

from bytropix.kernels import LAYER_NORM_EPS, Cube, Matrix, Vector, affine, compiled, product

LEAST_LENGTH = 1e-6  # as in RMSNorm


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
    projected = product(qkv, rms_norm(x, attention_gain)).reshape(3 * heads, width)
    for head in range(heads):
        _normalize_and_turn(projected[head], head_gain, turn)
        _normalize_and_turn(projected[heads + head], head_gain, turn)
        _copy(projected[heads + head], keys[head, position])
        _copy(projected[2 * heads + head], values[head, position])
    mixed = _attend(projected[:heads], keys, values, position + 1)
    x = affine(mixed, attention_out, x)
    both = product(gate_up, rms_norm(x, feed_gain))
    hidden = down.shape[1]
    gated = np.empty(hidden, np.float32)
    for i in range(hidden):
        gated[i] = both[i] / (np.float32(1) + np.exp(-both[i])) * both[hidden + i]
    return affine(gated, down, x)


@compiled
def read(
    x: Vector,
    norm_gain: Vector,
    query: Matrix,
    head_gain: Vector,
    out: Matrix,
    turn: Matrix,
    keys: Cube,
    values: Cube,
    count: int,
) -> Vector:
    """Return x and what it reads by a `CrossAttention` from the first `count` slots.

    Args:
        x: (D,).
        norm_gain: (D,), of the norm before the query.
        query: (D, D).
        head_gain: (E,), of the norm of queries.
        out: (D, D).
        turn: (E / 2, 2), cosine and sine of the freshest slot's number.
        keys: (H, S, E); `values` likewise.
        values: (H, S, E).
        count: Slots, all of them visible.
    """
    heads, _, width = keys.shape
    projected = product(query, rms_norm(x, norm_gain)).reshape(heads, width)
    for head in range(heads):
        _normalize_and_turn(projected[head], head_gain, turn)
    return affine(_attend(projected, keys, values, count), out, x)


@compiled
def slot(
    memory: Vector, key_value: Matrix, head_gain: Vector, turn: Matrix, keys: Cube, values: Cube, position: int
) -> None:
    """Write the key and value of a memory slot for a `CrossAttention`.

    Args:
        memory: (M,).
        key_value: (2 D, M).
        head_gain: (E,), of the norm of keys.
        turn: (E / 2, 2), cosine and sine of the slot's number.
        keys: (H, S, E); `values` likewise.
        values: (H, S, E).
        position: The slot's number, below S.
    """
    heads, _, width = keys.shape
    projected = product(key_value, memory).reshape(2 * heads, width)
    for head in range(heads):
        _normalize_and_turn(projected[head], head_gain, turn)
        _copy(projected[head], keys[head, position])
        _copy(projected[heads + head], values[head, position])


@compiled
def pool(states: Matrix, query: Matrix, query_gain: Vector, key_value: Matrix, key_gain: Vector, out: Matrix) -> Vector:
    """Return the last of a patch's states and what it reads of all of them (D,) by a `PatchPool`.

    Args:
        states: (T, D), those of the patch's bytes.
        query: (D, D).
        query_gain: (E,), of the norm of queries; `key_gain` likewise.
        key_value: (2 D, D).
        key_gain: (E,).
        out: (D, D).
    """
    count, width = states.shape[0], query_gain.size
    heads = states.shape[1] // width
    keys = np.empty((heads, count, width), np.float32)
    values = np.empty((heads, count, width), np.float32)
    still = np.empty((width // 2, 2), np.float32)  # a turn by no angle
    for i in range(width // 2):
        still[i, 0], still[i, 1] = 1, 0
    for position in range(count):
        slot(states[position], key_value, key_gain, still, keys, values, position)
    queries = product(query, states[count - 1]).reshape(heads, width)
    for head in range(heads):
        _normalize_and_turn(queries[head], query_gain, still)
    return affine(_attend(queries, keys, values, count), out, states[count - 1])


@compiled
def two_stage(x: Vector, weight: Matrix, bias: Vector) -> Vector:
    """Return the log-probabilities (256,) of a `TwoStageHead`; weight is (16 + 256, D)."""
    logits = affine(x, weight, bias)
    _log_softmax(logits[:16])
    for nibble in range(16):
        low = logits[16 * (nibble + 1) : 16 * (nibble + 2)]
        _log_softmax(low)
        for i in range(16):
            low[i] += logits[nibble]
    return logits[16:]


@compiled
def flat(x: Vector, weight: Matrix, bias: Vector) -> Vector:
    """Return the log-probabilities (256,) of a `FlatHead`; weight is (256, D)."""
    logits = affine(x, weight, bias)
    _log_softmax(logits)
    return logits


@compiled
def _copy(source: Vector, target: Vector) -> None:
    """Write source into target; as an assignment of slices it would compile for seconds."""
    for i in range(source.size):
        target[i] = source[i]


@compiled
def _log_softmax(x: Vector) -> None:
    """Subtract the logarithm of the sum of exponentials, in place."""
    most = np.float32(-np.inf)
    for i in range(x.size):
        most = max(most, x[i])
    total = np.float32(0)
    for i in range(x.size):
        total += np.exp(x[i] - most)
    for i in range(x.size):
        x[i] -= most + np.log(total)


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
def embed(
    nearest: NDArray[np.uint8],
    place: int,
    bytes_table: Matrix,
    places_table: Matrix,
    ngram_table: Matrix,
    masks: NDArray[np.int64],
    salts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    rows: int,
) -> Vector:
    """Return the sum of byte, place and n-gram vectors (D,), as `LocalEncoder.embed` does.

    Args:
        nearest: (8,), the byte and those before it, oldest first.
        place: Of the byte in its patch; those past the table share the last row.
        bytes_table: (256, D).
        places_table: (places, D).
        ngram_table: (N * rows, D).
        masks: (N,), the bits of each n-gram's bytes in the 64-bit word; `salts` and `offsets` likewise. N may be 0.
        salts: (N,).
        offsets: (N,), where the rows of each n-gram begin.
        rows: Rows of each n-gram.
    """
    own, placed = bytes_table[nearest[-1]], places_table[min(place, places_table.shape[0] - 1)]
    x: Vector = np.empty_like(own)
    for i in range(x.size):
        x[i] = own[i] + placed[i]
    word = np.uint64(0)
    for byte in nearest:
        word = (word << np.uint64(8)) | np.uint64(byte)
    for n in range(masks.size):
        mixed = (word & np.uint64(masks[n])) ^ np.uint64(salts[n])
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        row = np.int64((mixed >> np.uint64(31)) & np.uint64(0x7FFFFFFF)) % rows + offsets[n]
        for i in range(x.size):
            x[i] += ngram_table[row, i]
    return x
