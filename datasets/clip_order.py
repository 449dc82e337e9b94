"""The endless shuffled order of a split's clips, and what chance decides of each: closed forms, no lists.

    position -> LaneOrder -> clip number -> scene, place in it ---------------> part, first frame, step, flipped
                          -> key of (seed, epoch, clip) -> step, flipped or not ->

So a clip is the same on whatever rank, thread or worker reads it, and another one in the next epoch.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.clips import ClipTable
from bytropix.datasets.lanes import LaneOrder
from bytropix.datasets.permutation import combine, key_of

CHOICES_KEY = np.uint64(3)  # what a key is for; 1 and 2 are those of the order itself


@dataclass(frozen=True, slots=True)
class Clips:
    """Some clips; all fields but `flipped` are i64 [k].

    Attributes:
        parts: The part that a clip lies in.
        starts: Its first frame there.
        steps: Frames of the part from one of its frames to the next.
        flipped: bool [k], whether it is mirrored.
        videos: Its video's number in the split.
        offsets: Its first frame in its video.
    """

    parts: NDArray[np.int64]
    starts: NDArray[np.int64]
    steps: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    videos: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __getitem__(self, rows: slice) -> "Clips":
        """Return some of them."""
        fields = (self.parts, self.starts, self.steps, self.flipped, self.videos, self.offsets)
        return Clips(*(field[rows] for field in fields))  # type: ignore[arg-type]


class ClipOrder:
    """The clips of a split by position: epoch * clips + place in the epoch.

    Args:
        table: The clips; at least one.
        frame_bytes: Of one frame; neighbouring clips of about 2 MiB are read in one round.
        seed: Any integer; names the order and the choices.
        flip: Share of the clips that are mirrored, 0 to 1.
    """

    def __init__(self, table: ClipTable, *, frame_bytes: int, seed: int, flip: float) -> None:
        self._table, self._key, self._flip = table, np.uint64(key_of(seed)), flip
        self._steps = np.sort(np.array(table.rule.steps, np.int64))
        self._lanes = LaneOrder(table.clips, min(table.rule.hop, table.rule.frames) * frame_bytes, seed)

    def numbers(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the clips at positions, both i64 [k]."""
        return self._lanes(positions)

    def clips(self, positions: NDArray[np.int64]) -> Clips:
        """Return the clips at positions, i64 [k]."""
        numbers = self._lanes(positions)
        scene, wished, fitting = self._table.places(numbers)
        choice, flipped = _chosen(positions // self._table.clips, numbers, fitting, self._flip, self._key)
        begins = self._table.begins(scene, wished, choice)
        scenes = self._table.scenes
        return Clips(
            scenes.parts[scene],
            scenes.begins[scene] + begins,
            self._steps[choice],
            flipped,
            scenes.videos[scene],
            scenes.offsets[scene] + begins,
        )

    def coming(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frames that whoever reads these positions needs in the next round, see `_stretches`."""
        return self._stretches(self._lanes.coming(positions))

    def at_hand(self, position: int, *, residue: int, ranks: int) -> NDArray[np.int64]:
        """Return the frames that positions p % ranks = residue need in a position's round, see `_stretches`."""
        return self._stretches(self._lanes.at_hand(position, residue=residue, ranks=ranks))

    def _stretches(self, firsts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return part, first frame and last but one of the clips of blocks, i64 [k, 3], whatever steps they take."""
        numbers = (firsts[:, None] + np.arange(self._lanes.block_windows)).ravel()
        scene, wished, fitting = self._table.places(numbers)
        begins = self._table.begins(scene, wished, fitting - 1)
        scenes = self._table.scenes
        stops = np.minimum(wished + self._table.rule.spans[fitting - 1], scenes.lengths[scene])
        return np.stack((scenes.parts[scene], scenes.begins[scene] + begins, scenes.begins[scene] + stops), axis=1)


@numba.njit(nogil=True, cache=True)
def _chosen(
    epochs: NDArray[np.int64], clips: NDArray[np.int64], fitting: NDArray[np.int64], flip: float, seed_key: np.uint64
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return which of the fitting steps each clip takes, and whether it is mirrored."""
    choice, flipped = np.empty_like(clips), np.empty(clips.size, dtype=np.bool_)
    for i in range(clips.size):
        key = combine(combine(combine(seed_key, np.uint64(epochs[i])), CHOICES_KEY), np.uint64(clips[i]))
        choice[i] = np.int64(((key >> np.uint64(32)) * np.uint64(fitting[i])) >> np.uint64(32))
        flipped[i] = float(key & np.uint64(0xFFFFFFFF)) < flip * 4294967296.0
    return choice, flipped
