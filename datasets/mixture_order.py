"""Which window of which store is read when: a closed form over the orders of the stores.

    position n -> phase -> square of 48 rows and 48 lanes: row, lane n % 48
               -> place of the cycle: (row + shift of the lane) % 48 within the square's 48 (keyed permutation of lanes)
               -> store, and how often its lane has come -> its own position, which is 48 * times + lane -> Runs

A cycle is a row of `PLACES` places in which each store has its share, spread evenly: the first n places hold n times
its share, less than one off. A square plays 48 of them: every lane and every row has each of them once. So whatever 48
windows stand in a row have the same mixture, all lanes of a store are equally far behind a square, and a lane of the
mixture reads one lane of each store: a rank reads whole lanes of all of them, as it does of one store (lanes.py).

Behind whole squares a store has given its share to within 48 windows, one a lane. What its lanes have given is without
gap or repeat at any position; a stage that begins within a square leaves lanes a few windows apart, which stays.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.lanes import LANES
from bytropix.datasets.mixture import PLACES, Phase
from bytropix.datasets.order import Order
from bytropix.datasets.permutation import combine, key_of, permute
from bytropix.datasets.windows import Runs

SQUARES = PLACES // LANES  # in a cycle
_SIDE = np.uint64(math.isqrt(LANES - 1) + 1)
_SHIFTS, _SOURCES = 3, 4  # what a key is for; lanes.py has 1 and 2


class SourceOrder(Order, Protocol):
    """The endless order of one store's windows: a position is epoch * windows + place in the epoch."""

    @property
    def windows(self) -> int:
        """Windows in an epoch."""
        ...


def source_seed(seed: int, index: int) -> int:
    """Return the seed of one store's order: stores of the same size must not move in step."""
    return key_of(seed, _SOURCES, index)


class MixtureOrder:
    """The endless order of the windows of several stores; see `Order`.

    Args:
        phases: The shares, the first from position 0 on; see `Mixture.phases`.
        orders: The order of each store, see `source_seed`.
        first_parts: Where each store's parts begin in the list that the result numbers.
        seed: Any integer.
    """

    def __init__(
        self, phases: Sequence[Phase], orders: Sequence[SourceOrder], first_parts: Sequence[int], *, seed: int
    ) -> None:
        self.seed = seed
        self.windows = np.array([order.windows for order in orders], dtype=np.int64)
        self._orders, self._first_parts = orders, first_parts
        self._key = np.uint64(key_of(seed, _SHIFTS))
        self._starts = np.array([phase.start for phase in phases], dtype=np.int64)
        places = np.array([phase.places for phase in phases], dtype=np.int64)
        self._cycles = np.stack([_cycle(row) for row in places])
        self._before = np.stack([_before(cycle, len(orders)) for cycle in self._cycles])
        self._bases = np.zeros((len(phases), LANES, len(orders)), dtype=np.int64)
        for phase in range(1, len(phases)):
            self._bases[phase] = self._in_lanes(int(self._starts[phase]))

    def assign(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the store, i64 [k], and its own position, i64 [k], of each position."""
        tables = self._starts, self._cycles, self._before, self._bases
        sources, own = _assign(positions, *tables, self._key)
        return sources, own

    def runs(self, positions: NDArray[np.int64]) -> Runs:
        """Return the rows at positions, i64 [k], in the order asked for."""
        rows, found = [], []
        for source, those, own in self._shared_out(positions):
            rows.append(those)
            found.append(self._numbered(source, self._orders[source].runs(own)))
        return _merged(found, np.concatenate([np.zeros(0, dtype=np.int64), *rows]))

    def coming(self, positions: NDArray[np.int64]) -> Runs:
        """Return the rows of the blocks that these positions announce."""
        found = [
            self._numbered(source, self._orders[source].coming(own)) for source, _, own in self._shared_out(positions)
        ]
        return _merged(found)

    def at_hand(self, position: int, *, residue: int, ranks: int) -> Runs:
        """Return the rows of the blocks of the rounds that the stores which are read stand in at a position."""
        read = np.flatnonzero(self._before[self._phase(position + 1)][SQUARES])
        own = self.delivered(position)
        found = [
            self._numbered(source, self._orders[source].at_hand(int(own[source]), residue=residue, ranks=ranks))
            for source in read.tolist()
        ]
        return _merged(found)

    def delivered(self, position: int) -> NDArray[np.int64]:
        """Return how many windows of each store, i64 [stores], come before a position."""
        found: NDArray[np.int64] = self._in_lanes(position).sum(axis=0)
        return found

    def epochs(self, position: int) -> NDArray[np.float64]:
        """Return how often each store, f64 [stores], has been gone through before a position."""
        return self.delivered(position) / self.windows

    def shares(self, position: int, since: int = 0) -> NDArray[np.float64]:
        """Return which share of the windows from `since` to a position each store, f64 [stores], has given."""
        return (self.delivered(position) - self.delivered(since)) / max(1, position - since)

    def _shared_out(self, positions: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Give each store that is read with its rows, indices into positions, and their own positions."""
        sources, own = self.assign(positions)
        order = np.argsort(sources, kind="stable")
        present, firsts = np.unique(sources[order], return_index=True)
        for source, rows in zip(present.tolist(), np.split(order, firsts[1:]), strict=False):
            yield source, rows, own[rows]

    def _numbered(self, source: int, runs: Runs) -> Runs:
        """Return a store's runs with its parts numbered among all."""
        return replace(runs, parts=runs.parts + self._first_parts[source])

    def _phase(self, position: int) -> int:
        """Return the phase of the last window before a position."""
        return max(0, int(np.searchsorted(self._starts, position, side="left")) - 1)

    def _in_lanes(self, position: int) -> NDArray[np.int64]:
        """Return how many windows come before a position, i64 [lanes, stores]."""
        phase = self._phase(position)
        tables = self._cycles[phase], self._before[phase], self._bases[phase]
        found: NDArray[np.int64] = _in_lanes(position, int(self._starts[phase]), phase, *tables, self._key)
        return found


def _merged(pieces: Sequence[Runs], rows: NDArray[np.int64] | None = None) -> Runs:
    """Return the rows of all pieces, end to end, or put row i of that in place rows[i]."""
    nothing = np.zeros(0, dtype=np.int64)
    counts = np.concatenate([nothing, *(np.diff(piece.first) for piece in pieces)])
    parts = np.concatenate([nothing, *(piece.parts for piece in pieces)])
    starts = np.concatenate([nothing, *(piece.starts for piece in pieces)])
    stops = np.concatenate([nothing, *(piece.stops for piece in pieces)])
    return Runs(*_placed(np.arange(counts.size) if rows is None else rows, counts, parts, starts, stops))


@numba.njit(nogil=True, cache=True)
def _placed(
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
    parts: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the fields of `Runs` whose row rows[i] has the counts[i] runs that follow those of the rows before i."""
    first = np.zeros(counts.size + 1, dtype=np.int64)
    for i in range(counts.size):
        first[rows[i] + 1] = counts[i]
    first = np.cumsum(first)
    there = np.empty_like(parts), np.empty_like(parts), np.empty_like(parts)
    run = 0
    for i in range(counts.size):
        for target in range(first[rows[i]], first[rows[i] + 1]):
            there[0][target], there[1][target], there[2][target] = parts[run], starts[run], stops[run]
            run += 1
    return first, there[0], there[1], there[2]


@numba.njit(nogil=True, cache=True)
def _cycle(places: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the store at each place of a cycle.

    Turn k of a store that has q of n places is due in the places k * n / q to (k + 1) * n / q. Of the turns that are
    due, the one with the earliest end comes first; then none is ever late: every store is less than one place off.
    """
    total = places.sum()
    given = np.zeros_like(places)
    ends = np.empty_like(places)
    for source in range(places.size):
        ends[source] = -(-total // places[source]) if places[source] else 2 * total
    cycle = np.empty(total, dtype=np.int32)
    for place in range(total):
        chosen = -1
        for source in range(places.size):
            due = given[source] * total < (place + 1) * places[source]
            if due and (chosen < 0 or ends[source] < ends[chosen]):
                chosen = source
        cycle[place] = chosen
        given[chosen] += 1
        ends[chosen] = -(-(given[chosen] + 1) * total // places[chosen])
    return cycle


@numba.njit(nogil=True, cache=True)
def _before(cycle: NDArray[np.int32], sources: int) -> NDArray[np.int64]:
    """Return how often each store comes before each square of a cycle and in all, i64 [squares + 1, stores]."""
    before = np.zeros((cycle.size // LANES + 1, sources), dtype=np.int64)
    for place in range(cycle.size):
        before[place // LANES + 1, cycle[place]] += 1
    for square in range(1, before.shape[0]):
        before[square] += before[square - 1]
    return before


@numba.njit(nogil=True, cache=True, inline="always")
def _shift(lane: int, phase: int, square: int, key: np.uint64) -> np.int64:
    """Return which place of its 48 a square's lane begins with."""
    own = combine(combine(key, np.uint64(phase)), np.uint64(square))
    return np.int64(permute(np.uint64(lane), np.uint64(LANES), _SIDE, own))


@numba.njit(nogil=True, cache=True)
def _assign(
    positions: NDArray[np.int64],
    starts: NDArray[np.int64],
    cycles: NDArray[np.int32],
    before: NDArray[np.int64],
    bases: NDArray[np.int64],
    key: np.uint64,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the store and its own position of each position."""
    sources, own = np.empty_like(positions), np.empty_like(positions)
    for i in range(positions.size):
        phase = np.searchsorted(starts, positions[i], side="right") - 1
        turn = (positions[i] - starts[phase]) // LANES
        lane = positions[i] % LANES
        square, row = turn // LANES, turn % LANES
        shift = _shift(lane, phase, square, key)
        played = cycles[phase, square % SQUARES * LANES : (square % SQUARES + 1) * LANES]
        source = played[(shift + row) % LANES]
        times = bases[phase, lane, source] + square // SQUARES * before[phase, SQUARES, source]
        times += before[phase, square % SQUARES, source]
        for earlier in range(shift, shift + row):
            times += played[earlier % LANES] == source
        sources[i], own[i] = source, times * LANES + lane
    return sources, own


@numba.njit(nogil=True, cache=True)
def _in_lanes(
    position: int,
    start: int,
    phase: int,
    cycle: NDArray[np.int32],
    before: NDArray[np.int64],
    bases: NDArray[np.int64],
    key: np.uint64,
) -> NDArray[np.int64]:
    """Return how many windows of each store come before a position of a phase in each lane, i64 [lanes, stores]."""
    found = bases.copy()
    for lane in range(LANES):
        turns = max(0, (position - start - (lane - start) % LANES + LANES - 1) // LANES)
        square, row = turns // LANES, turns % LANES
        found[lane] += square // SQUARES * before[SQUARES] + before[square % SQUARES]
        shift = _shift(lane, phase, square, key)
        for place in range(shift, shift + row):
            found[lane, cycle[square % SQUARES * LANES + place % LANES]] += 1
    return found
