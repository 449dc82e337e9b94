"""Which window is read when: a closed form, not a list.

    position -> epoch, place in the epoch -> group -> window within the group (keyed permutation)
             -> block of the group (keyed permutation of all full blocks) -> window -> part, offset

A part of n bytes has windows of context + 1 bytes at 0, context, 2 context, ...; the last one is shifted
back to end with the part, so every byte but a part's first is predicted. The windows of all parts stand
in one row, cut into blocks of about 2 MiB. The blocks of an epoch are permuted and dealt into groups of
up to 32, and the windows of a group are permuted among themselves: a batch mixes about 32 places of the
corpus, while a reader of compressed blocks holds one group at a time. The partly filled block at the end
of the row belongs to the last group.

The order depends on the parts' sizes, the context and the seed, not on batch size, threads or worker
processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.permutation import combine, key_of, permute, side_of
from bytropix.errors import ConfigError

BLOCK_BYTES = 2 << 20
GROUP_BLOCKS = 32
BLOCKS_KEY, WINDOWS_KEY = np.uint64(1), np.uint64(2)  # what a key is for


@dataclass(frozen=True, slots=True)
class Places:
    """Where windows lie: `parts` i64 [k], indices into the part list, and `offsets` i64 [k], in bytes."""

    parts: NDArray[np.int64]
    offsets: NDArray[np.int64]


class WindowOrder:
    """The endless shuffled order of the windows of a list of parts.

    Args:
        part_bytes: Bytes of each part, in store order.
        context: Bytes a model sees; a window has one more. At least 1.
        seed: Any integer.
        split: Name of the split, for messages.

    Raises:
        ConfigError: The context is below 1, or no part is as long as a window.

    Attributes:
        windows: Windows in an epoch.
        skipped_parts: Parts shorter than a window, of which nothing is read.
    """

    def __init__(self, part_bytes: Sequence[int], *, context: int, seed: int, split: str = "train") -> None:
        if context < 1:
            raise ConfigError(f"context must be at least 1 byte, got {context}")
        sizes = np.asarray(part_bytes, dtype=np.int64)
        longest = int(sizes.max(initial=1))
        if longest < context + 1:
            raise ConfigError(
                f"context {context} is longer than split {split!r}: a window needs {context + 1} bytes of "
                f"one part, the longest has {longest}; take a context of {longest - 1} at most or ingest more"
            )
        kept = np.flatnonzero(sizes >= context + 1)
        counts = -(-(sizes[kept] - 1) // context)
        self.context = context
        self.seed = seed
        self.windows = int(counts.sum())
        self.skipped_parts = int(sizes.size - kept.size)
        self._part_index = kept
        self._last_offset = sizes[kept] - (context + 1)
        self._first_window = np.concatenate(([0], np.cumsum(counts)))
        self._block_windows = max(1, BLOCK_BYTES // context)

    def places(self, positions: NDArray[np.int64]) -> Places:
        """Return the places of windows, i64 [k], each given as epoch * windows + its position in the epoch."""
        parts = np.empty_like(positions)
        offsets = np.empty_like(positions)
        _places(
            positions,
            self._first_window,
            self._last_offset,
            self._part_index,
            self.context,
            self._block_windows,
            np.uint64(key_of(self.seed)),
            parts,
            offsets,
        )
        return Places(parts, offsets)


@numba.njit(nogil=True, cache=True)
def _places(
    positions: NDArray[np.int64],
    first_window: NDArray[np.int64],
    last_offset: NDArray[np.int64],
    part_index: NDArray[np.int64],
    context: int,
    block_windows: int,
    seed_key: np.uint64,
    parts: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> None:
    """Fill `parts` and `offsets`; what a run of positions shares is computed at the first of them."""
    total = first_window[-1]
    blocks = total // block_windows
    groups = max(1, -(-blocks // GROUP_BLOCKS))
    block_side = side_of(np.uint64(max(1, blocks)))
    this_epoch = this_group = start = np.int64(-1)
    size = side = window_key = block_key = key = np.uint64(0)
    for i in range(positions.size):
        epoch = positions[i] // total
        position = positions[i] - epoch * total
        if epoch != this_epoch:
            this_epoch, this_group = epoch, np.int64(-1)
            block_key = combine(combine(seed_key, np.uint64(epoch)), BLOCKS_KEY)
            window_key = combine(combine(seed_key, np.uint64(epoch)), WINDOWS_KEY)
        # Group g holds the permuted blocks from g * blocks // groups on, and the last one also the partly
        # filled block: this is the largest g whose first block is not after the position's.
        block = position // block_windows
        group = groups - 1 if block >= blocks else ((block + 1) * groups - 1) // blocks
        if group != this_group:
            this_group = group
            start = (group * blocks // groups) * block_windows
            stop = total if group == groups - 1 else ((group + 1) * blocks // groups) * block_windows
            size = np.uint64(stop - start)
            side = side_of(size)
            key = combine(window_key, np.uint64(group))
        place = start + np.int64(permute(np.uint64(position - start), size, side, key))
        block = place // block_windows
        window = place
        if block < blocks:
            moved = np.int64(permute(np.uint64(block), np.uint64(blocks), block_side, block_key))
            window += (moved - block) * block_windows
        part = np.searchsorted(first_window, window, side="right") - 1
        parts[i] = part_index[part]
        offsets[i] = min((window - first_window[part]) * context, last_offset[part])
