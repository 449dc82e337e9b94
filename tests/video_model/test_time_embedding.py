"""Waves of timesteps and places tell neighbours from strangers."""

import math
from itertools import pairwise

import pytest
import torch

from bytropix.video.config import TimeEmbedding
from bytropix.video.time_embedding import FREQUENCIES, Waves, golden_frequencies, grid_waves

GOLDEN = (1 + math.sqrt(5)) / 2
KINDS: tuple[TimeEmbedding, ...] = ("sinusoidal", "golden")


def similarities(kind: TimeEmbedding, timesteps: int, features: int = 256) -> torch.Tensor:
    """Return the cosine of the embeddings of timestep 0 and of every other, [T]."""
    waves = Waves(features, timesteps, kind)(torch.arange(timesteps)).double()
    return torch.nn.functional.cosine_similarity(waves, waves[:1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timesteps", [20, 100, 1000])
def test_neighbours_are_alike_and_strangers_are_not(kind: TimeEmbedding, timesteps: int) -> None:
    """Similarity of neighbours is above 0.9, and falls with every step of distance at first."""
    found = similarities(kind, timesteps)

    assert found[1] > 0.9
    assert (found[:6].diff() < 0).all()
    assert found[timesteps // 2 :].max() < found[1] - 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_similarity_falls_all_the_way(kind: TimeEmbedding) -> None:
    """Over a thousand timesteps every doubling of the distance makes two embeddings less alike."""
    found = similarities(kind, 1000)
    along = [float(found[2**power]) for power in range(10)]

    assert all(nearer > farther for nearer, farther in pairwise(along))


@pytest.mark.parametrize("kind", KINDS)
def test_similarity_is_of_the_distance_alone(kind: TimeEmbedding) -> None:
    """Any two timesteps as far apart are as much alike."""
    waves = Waves(64, 1000, kind)(torch.arange(1000)).double()
    shifted = [(waves[start] * waves[start + 5]).sum() for start in (0, 1, 77, 500, 994)]

    torch.testing.assert_close(torch.stack(shifted), shifted[0].expand(5), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [8, 16, 64, 256])
@pytest.mark.parametrize("timesteps", [2, 20, 1000, 100_000])
def test_frequencies_neither_alias_nor_repeat(kind: TimeEmbedding, features: int, timesteps: int) -> None:
    """No wave turns further than a quarter in a step, and the slowest takes at least twice all steps for one turn."""
    frequencies = FREQUENCIES[kind](features // 2, timesteps)

    assert frequencies.max() <= math.pi / 2
    assert 2 * math.pi / frequencies.min() >= 2 * timesteps - 1e-6


def test_golden_frequencies_are_powers_of_the_golden_ratio() -> None:
    """Some whole number of frequencies further on, a frequency is the golden ratio smaller."""
    frequencies = golden_frequencies(128, 1000)
    ratios = [float(frequencies[0] / frequencies[m]) for m in range(1, 30)]

    assert any(ratio == pytest.approx(GOLDEN, rel=1e-9) for ratio in ratios)


def test_cells_of_a_grid_have_places_of_their_own() -> None:
    """Every cell of a grid of any size is told apart, and a cell keeps its embedding when the grid grows."""
    small, large = (grid_waves(*size, 32, torch.device("cpu")) for size in ((5, 7), (9, 31)))

    assert small.shape == (5, 7, 32)
    assert torch.equal(large[:5, :7], small)
    assert torch.cdist(large.flatten(0, 1), large.flatten(0, 1)).fill_diagonal_(1).min() > 0.1
