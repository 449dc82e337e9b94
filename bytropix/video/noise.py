"""Random numbers that are a function of a key: a clip has the same ones in any batch, on any rank and device.

    (seed, position of the clip in the stream) -> key -> stream of the key -> 64-bit words -> uniform -> normal

Word n of a key is a hash of the key and n (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", 2014), so no state is kept and nothing comes after anything. Integers are exact everywhere; what is made
of them is computed in float64 and rounded to float32 once, which hides the last bits of one device's logarithm.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the step of splitmix64
_FORK = 0xD1B54A32D192ED03  # the step from one stream of a key to the next
_WORD = 2**64


def clip_keys(seed: int, positions: Tensor) -> Tensor:
    """Return the keys of clips.

    Args:
        seed: Any whole number.
        positions: i64 [B], where each clip stands in the stream that all ranks read.

    Returns:
        i64 [B].
    """
    # A seed is hashed by itself, so that seed + 1 is not the same stream moved on by a clip.
    start = _mixed(torch.tensor(_signed(seed * _STEP), dtype=torch.int64))
    return _mixed(positions * _signed(_STEP) + start)


def fork(keys: Tensor, stream: int) -> Tensor:
    """Return the keys i64 [B] of another stream of numbers of the same clips, unrelated to those of other streams."""
    return _mixed(keys + _signed((stream + 1) * _FORK))


def keyed_uniform(keys: Tensor, count: int) -> Tensor:
    """Return `count` numbers of each key, evenly spread over [0, 1): f32 [B, count], multiples of 2^-24."""
    return _shifted(_words(keys, count), 40).float() * 2.0**-24


def keyed_normal(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Return normal numbers of mean 0 and variance 1 for each key: f32 [B, *shape].

    Two numbers come of a word (Box and Muller 1958): 32 bits are the radius, 32 the angle; the largest is 6.7.
    """
    count = math.prod(shape)
    words = _words(keys, -(-count // 2))
    share = (_shifted(words, 32).double() + 0.5) * 2.0**-32  # in (0, 1): its logarithm is finite
    angle = (words & 0xFFFFFFFF).double() * (2 * math.pi * 2.0**-32)
    radius = (-2 * share.log()).sqrt()
    pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return pairs[:, :count].float().reshape(len(keys), *shape)


def _words(keys: Tensor, count: int) -> Tensor:
    """Return words 0..count - 1 of each key, i64 [B, count], all 64 bits random."""
    numbers = torch.arange(1, count + 1, device=keys.device) * _signed(_STEP)
    return _mixed(_mixed(keys)[:, None] + numbers)


def _mixed(x: Tensor) -> Tensor:
    """Return the hash of 64-bit words: a bijection in which each bit of the input turns half of the output's."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Return words shifted right with zeros coming in; torch's shift copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """Return the i64 of the same 64 bits."""
    return (word + _WORD // 2) % _WORD - _WORD // 2
