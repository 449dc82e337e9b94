"""The window order: every window once an epoch, from a position alone."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.datasets import order
from bytropix.datasets.order import WindowOrder
from bytropix.errors import ConfigError

FROZEN = [(1, 960), (1, 1408), (1, 2496), (1, 1920), (0, 2944), (0, 1728)]
PartSizes = st.lists(st.integers(0, 4000), min_size=1, max_size=6)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 256 bytes, so that small parts have many blocks and several groups."""
    monkeypatch.setattr(order, "BLOCK_BYTES", 256)


def epoch_of(windows: WindowOrder, epoch: int = 0) -> list[tuple[int, int]]:
    """Return the (part, offset) of every position of an epoch."""
    places = windows.places(np.arange(windows.windows) + epoch * windows.windows)
    return list(zip(places.parts.tolist(), places.offsets.tolist(), strict=True))


def all_windows(sizes: list[int], context: int) -> list[tuple[int, int]]:
    """List the windows of the parts by the definition."""
    found = []
    for part, size in enumerate(sizes):
        if size >= context + 1:
            starts = range(0, size - 1, context)
            found += [(part, min(start, size - context - 1)) for start in starts]
    return found


@settings(deadline=None)
@given(sizes=PartSizes, context=st.integers(1, 300), seed=st.integers(0, 2**32), epoch=st.integers(0, 3))
def test_every_window_is_read_once_an_epoch(sizes: list[int], context: int, seed: int, epoch: int) -> None:
    """An epoch is a permutation of the windows, for any parts, context and seed."""
    if max(sizes) < context + 1:
        return
    windows = WindowOrder(sizes, context=context, seed=seed)
    assert all_windows(sizes, context) == sorted(epoch_of(windows, epoch))


def test_every_byte_but_a_parts_first_is_predicted() -> None:
    """The bytes after the first of all windows cover each part, the shifted last window included."""
    sizes, context = [1000, 65, 64, 640], 64
    covered = [np.zeros(size, dtype=bool) for size in sizes]
    for part, offset in epoch_of(WindowOrder(sizes, context=context, seed=0)):
        covered[part][offset + 1 : offset + context + 1] = True
    assert [int(mask.sum()) for mask in covered] == [999, 64, 0, 639]


def test_the_order_does_not_depend_on_how_it_is_asked() -> None:
    """One call, or one call a window, across the border of an epoch."""
    windows = WindowOrder([3000, 500, 77], context=16, seed=5)
    count = windows.windows + 40
    whole = windows.places(np.arange(3, 3 + count))
    single = [windows.places(np.array([3 + i])) for i in range(count)]
    assert whole.parts.tolist() == [int(place.parts[0]) for place in single]
    assert whole.offsets.tolist() == [int(place.offsets[0]) for place in single]


def test_epochs_and_seeds_differ() -> None:
    """Another epoch and another seed is another order."""
    orders = [epoch_of(WindowOrder([20_000], context=16, seed=seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(windows) for windows in orders}) == 4


def test_a_group_reads_few_blocks_and_the_epoch_reads_them_scattered() -> None:
    """A group's windows come from its own 32 blocks, which lie far apart, and are mixed among themselves."""
    windows = WindowOrder([64 * 256 * 32], context=16, seed=2)
    group = np.array(epoch_of(windows))[: windows.windows // 64, 1]
    assert np.unique(group // 256).size == 32
    assert np.ptp(group // 256) > 1000
    assert np.unique(group[:32] // 256).size > 12


def test_the_partly_filled_block_is_read_in_the_last_group() -> None:
    """The windows behind the last full block come after all groups but the last."""
    size = 70 * 256 + 100
    offsets = np.array(epoch_of(WindowOrder([size], context=16, seed=2)))[:, 1]
    late = np.flatnonzero(offsets >= 70 * 256)
    assert late.size == 7
    assert late.min() >= 46 * 16


def test_short_parts_are_skipped_and_counted() -> None:
    """Parts below context + 1 bytes are not read; the count says so."""
    windows = WindowOrder([10, 100, 64, 65], context=64, seed=0)
    assert windows.skipped_parts == 2
    assert {1, 3} == {part for part, _ in epoch_of(windows)}


def test_a_context_longer_than_the_split_names_the_remedy() -> None:
    """One line with the split, what is needed and what would work."""
    with pytest.raises(ConfigError, match=r"context 64 is longer than split 'val'.*39 at most") as caught:
        WindowOrder([40, 12], context=64, seed=0, split="val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("context", [0, -3])
def test_a_context_below_one_is_refused(context: int) -> None:
    """Nothing can be predicted from nothing."""
    with pytest.raises(ConfigError, match="context must be at least 1"):
        WindowOrder([100], context=context, seed=0)


def test_an_order_over_a_terabyte_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """10**12 bytes in 64 MiB parts take under 2 MiB, and any position is found."""
    monkeypatch.setattr(order, "BLOCK_BYTES", 2 << 20)
    sizes = [64 << 20] * (10**12 // (64 << 20))
    tracemalloc.start()
    windows = WindowOrder(sizes, context=512, seed=0)
    last = windows.places(np.array([7 * windows.windows - 1]))
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 2 << 20
    assert 0 <= last.parts[0] < len(sizes)
    assert windows.windows > 1_900_000_000


def test_the_order_is_the_same_everywhere() -> None:
    """A frozen sample: a change of the order breaks every resumed run and must be deliberate."""
    places = WindowOrder([5000, 3000], context=64, seed=1).places(np.arange(120, 126))
    assert list(zip(places.parts.tolist(), places.offsets.tolist(), strict=True)) == FROZEN
