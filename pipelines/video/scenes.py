"""Scenes of a video: where a hard cut begins one, which frames are black, which stand still.

    frames u8 [k, h, w, 3] -> cells (means of a 32 x 32 grid, of an 8 x 8 grid) -> change from frame to frame
                           -> a cut? (needs the next 0.15 s) | black? | still since? -> kept frames and their marks

Only the grids are compared, never pixels: noise and coding faults average out, and the cost does not grow with the
frame beyond the one pass that takes the means.

**Cuts.** Between two 8 x 8 grids, `moved` is the mean absolute difference in levels (0 to 255), and `changed` is
`moved` times one minus the correlation of the grids about their means: what more or less light on the same picture
explains does not count, so fades and exposure steps change little. Frame i begins a scene if
`changed[i] >= floor + moved usually`, where "usually" is the greater of the median of the frames before it and of those
soon after it (a pan, a zoom, a fade or a shaking camera goes on, a cut does not), and if no frame of the 0.15 s before
it looks like one of the 0.15 s from it on (a flash comes back to the picture it interrupted). A scene also begins where
a picture comes up again after 0.15 s of black. Cross-fades are not found.

**Black.** The luma of 98 % of the 32 x 32 cells is at most the level.

**Frozen.** The picture has stayed the same for `frozen_seconds`: no cell is more than 3 levels, and the cells on
average not more than 0.75, from what they were when it came to rest. The first `frozen_seconds` are not frozen.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError
from bytropix.pipelines.video.cells import FINE, cell_means, differences, least_change, pool

FLASH_SECONDS, FLASH_FRAMES = 0.15, 8  # how far ahead a cut is decided, whichever is less
PAST_FRAMES = 8  # what "usually" looks back on
BLACK_SHARE = 0.98
STILL_CELL, STILL_MEAN = 3.0, 0.75  # levels
NEAR = 1e-6  # seconds that sums of times may be off
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneRules:
    """What counts as a cut, as black and as frozen, and what is dropped.

    Raises:
        ConfigError: A value is out of its range.
    """

    cut_levels: float = 8.0
    """Least change of a cut in levels of 255; smaller finds more."""
    black_level: int = 24
    """Greatest luma of a black picture, 0 to 255."""
    frozen_seconds: float = 0.5
    """A picture that has stood still so long is frozen."""
    keep_cuts: bool = False
    """Let scenes, and so clips, go on across cuts: only gaps end them."""
    drop_black: bool = False
    """Leave out black frames."""
    drop_frozen: bool = False
    """Leave out frozen frames."""

    def __post_init__(self) -> None:
        if not 0 < self.cut_levels <= 255:
            raise ConfigError(f"cut_levels must be above 0 and at most 255, got {self.cut_levels}")
        if not 0 <= self.black_level <= 255:
            raise ConfigError(f"black_level must be a luma from 0 to 255, got {self.black_level}")
        if not self.frozen_seconds > 0:
            raise ConfigError(f"frozen_seconds must be above 0, got {self.frozen_seconds}")


@dataclass(frozen=True, slots=True, eq=False)
class SceneFrames:
    """Frames that are kept, in order, and what was seen in them."""

    images: NDArray[np.uint8]
    """u8 [k, h, w, 3]"""
    times: NDArray[np.float64]
    """f64 [k], seconds."""
    starts: NDArray[np.bool_]
    """bool [k]: a scene begins here; always true of the first frame and of the first one behind a dropped stretch."""
    black: NDArray[np.bool_]
    """bool [k]"""
    frozen: NDArray[np.bool_]
    """bool [k]"""

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, which: slice | NDArray[np.bool_]) -> "SceneFrames":
        """Return some of the frames."""
        return SceneFrames(
            self.images[which], self.times[which], self.starts[which], self.black[which], self.frozen[which]
        )


class SceneFinder:
    """Marks the frames of one video, chunk by chunk; how they are chunked makes no difference.

    Attributes:
        frames: Frames given out so far.
        cuts: Frames so far at which a scene begins, the video's first frame and gaps not counted.
        black: Black frames so far, dropped or not.
        frozen: Frozen frames so far, dropped or not.
    """

    def __init__(self, rules: SceneRules = SceneRules()) -> None:
        self.rules = rules
        self.frames = self.cuts = self.black = self.frozen = 0
        self._held: list[SceneFrames] = []  # chunks not yet given out; `starts` says only where light came back
        self._first = 0  # place of the first held frame in the history below
        self._cells = np.zeros((0, 0), np.float32)  # coarse grids of a few frames past and of those held
        self._times = np.zeros(0)
        self._moved = np.zeros(0, np.float32)
        self._changed = np.zeros(0, np.float32)
        self._rest = np.zeros((0, 0), np.float32)  # fine grid of the frame where the picture came to rest
        self._since = np.full(2, np.nan)  # when it came to rest; since when it has been black
        self._gap = True  # whether the frame before the first held one was dropped

    def feed(self, images: NDArray[np.uint8], times: NDArray[np.float64]) -> SceneFrames:
        """Take the next frames and return those of earlier chunks that are decided by them.

        A chunk is given out as a whole, its images where they were: they must not change meanwhile.

        Args:
            images: u8 [k, h, w, 3], of one size throughout.
            times: f64 [k], when each is shown, in seconds, rising.
        """
        if not len(images):
            return SceneFrames(images, times, *np.zeros((3, 0), np.bool_))
        rows, columns = (min(FINE, side) for side in images.shape[1:3])
        fine = cell_means(np.ascontiguousarray(images), rows, columns)
        coarse = pool(fine, rows, columns)
        if not self._cells.size:
            self._rest = fine[0].copy()
            self._cells = np.zeros((0, coarse.shape[1]), np.float32)
        black, frozen, back = self._watch(fine, times)
        self._held.append(SceneFrames(images, times, back, black, frozen))
        known = len(self._cells)
        self._cells = np.concatenate([self._cells, coarse])
        self._times = np.concatenate([self._times, times])
        moved, changed = differences(self._cells[max(known - 1, 0) :])
        first = [] if known else [np.zeros(1, np.float32)]
        self._moved = np.concatenate([self._moved, *first, moved])
        self._changed = np.concatenate([self._changed, *first, changed])
        return self._give(self._decided())

    def finish(self) -> SceneFrames:
        """Return the frames that were held back; the video is over, or breaks off here."""
        if not self._held:
            return SceneFrames(np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0), *np.zeros((3, 0), np.bool_))
        return self._give(len(self._times))

    def _watch(
        self, fine: NDArray[np.float32], times: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which frames are black, which are frozen, and at which light comes back after black."""
        black, frozen, back = np.zeros((3, len(fine)), np.bool_)
        level, seconds = self.rules.black_level + 0.5, self.rules.frozen_seconds
        _watch(fine, times, self._rest, self._since, level, seconds, black, frozen, back)
        return black, frozen, back

    def _decided(self) -> int:
        """Return the place in the history up to which everything is known that decides about a frame."""
        timely = int(np.searchsorted(self._times + FLASH_SECONDS, self._times[-1]))
        return max(self._first, timely, len(self._times) - FLASH_FRAMES)

    def _give(self, stop: int) -> SceneFrames:
        """Give out the held chunks that end before a place in the history, less what is dropped."""
        ends = self._first + np.cumsum([len(chunk) for chunk in self._held])
        count = int(np.searchsorted(ends, stop, side="right"))
        stop = int(ends[count - 1]) if count else self._first
        out = _join(self._held[:count]) if count else self._held[0][:0]
        self._held = self._held[count:]
        starts = out.starts.copy()
        for place in self._first + np.flatnonzero(self._changed[self._first : stop] >= self.rules.cut_levels):
            starts[place - self._first] |= self._is_cut(int(place))
        starts &= not self.rules.keep_cuts
        past = max(0, stop - PAST_FRAMES - 1)
        self._cells, self._times = self._cells[past:], self._times[past:]
        self._moved, self._changed, self._first = self._moved[past:], self._changed[past:], stop - past
        self.cuts += int(starts.sum())
        self.black += int(out.black.sum())
        self.frozen += int(out.frozen.sum())
        dropped = (out.black & self.rules.drop_black) | (out.frozen & self.rules.drop_frozen)
        gaps = np.concatenate([[self._gap], dropped])
        self._gap = bool(gaps[-1])
        starts |= gaps[:-1]
        kept = SceneFrames(out.images, out.times, starts, out.black, out.frozen)
        if dropped.any():
            kept = kept[~dropped]
        self.frames += len(kept)
        return kept

    def _is_cut(self, place: int) -> bool:
        """Whether a frame that differs from the one before it begins a scene; see the module's rule."""
        times = self._times
        soon = int(np.searchsorted(times, times[place] + FLASH_SECONDS, side="right"))
        soon = min(soon, place + 1 + FLASH_FRAMES)
        usual = max(_median(self._moved[max(1, place - PAST_FRAMES) : place]), _median(self._moved[place + 1 : soon]))
        least = self.rules.cut_levels + usual
        if self._changed[place] < least:
            return False
        lately = int(np.searchsorted(times, times[place - 1] - FLASH_SECONDS, side="left"))
        lately = max(lately, place - 1 - FLASH_FRAMES)
        return bool(least_change(self._cells[lately:place], self._cells[place:soon]) >= least)


@numba.njit(cache=True, nogil=True)
def _watch(
    fine: NDArray[np.float32],
    times: NDArray[np.float64],
    rest: NDArray[np.float32],
    since: NDArray[np.float64],
    level: float,
    seconds: float,
    black: NDArray[np.bool_],
    frozen: NDArray[np.bool_],
    back: NDArray[np.bool_],
) -> None:
    """Write which frames are black, which stand still for a while, where light comes back; keep `rest` and `since`."""
    for k in range(len(fine)):
        lit = 0
        for j in range(0, rest.size, 3):
            lit += fine[k, j] * LUMA[0] + fine[k, j + 1] * LUMA[1] + fine[k, j + 2] * LUMA[2] > level
        black[k] = lit * 3 <= (1 - BLACK_SHARE) * rest.size
        total, most = np.float32(0), np.float32(0)
        for j in range(rest.size):
            gone = abs(fine[k, j] - rest[j])
            total += gone
            most = max(most, gone)
        if np.isnan(since[0]) or most > STILL_CELL or total > np.float32(STILL_MEAN) * rest.size:
            rest[:] = fine[k]
            since[0] = times[k]
        frozen[k] = times[k] - since[0] >= seconds - NEAR
        if black[k] and np.isnan(since[1]):
            since[1] = times[k]
        elif not black[k]:
            back[k] = times[k] - since[1] >= FLASH_SECONDS - NEAR  # never of NaN
            since[1] = np.nan


def _median(values: NDArray[np.float32]) -> float:
    """Return the lower median, 0 of nothing."""
    return float(np.sort(values)[(len(values) - 1) // 2]) if len(values) else 0.0


def _join(chunks: list[SceneFrames]) -> SceneFrames:
    """Return chunks as one; a single one is not copied."""
    if len(chunks) == 1:
        return chunks[0]
    return SceneFrames(
        np.concatenate([chunk.images for chunk in chunks]),
        np.concatenate([chunk.times for chunk in chunks]),
        np.concatenate([chunk.starts for chunk in chunks]),
        np.concatenate([chunk.black for chunk in chunks]),
        np.concatenate([chunk.frozen for chunk in chunks]),
    )
