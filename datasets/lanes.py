"""Which window is read when: a closed form, not a list.

    position -> epoch, place in the epoch -> round, lane (place % 48), turn
             -> block of the lane in this round (keyed permutation of all full blocks)
             -> window of the block (keyed permutation within it)

The windows of a split are cut into blocks of about 2 MiB. The blocks of an epoch are permuted and read 48 at a time, a
round: position p takes its window from lane p % 48, and a lane reads its block to the end before the round is over. So
a batch mixes tens of places of the corpus, a block is needed in one round only, and of R ranks, where R divides 48,
rank r reads the positions p % R = r and with them whole lanes: it fetches and decodes one block in R. The blocks that
are left over for less than a round, and the partly filled block at the end, are one pool whose windows are permuted
together.

The order depends on the number of windows, their width and the seed, not on batch size, ranks, threads or workers.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.permutation import combine, key_of, permute, side_of

BLOCK_BYTES = 2 << 20
LANES = 48  # divides by 1, 2, 3, 4, 6, 8, 12, 16, 24; all of them hold 96 MiB
BLOCKS_KEY, WINDOWS_KEY = np.uint64(1), np.uint64(2)  # what a key is for


@dataclass(frozen=True, slots=True)
class LaneOrder:
    """The endless shuffled order of numbered windows.

    Attributes:
        windows: Windows in an epoch, 1 to 2**62.
        width: Bytes of a window.
        seed: Any integer.
    """

    windows: int
    width: int
    seed: int

    @property
    def block_windows(self) -> int:
        """Windows of a full block."""
        return max(1, BLOCK_BYTES // self.width)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of windows, i64 [k], each given as epoch * windows + its place in the epoch."""
        found: NDArray[np.int64] = _windows_at(
            positions, self.windows, self.block_windows, np.uint64(key_of(self.seed))
        )
        return found

    def coming(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first windows of blocks that whoever reads these positions will need in the next round.

        Over a whole round each block of the next one comes once, the blocks spread over the first half of the round.
        """
        found: NDArray[np.int64] = _coming(positions, self.windows, self.block_windows, np.uint64(key_of(self.seed)))
        return found

    def at_hand(self, position: int, *, residue: int, ranks: int) -> NDArray[np.int64]:
        """Return the first windows of the blocks that the positions p % ranks = residue read in a position's round."""
        epoch, place = divmod(position, self.windows)
        size = self.block_windows
        blocks = self.windows // size
        turn = place // (LANES * size)
        first = turn * LANES
        own = np.arange(first, min(first + LANES, blocks))
        if turn < blocks // LANES:
            # A position's lane counts from its epoch's first position on, its residue from the first of all.
            own = own[(own - first + epoch * self.windows - residue) % ranks == 0]
        moved: NDArray[np.int64] = _moved_blocks(own, blocks, epoch, np.uint64(key_of(self.seed)))
        return size * moved


@numba.njit(nogil=True, cache=True)
def _windows_at(positions: NDArray[np.int64], total: int, block_windows: int, seed_key: np.uint64) -> NDArray[np.int64]:
    """Return the windows at positions; what a run of positions shares is computed at the first of them."""
    blocks = total // block_windows
    a_round = block_windows * LANES
    rounds = blocks // LANES
    rest = np.uint64(total - rounds * a_round)
    block_side, rest_side = side_of(np.uint64(max(1, blocks))), side_of(max(np.uint64(1), rest))
    window_side = side_of(np.uint64(block_windows))
    epoch = np.int64(-1)
    block_key = window_key = np.uint64(0)
    windows = np.empty_like(positions)
    for i in range(positions.size):
        if positions[i] // total != epoch:
            epoch = positions[i] // total
            block_key = combine(combine(seed_key, np.uint64(epoch)), BLOCKS_KEY)
            window_key = combine(combine(seed_key, np.uint64(epoch)), WINDOWS_KEY)
        place = positions[i] - epoch * total
        turn = place // a_round
        within = place - turn * a_round
        if turn < rounds:
            block = turn * LANES + within % LANES
            key = combine(window_key, np.uint64(block))
            window = np.int64(permute(np.uint64(within // LANES), np.uint64(block_windows), window_side, key))
        else:
            key = combine(window_key, np.uint64(rounds * LANES))
            left = np.int64(permute(np.uint64(within), rest, rest_side, key))
            block = rounds * LANES + left // block_windows
            window = left % block_windows
        if block < blocks:
            block = np.int64(permute(np.uint64(block), np.uint64(blocks), block_side, block_key))
        windows[i] = block * block_windows + window
    return windows


@numba.njit(nogil=True, cache=True)
def _coming(positions: NDArray[np.int64], total: int, block_windows: int, seed_key: np.uint64) -> NDArray[np.int64]:
    """Return the first windows of the blocks that positions announce: at most one each."""
    blocks = total // block_windows
    side = side_of(np.uint64(max(1, blocks)))
    found = np.empty(positions.size, dtype=np.int64)
    count = 0
    for i in range(positions.size):
        epoch = positions[i] // total
        place = positions[i] - epoch * total
        turn = place // (block_windows * LANES)
        within = place - turn * block_windows * LANES
        lane = within % LANES
        block = (turn + 1) * LANES + lane
        if block < blocks and within // LANES == lane * block_windows // (2 * LANES):
            key = combine(combine(seed_key, np.uint64(epoch)), BLOCKS_KEY)
            found[count] = block_windows * np.int64(permute(np.uint64(block), np.uint64(blocks), side, key))
            count += 1
    return found[:count]


@numba.njit(nogil=True, cache=True)
def _moved_blocks(places: NDArray[np.int64], blocks: int, epoch: int, seed_key: np.uint64) -> NDArray[np.int64]:
    """Return which blocks are read at places of an epoch's row of full blocks."""
    key = combine(combine(seed_key, np.uint64(epoch)), BLOCKS_KEY)
    side = side_of(np.uint64(max(1, blocks)))
    found = np.empty_like(places)
    for i in range(places.size):
        found[i] = np.int64(permute(np.uint64(places[i]), np.uint64(blocks), side, key))
    return found
