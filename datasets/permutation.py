"""A keyed permutation of [0, n) that is a function, not a list.

    (key, position) -> (left, right) -> rounds of left += f(right), right += f(left) -> index
                       an index outside [0, n) goes round again (cycle walking)

The network is the generalised Feistel cipher of Black and Rogaway, "Ciphers with Arbitrary Finite Domains"
(CT-RSA 2002), over Z_a x Z_b with a = ceil(sqrt(n)) and b = ceil(n / a). As a * b - n < a, cycle walking
takes 1 + O(1/sqrt(n)) tries on average. Nothing is stored: any position of any permutation costs the same.

The round function and every key come from the 64-bit finaliser of splitmix64 (Steele, Lea and Flood,
"Fast Splittable Pseudorandom Number Generators", OOPSLA 2014). This shuffles well; it is no
secret-keeping cipher.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
_ROUND_PAIRS = 3
_MASK = 0xFFFFFFFFFFFFFFFF


@numba.njit(nogil=True, cache=True, inline="always")
def mix(value: np.uint64) -> np.uint64:
    """Return the splitmix64 finaliser of `value + GOLDEN`, a bijection of the 64-bit integers."""
    z = value + GOLDEN
    z = (z ^ (z >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    return z ^ (z >> np.uint64(31))


@numba.njit(nogil=True, cache=True, inline="always")
def combine(key: np.uint64, word: np.uint64) -> np.uint64:
    """Return the key that belongs to `word` under `key`: mix(mix(key) xor word)."""
    return mix(mix(key) ^ word)


@numba.njit(nogil=True, cache=True, inline="always")
def _below(key: np.uint64, value: np.uint64, limit: np.uint64) -> np.uint64:
    """Hash `value` into [0, limit), limit < 2**32, by multiply and shift: no division in the rounds."""
    return ((mix(key ^ value) >> np.uint64(32)) * limit) >> np.uint64(32)


@numba.njit(nogil=True, cache=True)
def permute(position: np.uint64, size: np.uint64, side: np.uint64, key: np.uint64) -> np.uint64:
    """Return the image of `position` under the permutation of [0, size) that `key` names.

    Args:
        position: In [0, size).
        size: 1 to 2**62.
        side: `side_of(size)`, passed in so that a batch computes it once.
        key: Any 64 bits.
    """
    other = (size + side - np.uint64(1)) // side
    index = position
    while True:
        left, right = index // other, index % other
        round_key = key
        for _ in range(_ROUND_PAIRS):
            left += _below(round_key, right, side)
            left -= side if left >= side else np.uint64(0)
            right += _below(round_key + MIX_1, left, other)
            right -= other if right >= other else np.uint64(0)
            round_key += GOLDEN
        index = left * other + right
        if index < size:
            return index


@numba.njit(nogil=True, cache=True)
def side_of(size: np.uint64) -> np.uint64:
    """Return ceil(sqrt(size)), exact for every size up to 2**62."""
    side = np.uint64(math.sqrt(float(size)))
    while side * side < size:
        side += np.uint64(1)
    while side > np.uint64(1) and (side - np.uint64(1)) * (side - np.uint64(1)) >= size:
        side -= np.uint64(1)
    return side


@numba.njit(nogil=True, cache=True)
def _permute_many(positions: NDArray[np.int64], size: np.uint64, key: np.uint64) -> NDArray[np.int64]:
    side = side_of(size)
    images = np.empty_like(positions)
    for i in range(positions.size):
        images[i] = np.int64(permute(np.uint64(positions[i]), size, side, key))
    return images


def key_of(seed: int, *words: int) -> int:
    """Return the 64-bit key of a path of integers: fold `combine` over `words`, from mix(seed).

    Args:
        seed: Any integer; its low 64 bits count.
        words: What the key is for, such as a purpose and an epoch; low 64 bits of each.
    """
    key = _mix_int(seed & _MASK)
    for word in words:
        key = _mix_int(_mix_int(key) ^ (word & _MASK))
    return key


def _mix_int(value: int) -> int:
    """Compute `mix` in plain integers, where numpy would warn of the overflow that is meant."""
    z = (value + int(GOLDEN)) & _MASK
    z = ((z ^ (z >> 30)) * int(MIX_1)) & _MASK
    z = ((z ^ (z >> 27)) * int(MIX_2)) & _MASK
    return z ^ (z >> 31)


class Permutation:
    """The permutation of [0, size) that a key names.

    Args:
        size: 1 to 2**62.
        key: 64 bits, see `key_of`.
    """

    def __init__(self, size: int, key: int) -> None:
        if not 1 <= size <= 1 << 62:
            raise ValueError(f"a permutation's size must be in 1..2**62, got {size}")
        self.size = size
        self.key = key

    def __call__(self, position: int) -> int:
        """Return the image of one position in [0, size)."""
        return int(self.many(np.array([position], dtype=np.int64))[0])

    def many(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the images of positions, i64 [k], each in [0, size)."""
        if positions.size and not 0 <= int(positions.min()) <= int(positions.max()) < self.size:
            raise ValueError(f"positions must be in [0, {self.size})")
        images: NDArray[np.int64] = _permute_many(positions, np.uint64(self.size), np.uint64(self.key))
        return images
