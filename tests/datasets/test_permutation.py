"""The keyed permutation: a bijection for every size, different for every key, and well spread."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.datasets.permutation import Permutation, combine, key_of, mix


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_every_index_is_reached_once(size: int, key: int) -> None:
    """The images of 0..n-1 are 0..n-1, for any n and key."""
    images = Permutation(size, key).many(np.arange(size))
    assert np.array_equal(np.arange(size), np.sort(images))


@settings(deadline=None)
@given(size=st.integers(2**31, 2**62), key=st.integers(0, 2**64 - 1), start=st.integers(0, 2**31 - 200))
def test_large_sizes_stay_in_range_without_collisions(size: int, key: int, start: int) -> None:
    """A run of positions of a huge permutation has distinct images inside it."""
    images = Permutation(size, key).many(np.arange(start, start + 200))
    assert np.unique(images).size == 200
    assert 0 <= images.min() <= images.max() < size


def test_one_position_equals_the_batch() -> None:
    """The scalar call and the vectorised one agree."""
    permutation = Permutation(1000, key_of(7))
    assert permutation.many(np.arange(1000)).tolist() == [permutation(i) for i in range(1000)]


def test_a_position_outside_the_permutation_is_refused() -> None:
    """Neither end may be passed."""
    for position in (-1, 10):
        with pytest.raises(ValueError, match=r"positions must be in \[0, 10\)"):
            Permutation(10, 0)(position)


def test_small_permutations_are_uniform_over_keys() -> None:
    """Over 20,000 keys each of 7 positions goes to each of 7 places within five standard deviations."""
    counts = np.zeros((7, 7))
    for key in range(20_000):
        counts[np.arange(7), Permutation(7, key_of(key)).many(np.arange(7))] += 1
    expected = 20_000 / 7
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("size", [4096, 100_003])
def test_neighbours_are_not_kept_together(size: int) -> None:
    """Position and image, and the images of neighbours, are uncorrelated within five standard errors."""
    images = Permutation(size, key_of(3)).many(np.arange(size)).astype(np.float64)
    for other in (np.arange(size), np.roll(images, 1)):
        assert abs(np.corrcoef(images, other)[0, 1]) < 5 / np.sqrt(size)


def test_steps_between_images_are_those_of_a_shuffle() -> None:
    """A shuffle of n keeps about 2 neighbour pairs side by side, and no step is common."""
    images = Permutation(50_000, key_of(11)).many(np.arange(50_000))
    steps, counts = np.unique(np.diff(images), return_counts=True)
    assert counts.max() < 15
    assert counts[np.abs(steps) == 1].sum() < 15


def test_keys_of_neighbouring_seeds_differ_in_half_their_bits() -> None:
    """Seeds 0, 1, 2, ... and epochs 0, 1, 2, ... give unrelated keys."""
    for keys in ([key_of(seed) for seed in range(400)], [key_of(0, epoch) for epoch in range(400)]):
        flips = [(a ^ b).bit_count() for a, b in pairwise(keys)]
        assert 30 < np.mean(flips) < 34
        assert len(set(keys)) == 400


def test_the_order_of_key_words_matters() -> None:
    """A path of words is a path, not a sum."""
    assert key_of(1, 2, 3) != key_of(1, 3, 2)


def test_plain_and_compiled_keys_agree() -> None:
    """`key_of` is the fold of the compiled `combine` over its words."""
    assert key_of(5, 9) == int(combine(np.uint64(mix(np.uint64(5))), np.uint64(9)))


def test_the_published_splitmix64_sequence() -> None:
    """State 0 of splitmix64 gives the first output of the reference implementation."""
    assert key_of(0) == 0xE220A8397B1DCDAF
