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

FINE, COARSE = 32, 8  # cells a side, or as many as the frame has pixels
MOST_ROWS = 128  # of a higher frame only about so many rows are looked at
FLASH_SECONDS, FLASH_FRAMES = 0.15, 8  # how far ahead a cut is decided, whichever is less
PAST_FRAMES = 8  # what "usually" looks back on
FLAT = 16.0  # variance in squared levels below which a grid has no structure to correlate
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
        self._held: SceneFrames | None = None  # fed and not yet given out; `starts` says only where light came back
        self._first = 0  # place of the first held frame in the history below
        self._cells = np.zeros((0, 0), np.float32)  # coarse grids of a few frames past and of those held
        self._times = np.zeros(0)
        self._moved = np.zeros(0, np.float32)
        self._changed = np.zeros(0, np.float32)
        self._rest = np.zeros((0, 0), np.float32)  # fine grid of the frame where the picture came to rest
        self._since = np.full(2, np.nan)  # when it came to rest; since when it has been black
        self._gap = True  # whether the frame before the first held one was dropped

    def feed(self, images: NDArray[np.uint8], times: NDArray[np.float64]) -> SceneFrames:
        """Take the next frames and return those that are decided; the last eight at most are held back.

        Args:
            images: u8 [k, h, w, 3], of one size throughout.
            times: f64 [k], when each is shown, in seconds, rising.
        """
        if not len(images):
            return SceneFrames(images, times, *np.zeros((3, 0), np.bool_))
        rows, columns = (min(FINE, side) for side in images.shape[1:3])
        fine = cell_means(images, rows, columns)
        coarse = _pool(fine, rows, columns)
        if self._held is None:
            self._rest = fine[0].copy()
            self._cells = np.zeros((0, coarse.shape[1]), np.float32)
        black, frozen, back = self._watch(fine, times)
        arrived = SceneFrames(images, times, back, black, frozen)
        self._held = arrived if self._held is None or not len(self._held) else _join(self._held, arrived)
        known = len(self._cells)
        self._cells = np.concatenate([self._cells, coarse])
        self._times = np.concatenate([self._times, times])
        moved, changed = _differences(self._cells[max(known - 1, 0) :])
        first = [] if known else [np.zeros(1, np.float32)]
        self._moved = np.concatenate([self._moved, *first, moved])
        self._changed = np.concatenate([self._changed, *first, changed])
        return self._give(self._decided())

    def finish(self) -> SceneFrames:
        """Return the frames that were held back; the video is over, or breaks off here."""
        if self._held is None:
            return SceneFrames(np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0), *np.zeros((3, 0), np.bool_))
        return self._give(len(self._times))

    def _watch(
        self, fine: NDArray[np.float32], times: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which frames are black, which are frozen, and at which light comes back after black."""
        luma = fine.reshape(len(fine), -1, 3) @ LUMA
        black = np.asarray((luma <= self.rules.black_level + 0.5).mean(1) >= BLACK_SHARE)
        frozen, back = np.zeros((2, len(fine)), np.bool_)
        _watch_stills(fine, times, black, self._rest, self._since, self.rules.frozen_seconds, frozen, back)
        return black, frozen, back

    def _decided(self) -> int:
        """Return the place in the history up to which everything is known that decides about a frame."""
        behind = np.searchsorted(self._times, self._times + FLASH_SECONDS, side="right")
        ahead = np.arange(1, len(behind) + 1) + FLASH_FRAMES
        whole = (behind < len(self._times)) | (ahead <= len(self._times))
        return max(self._first, len(whole) if whole.all() else int(whole.argmin()))

    def _give(self, stop: int) -> SceneFrames:
        """Give out the held frames before a place in the history, less what is dropped."""
        assert self._held is not None
        count = stop - self._first
        held = self._held
        out = SceneFrames(*(array[:count] for array in _arrays(held)))
        self._held = SceneFrames(*(array[count:].copy() for array in _arrays(held)))
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
            kept = SceneFrames(*(array[~dropped] for array in _arrays(kept)))
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
        return bool(_least_change(self._cells[lately:place], self._cells[place:soon]) >= least)


@numba.njit(cache=True, nogil=True)
def cell_means(frames: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float32]:
    """Return the means of a grid of cells over each frame, f32 [k, rows * columns * 3].

    Args:
        frames: u8 [k, h, w, 3]; of a high frame some rows are passed over.
        rows: Rows of cells, at most h.
        columns: Columns of cells, at most w.
    """
    count, height, width = frames.shape[:3]
    step = max(1, height // max(MOST_ROWS, rows))
    lines = np.ascontiguousarray(frames).reshape(count, height, width * 3)
    means = np.empty((count, rows * columns * 3), np.float32)
    sums = np.empty(width * 3, np.uint32)
    for k in range(count):
        for row in range(rows):
            top, bottom = row * height // rows, (row + 1) * height // rows
            sums[:] = 0
            for y in range(top, bottom, step):
                line = lines[k, y]
                for x in range(width * 3):
                    sums[x] += line[x]
            height_used = (bottom - top + step - 1) // step
            for column in range(columns):
                left, right = column * width // columns, (column + 1) * width // columns
                red, green, blue = 0, 0, 0
                for x in range(3 * left, 3 * right, 3):
                    red += sums[x]
                    green += sums[x + 1]
                    blue += sums[x + 2]
                place, size = (row * columns + column) * 3, np.float32(height_used * (right - left))
                means[k, place], means[k, place + 1], means[k, place + 2] = red / size, green / size, blue / size
    return means


@numba.njit(cache=True, nogil=True)
def _pool(fine: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Return the coarse grids of fine ones, f32 [k, cells * 3]."""
    coarse_rows, coarse_columns = min(COARSE, rows), min(COARSE, columns)
    coarse = np.zeros((len(fine), coarse_rows * coarse_columns * 3), np.float32)
    for k in range(len(fine)):
        for row in range(coarse_rows):
            top, bottom = row * rows // coarse_rows, (row + 1) * rows // coarse_rows
            for column in range(coarse_columns):
                left, right = column * columns // coarse_columns, (column + 1) * columns // coarse_columns
                place, size = (row * coarse_columns + column) * 3, np.float32((bottom - top) * (right - left))
                for y in range(top, bottom):
                    for j in range((y * columns + left) * 3, (y * columns + right) * 3):
                        coarse[k, place + j % 3] += fine[k, j] / size
    return coarse


@numba.njit(cache=True, nogil=True)
def _compare(one: NDArray[np.float32], two: NDArray[np.float32]) -> tuple[float, float]:
    """Return how far the second of two grids [cells * 3] has moved and changed from the first, in levels."""
    cells = one.size // 3
    moved = 0.0
    mean = np.zeros((2, 3))
    for j in range(one.size):
        moved += abs(one[j] - two[j])
        mean[0, j % 3] += one[j]
        mean[1, j % 3] += two[j]
    mean /= cells
    both, first, second = 0.0, 0.0, 0.0
    for j in range(one.size):
        a, b = one[j] - mean[0, j % 3], two[j] - mean[1, j % 3]
        both += a * b
        first += a * a
        second += b * b
    moved /= one.size
    likeness = both / (np.sqrt(first * second) + FLAT * one.size)
    return moved, moved * (1.0 - likeness)


@numba.njit(cache=True, nogil=True)
def _differences(cells: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how far each grid but the first has moved and changed from the one before it."""
    count = max(0, len(cells) - 1)
    moved, changed = np.empty(count, np.float32), np.empty(count, np.float32)
    for k in range(count):
        moved[k], changed[k] = _compare(cells[k], cells[k + 1])
    return moved, changed


@numba.njit(cache=True, nogil=True)
def _least_change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return the least change between any of the grids before and any of those after."""
    least = np.inf
    for j in range(len(before)):
        for k in range(len(after)):
            least = min(least, _compare(before[j], after[k])[1])
    return least


@numba.njit(cache=True, nogil=True)
def _watch_stills(
    fine: NDArray[np.float32],
    times: NDArray[np.float64],
    black: NDArray[np.bool_],
    rest: NDArray[np.float32],
    since: NDArray[np.float64],
    frozen_seconds: float,
    frozen: NDArray[np.bool_],
    back: NDArray[np.bool_],
) -> None:
    """Write which frames have stood still for a while, and at which light comes back; keep `rest` and `since`."""
    for k in range(len(fine)):
        total, most = 0.0, 0.0
        for j in range(rest.size):
            gone = abs(fine[k, j] - rest[j])
            total += gone
            most = max(most, gone)
        if np.isnan(since[0]) or most > STILL_CELL or total > STILL_MEAN * rest.size:
            rest[:] = fine[k]
            since[0] = times[k]
        frozen[k] = times[k] - since[0] >= frozen_seconds - NEAR
        if black[k] and np.isnan(since[1]):
            since[1] = times[k]
        elif not black[k]:
            back[k] = times[k] - since[1] >= FLASH_SECONDS - NEAR  # never of NaN
            since[1] = np.nan


def _median(values: NDArray[np.float32]) -> float:
    """Return the lower median, 0 of nothing."""
    return float(np.sort(values)[(len(values) - 1) // 2]) if len(values) else 0.0


def _arrays(frames: SceneFrames) -> tuple[NDArray[np.generic], ...]:
    """Return the arrays of frames in the order of the class."""
    return frames.images, frames.times, frames.starts, frames.black, frames.frozen


def _join(one: SceneFrames, two: SceneFrames) -> SceneFrames:
    """Return frames followed by frames."""
    return SceneFrames(*(np.concatenate(pair) for pair in zip(_arrays(one), _arrays(two), strict=True)))
