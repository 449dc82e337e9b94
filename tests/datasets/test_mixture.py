"""Mixtures of stores: the shares, the closed form against plain counting, and what is refused."""

import math
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.datasets.lanes import LANES
from bytropix.datasets.mixture import PLACES, Mixture, Phase, Stage, fingerprint_at, places_of, weights_of_sizes
from bytropix.datasets.mixture_order import MixtureOrder, source_seed
from bytropix.datasets.order import WindowOrder
from bytropix.datasets.store import Store
from bytropix.datasets.windows import RowCut, Runs
from bytropix.errors import ConfigError

SQUARE = LANES * LANES
FAR = 10**12 + 7


class Rows:
    """Stands for one store's order: the row at position p has p % 3 + 1 runs, of part p % 2, that name p."""

    def __init__(self, windows: int) -> None:
        self.windows = windows

    def runs(self, positions: NDArray[np.int64]) -> Runs:
        """Return rows that can be told apart."""
        counts = positions % 3 + 1
        first = np.concatenate(([0], np.cumsum(counts)))
        starts = np.repeat(positions, counts) * 10 + np.arange(first[-1]) - np.repeat(first[:-1], counts)
        return Runs(first, np.repeat(positions % 2, counts), starts, starts + 1)

    coming = runs

    def at_hand(self, position: int, *, residue: int, ranks: int) -> Runs:
        """Return one row that says what was asked."""
        return self.runs(np.array([position]))


def order_of(*phases: tuple[int, tuple[float, ...]], seed: int = 3) -> MixtureOrder:
    """Return an order of phases given as (start, weights)."""
    count = len(phases[0][1])
    made = [Phase(start, places_of(weights)) for start, weights in phases]
    return MixtureOrder(made, [Rows(100 + index) for index in range(count)], [2 * i for i in range(count)], seed=seed)


@st.composite
def mixtures(draw: st.DrawFn) -> MixtureOrder:
    """Orders of 1 to 5 stores in 1 to 3 phases, with weights of any size, some of them 0."""
    stores = draw(st.integers(1, 5))
    weight = st.one_of(st.just(0.0), st.floats(1e-9, 1e9), st.integers(1, 9).map(float))
    weights = st.lists(weight, min_size=stores, max_size=stores).filter(any).map(tuple)
    starts = sorted(draw(st.sets(st.integers(1, 9000), max_size=2)))
    return order_of(*((start, draw(weights)) for start in (0, *starts)), seed=draw(st.integers(-(2**70), 2**70)))


def shares_of(order: MixtureOrder, phase: int) -> NDArray[np.float64]:
    """Return the shares that a phase is to have."""
    return np.bincount(order._cycles[phase], minlength=order.windows.size) / PLACES


@settings(max_examples=20, deadline=None)
@given(mixtures())
def test_each_lane_of_a_store_counts_up_without_gap_or_repeat(order: MixtureOrder) -> None:
    """Counting what a store has given in each lane, across phases, gives every own position: 48 * times + lane."""
    positions = np.arange(12_000)
    sources, own = order.assign(positions)

    given = np.zeros((LANES, order.windows.size), dtype=np.int64)
    for position, source, found in zip(positions.tolist(), sources.tolist(), own.tolist(), strict=True):
        lane = position % LANES
        assert found == given[lane, source] * LANES + lane
        given[lane, source] += 1


@settings(max_examples=30, deadline=None)
@given(mixtures(), st.integers(0, 200))
def test_shares_are_kept_to_a_row_behind_every_square(order: MixtureOrder, squares: int) -> None:
    """After n squares of the last phase each store has given n * 2304 * share windows, less than 48 off."""
    start, last = int(order._starts[-1]), order._starts.size - 1
    given = order.delivered(start + squares * SQUARE) - order.delivered(start)

    assert given.sum() == squares * SQUARE
    assert (np.abs(given - squares * SQUARE * shares_of(order, last)) < LANES).all()


@settings(max_examples=20, deadline=None)
@given(mixtures(), st.integers(0, FAR))
def test_whatever_stands_in_a_row_has_the_mixture_of_its_square(order: MixtureOrder, square: int) -> None:
    """Each row of 48 windows, and each lane of 48 rows, holds a store equally often: the square's share."""
    first = int(order._starts[-1]) + square * SQUARE
    sources = order.assign(np.arange(first, first + SQUARE))[0].reshape(LANES, LANES)  # [row, place in it]

    for source in range(order.windows.size):
        is_its = sources == source
        assert len(set(is_its.sum(axis=1).tolist())) == 1
        assert len(set(is_its.sum(axis=0).tolist())) == 1


def test_stores_are_shuffled_within_rows_and_squares_differ() -> None:
    """No rank or row sees stores in turn: places of a store within a row look random, and no two squares are alike."""
    order = order_of((0, (0.5, 0.5)))
    squares = order.assign(np.arange(100 * SQUARE))[0].reshape(100, LANES, LANES)

    assert len({square.tobytes() for square in squares}) == 100
    assert len({square[0].tobytes() for square in squares}) == 100
    of_even_lanes = squares[:, :, ::2].mean(axis=2)
    assert 0.05 < of_even_lanes.std() < 0.09  # 24 of 48 drawn without putting back: 0.072


@settings(max_examples=30, deadline=None)
@given(mixtures(), st.integers(0, 12_000), st.integers(0, 3000), st.sampled_from([0, FAR]))
def test_the_count_at_a_position_is_what_was_delivered(order: MixtureOrder, begin: int, many: int, far: int) -> None:
    """`delivered`, `epochs` and `shares` agree with counting, near the beginning and far from it."""
    begin += far
    sources, own = order.assign(np.arange(begin, begin + many))
    in_lanes = order._in_lanes(begin)
    for position, source, found in zip(range(begin, begin + 300), sources.tolist(), own.tolist(), strict=False):
        assert found == in_lanes[position % LANES, source] * LANES + position % LANES
        in_lanes[position % LANES, source] += 1
    counted = np.bincount(sources, minlength=order.windows.size)
    given = order.delivered(begin + many)

    assert (given - order.delivered(begin) == counted).all()
    assert given.sum() == begin + many
    assert order.epochs(begin + many).tolist() == (given / order.windows).tolist()
    assert order.shares(begin + many).tolist() == (given / max(1, begin + many)).tolist()
    assert order.shares(begin + many, begin).tolist() == (counted / max(1, many)).tolist()


@settings(max_examples=30, deadline=None)
@given(mixtures(), st.randoms(use_true_random=False), st.sampled_from([0, FAR]))
def test_positions_may_be_asked_for_in_any_pieces(order: MixtureOrder, random: Any, far: int) -> None:
    """Rows of any chunk, in any sequence, are those of one call for all, and name the right parts."""
    positions = far + np.arange(500)
    sources, own = order.assign(positions)
    whole = order.runs(positions)
    for row, (source, place) in enumerate(zip(sources.tolist(), own.tolist(), strict=True)):
        here = slice(whole.first[row], whole.first[row + 1])
        assert whole.starts[here].tolist() == [place * 10 + run for run in range(place % 3 + 1)]
        assert set(whole.parts[here].tolist()) == {2 * source + place % 2}
    assert (whole.stops == whole.starts + 1).all()

    some = np.array(random.sample(range(500), random.randint(0, 500)), dtype=np.int64)
    found = order.runs(positions[some])
    assert np.diff(found.first).tolist() == np.diff(whole.first)[some].tolist()
    wanted = [whole.starts[whole.first[row] : whole.first[row + 1]] for row in some.tolist()]
    assert found.starts.tolist() == np.concatenate([[], *wanted]).astype(int).tolist()


@pytest.mark.parametrize("start", [1, 47, 48, 1000, SQUARE, 5001])
def test_a_stage_begins_exactly_where_it_says(start: int) -> None:
    """Before it nothing changes, from it on only its store is read, and the others go on later where they were."""
    plain = order_of((0, (0.7, 0.3, 0.0)))
    staged = order_of((0, (0.7, 0.3, 0.0)), (start, (0.0, 0.0, 1.0)), (start + 500, (0.7, 0.3, 0.0)))
    positions = np.arange(start + 3000)
    sources, own = staged.assign(positions)

    assert (sources[:start] == plain.assign(positions[:start])[0]).all()
    assert (own[:start] == plain.assign(positions[:start])[1]).all()
    assert (sources[start : start + 500] == 2).all()
    assert (sources[start + 500 :] != 2).all()
    for lane in range(LANES):
        resumed = own[(sources == 0) & (positions % LANES == lane)]
        assert resumed.tolist() == (lane + LANES * np.arange(resumed.size)).tolist()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8, 16, 48])
def test_a_rank_reads_whole_lanes_of_every_store(ranks: int) -> None:
    """In the first round of two stores no block is touched by two ranks, and `at_hand` lists those of each rank."""
    cuts = [RowCut(np.array([size]), 1 << 16) for size in (400 << 20, 300 << 20)]
    orders = [WindowOrder(cut, seed=source_seed(0, index)) for index, cut in enumerate(cuts)]
    phases = [Phase(0, places_of((3.0, 2.0))), Phase(50_000, places_of((0.0, 1.0)))]
    order = MixtureOrder(phases, orders, [0, 1], seed=0)
    of_rank: list[set[tuple[int, int]]] = []
    for rank in range(ranks):
        runs = order.runs(np.arange(rank, 1500, ranks))  # a round is 48 blocks of 32 windows, of each store
        of_rank.append(set(zip(runs.parts.tolist(), (runs.starts >> 21).tolist(), strict=True)))
        expected = order.at_hand(0, residue=rank, ranks=ranks)
        assert of_rank[rank] <= set(zip(expected.parts.tolist(), (expected.starts >> 21).tolist(), strict=True))

    assert sum(map(len, of_rank)) == len(set.union(*of_rank)) == 2 * LANES
    assert set(order.at_hand(60_000, residue=0, ranks=ranks).parts.tolist()) == {1}  # the other is not read there


def test_blocks_of_the_next_round_are_announced_once() -> None:
    """Whoever reads a round of a store is told of all 48 blocks of its next one."""
    cuts = [RowCut(np.array([size]), 1 << 16) for size in (400 << 20, 300 << 20)]
    order = MixtureOrder(
        [Phase(0, places_of((1.0, 1.0)))],
        [WindowOrder(cut, seed=index) for index, cut in enumerate(cuts)],
        [0, 1],
        seed=0,
    )
    told = order.coming(np.arange(2 * 1536))
    blocks = list(zip(told.parts.tolist(), (told.starts >> 21).tolist(), strict=True))

    assert list(Counter(blocks).values()) == [17] * (2 * LANES)  # of 32 windows, every second one and the last
    later = order.runs(np.arange(2 * 1536, 2 * 3072))
    wanted = set(zip(later.parts.tolist(), (later.starts >> 21).tolist(), strict=True))
    assert len(wanted - set(blocks)) <= 2  # a row is not quite half of each store


def test_sizes_become_shares_by_temperature() -> None:
    """share_i is in proportion to n_bytes_i ** (1 / temperature): 1 is by size, infinity is even."""
    sizes = [10**9, 2 * 10**9, 7 * 10**9]
    for temperature in (0.5, 1.0, 3.0, 5.0):
        powers = np.array(sizes) ** (1 / temperature)
        found = np.array(places_of(weights_of_sizes(sizes, temperature))) / PLACES
        assert np.abs(found - powers / powers.sum()).max() <= 1 / PLACES
    assert weights_of_sizes(sizes, math.inf) == (1, 1, 1)
    assert weights_of_sizes([10**15, 10], 0.001) == (1, 0)  # no overflow


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.just(0.0), st.floats(5e-324, 1.7e308)), min_size=1, max_size=40).filter(any))
def test_places_are_shares_rounded(weights: list[float]) -> None:
    """They add up to a cycle, are within one of the share, 0 for weight 0 alone, and do not depend on the scale."""
    places = np.array(places_of(weights))
    scaled = np.array(weights) / max(weights)

    assert places.sum() == PLACES
    exact = scaled / math.fsum(scaled) * PLACES
    forced = int(((exact < 1) & (np.array(weights) > 0)).sum())
    assert (places - exact < 1.001).all()
    assert (exact - places < 1.001 + forced).all()
    assert ((places > 0) == (np.array(weights) > 0)).all()


def test_only_ratios_of_weights_count() -> None:
    """7 to 3 and 0.7 to 0.3 are one mixture."""
    assert places_of((7, 3)) == places_of((0.7, 0.3)) == places_of((70, 30))


@pytest.fixture
def stores(store_paths: dict[str, Path]) -> tuple[Store, Store]:
    """Two open stores of the same documents."""
    return Store.open(store_paths["zstd"]), Store.open(store_paths["none"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1.0,)}, "1 for 2 stores"),
        ({"weights": (1.0, -0.5)}, "-0.5 for .*small.bx; a weight must be a number that is not negative"),
        ({"weights": (1.0, math.nan)}, "nan for .*small.bx"),
        ({"weights": (1.0, math.inf)}, "inf for .*small.bx"),
        ({"weights": (0.0, 0.0)}, "all are 0"),
        ({"temperature": 0.0}, "must be positive, got 0.0"),
        ({"temperature": -1.0}, "must be positive, got -1.0"),
        ({"temperature": math.nan}, "must be positive, got nan"),
        ({"weights": (1.0, 1.0), "temperature": 2.0}, "give one of them"),
        ({"stages": (Stage(0, (1.0, 1.0)),)}, "0 follows 0"),
        ({"stages": (Stage(5, (1.0, 1.0)), Stage(5, (1.0, 2.0)))}, "5 follows 5"),
        ({"stages": (Stage(5, (1.0, 1.0)), Stage(3, (1.0, 2.0)))}, "3 follows 5"),
        ({"stages": (Stage(5, (1.0, 1.0, 1.0)),)}, "stage at 5: 3 for 2 stores"),
        ({"stages": (Stage(5, (0.0, 0.0)),)}, "stage at 5: all are 0"),
    ],
)
def test_what_cannot_work_is_named(stores: tuple[Store, Store], settings: dict[str, Any], message: str) -> None:
    """One line says which value is wrong and what the rule is."""
    with pytest.raises(ConfigError, match=message) as error:
        Mixture(stores, **settings)
    assert "\n" not in str(error.value)


def test_no_store_and_the_same_store_twice_are_refused(stores: tuple[Store, Store]) -> None:
    """A store given twice is a slip: its weights belong together."""
    with pytest.raises(ConfigError, match="needs a store"):
        Mixture(())
    with pytest.raises(ConfigError, match=r"the same store as .*both weights added"):
        Mixture((stores[0], stores[1], Store.open(stores[0].url)))


def test_sizes_weights_and_stages_become_phases(stores: tuple[Store, Store]) -> None:
    """Without weights the sizes of the split decide; stages follow with their own weights."""
    mixed = Mixture(stores, temperature=2, stages=(Stage(10, (0, 1)),))

    assert mixed.phases([900, 100]) == (Phase(0, (PLACES * 3 // 4, PLACES // 4)), Phase(10, (0, PLACES)))
    assert mixed.phases([900, 100])[0].shares == (0.75, 0.25)
    assert Mixture(stores).phases([3, 1]) == (Phase(0, (PLACES * 3 // 4, PLACES // 4)),)
    assert Mixture(stores, (1, 3)).phases([3, 1]) == (Phase(0, (PLACES // 4, PLACES * 3 // 4)),)


def test_the_fingerprint_covers_what_has_begun(stores: tuple[Store, Store]) -> None:
    """Other stores, shares or begun stages are another mixture; stages still to come may change."""

    def at(position: int, weights: tuple[float, ...], *stages: Stage, of: tuple[Store, ...] = stores) -> str:
        mixed = Mixture(of, weights, None, stages)
        return fingerprint_at(position, mixed.stores, mixed.phases([1, 1]))

    begun = Stage(100, (1, 1))
    same = at(100, (7, 3))
    assert same == at(100, (0.7, 0.3)) == at(0, (7, 3)) == at(100, (7, 3), begun)
    assert same != at(101, (7, 3), begun)
    assert at(101, (7, 3), begun) == at(5000, (7, 3), begun, Stage(5000, (1, 2)))
    assert same != at(100, (7, 4))
    assert same != at(100, (7, 3), of=stores[::-1])
    assert at(0, (7, 3)) != at(0, (3, 7))


def test_a_mixture_travels_to_another_process(stores: tuple[Store, Store]) -> None:
    """Its stores are opened again by their places."""
    mixed = Mixture(stores, (1, 2), None, (Stage(7, (0, 1)),))
    there = pickle.loads(pickle.dumps(mixed))

    assert [store.fingerprint for store in there.stores] == [store.fingerprint for store in stores]
    assert (there.weights, there.temperature, there.stages) == (mixed.weights, None, mixed.stages)
