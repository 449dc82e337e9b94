"""The order of windows: every window once an epoch, from a position alone, a block by as few ranks as can be."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.datasets.lanes import BLOCK_BYTES, LANES, LaneOrder

WIDTH = BLOCK_BYTES // 4  # four windows in a block, 192 in a round
FROZEN = [308, 76, 335, 360, 3, 155, 321, 187]


def epoch_of(order: LaneOrder, epoch: int = 0) -> NDArray[np.int64]:
    """Return the window at every place of an epoch."""
    return order(np.arange(order.windows) + epoch * order.windows)


@settings(deadline=None)
@given(
    windows=st.integers(1, 3000),
    width=st.integers(1 << 17, 3 << 20),
    seed=st.integers(0, 2**64),
    epoch=st.integers(0, 3),
)
def test_an_epoch_is_a_permutation(windows: int, width: int, seed: int, epoch: int) -> None:
    """Every window comes once, for any number of them: none, one and several rounds, with and without a rest."""
    found = epoch_of(LaneOrder(windows, width, seed), epoch)

    assert list(range(windows)) == sorted(found.tolist())


@settings(deadline=None, max_examples=60)
@given(
    windows=st.integers(10**6, 10**12), width=st.integers(16, 1 << 16), seed=st.integers(0, 99), start=st.floats(0, 1)
)
def test_large_orders_are_one_to_one(windows: int, width: int, seed: int, start: float) -> None:
    """Of up to 10**12 windows no two positions of any stretch share one, and all lie in range."""
    order = LaneOrder(windows, width, seed)
    first = int(start * (windows - 10**5))
    found = order(np.arange(first, first + 10**5))

    assert np.unique(found).size == 10**5
    assert 0 <= found.min() <= found.max() < windows


@settings(deadline=None, max_examples=20)
@given(blocks=st.integers(1, 10**6), rest=st.integers(0, 511), seed=st.integers(0, 99), turn=st.floats(0, 1))
def test_a_round_reads_48_whole_blocks(blocks: int, rest: int, seed: int, turn: float) -> None:
    """What a round reads is some blocks from their first to their last window, and nothing else."""
    order = LaneOrder(512 * blocks + rest, 4096, seed)
    size = 512 * LANES
    first = int(turn * (blocks // LANES)) * size
    found = np.sort(order(np.arange(first, min(first + size, order.windows))))
    whole = found[found < 512 * blocks].reshape(-1, 512)

    assert (whole[:, 0] % 512 == 0).all()
    assert (np.diff(whole, axis=1) == 1).all()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 8, 12, 16, 24, 48])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_block_belongs_to_one_rank(ranks: int, epoch: int) -> None:
    """In whole rounds every block is read by one rank alone; only the pool at the end is shared."""
    order = LaneOrder(5 * 4 * LANES + 33, WIDTH, seed=1)
    whole = 5 * 4 * LANES
    found = order(np.arange(whole) + epoch * order.windows) // 4
    owners = (np.arange(whole) + epoch * order.windows) % ranks

    assert all(np.unique(owners[found == block]).size == 1 for block in np.unique(found))


@pytest.mark.parametrize("ranks", [1, 3, 16])
def test_what_is_at_hand_and_what_is_coming_is_what_is_read(ranks: int) -> None:
    """The first round's blocks are named at its start, those of each later one while the round before is read."""
    order = LaneOrder(4 * 64 * LANES + 64 * 7 + 5, BLOCK_BYTES // 64, seed=3)
    a_round = 64 * LANES
    for residue in range(ranks):
        own = np.arange(residue, order.windows, ranks)
        assert set((order(own[own < a_round]) // 64 * 64).tolist()) == set(
            order.at_hand(0, residue=residue, ranks=ranks).tolist()
        )
        for turn in range(3):
            here = own[(own >= turn * a_round) & (own < (turn + 1) * a_round)]
            announced = order.coming(here)
            read = np.unique(order(here + a_round) // 64 * 64)
            assert sorted(read.tolist()) == sorted(announced.tolist())
            assert order.coming(here[here - turn * a_round > a_round // 2 + a_round // 64]).size == 0


def test_the_order_does_not_depend_on_how_it_is_asked() -> None:
    """One call, or one call a position, across the border of an epoch."""
    order = LaneOrder(400, WIDTH, seed=5)
    positions = np.arange(30, 900)

    assert order(positions).tolist() == [int(order(np.array([position]))[0]) for position in positions]


def test_epochs_and_seeds_differ() -> None:
    """Another epoch and another seed is another order."""
    orders = [epoch_of(LaneOrder(2000, WIDTH, seed), epoch) for seed in (0, 1, -1) for epoch in (0, 1)]

    assert len({tuple(order.tolist()) for order in orders}) == 6


def test_a_batch_mixes_places_far_apart() -> None:
    """Neighbours in the order come from different blocks, which lie all over the split."""
    order = LaneOrder(512 * 5000, 4096, seed=2)
    blocks = order(np.arange(32)) // 512

    assert np.unique(blocks).size == 32
    assert np.ptp(blocks) > 4000


def test_an_order_is_a_few_numbers() -> None:
    """Of 10**12 windows any position is found, with no list of them in memory."""
    order = LaneOrder(10**12, 4096, seed=0)
    order(np.array([0]))
    tracemalloc.start()
    found = order(np.array([7 * 10**12 - 1]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 0 <= int(found[0]) < 10**12
    assert peak < 100_000


def test_the_order_is_the_same_everywhere() -> None:
    """Windows written down once: a state is worth nothing if another machine or version reads another order."""
    assert LaneOrder(400, WIDTH, seed=7)(np.arange(398, 406)).tolist() == FROZEN
