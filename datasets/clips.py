"""Which clips a split has: a table of its scenes, and arithmetic.

    parts -> scenes (part, first frame, length, video) -> clips of each, counted -> clip number -> scene, place in it

A clip is `frames` frames of one scene, `step` frames apart. In a scene, clips begin every `hop` frames; the last one is
moved back to the scene's end where it would reach past it. So with one step of 1 and a hop of at most a clip, every
frame of a scene that is long enough lies in a clip. Shorter scenes have none, and are counted.

A part's border ends a scene: what goes on in the next part is a scene of its own there. What is kept is some 40 bytes a
scene, nothing a clip.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.batches import check_whole, is_whole
from bytropix.datasets.store import Store
from bytropix.datasets.store.video_part import VideoPart
from bytropix.errors import ConfigError, StoreError

_MOST_STEPS, _LONGEST_STEP, _LONGEST_CLIP, _LONGEST_HOP = 8, 999, 9999, 999_999  # their names fit in a stream's state


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRule:
    """How scenes are cut into clips.

    Attributes:
        frames: Frames of a clip.
        hop: Frames from the beginning of one clip to that of the next.
        steps: Frame steps that a clip may have; one that is named twice comes twice as often.
        cross_cuts: Whether a clip may go on behind a cut, though never in another video.

    Raises:
        ConfigError: A value is out of its range.
    """

    frames: int
    hop: int
    steps: tuple[int, ...] = (1,)
    cross_cuts: bool = False

    def __post_init__(self) -> None:
        check_whole(clip_frames=self.frames, hop=self.hop)
        if not 1 <= self.frames <= _LONGEST_CLIP:
            raise ConfigError(f"clip_frames must be in 1..{_LONGEST_CLIP}, got {self.frames}")
        if not 1 <= self.hop <= _LONGEST_HOP:
            raise ConfigError(f"hop must be in 1..{_LONGEST_HOP} frames, got {self.hop}")
        listed = isinstance(self.steps, tuple) and 1 <= len(self.steps) <= _MOST_STEPS
        if not listed or not all(is_whole(step) and 1 <= step <= _LONGEST_STEP for step in self.steps):
            raise ConfigError(
                f"steps must be 1 to {_MOST_STEPS} whole numbers in 1..{_LONGEST_STEP}, got {self.steps!r}"
            )

    @classmethod
    def of(
        cls,
        store: Store,
        frames: int | None = None,
        hop: int | None = None,
        steps: Sequence[int] = (1,),
        *,
        cross_cuts: bool = False,
    ) -> "ClipRule":
        """Return how to cut the scenes of a store; what is not given is as the store was made for.

        Raises:
            ConfigError: A value is out of its range, or not given and not known.
        """
        config = store.manifest.config
        found: Any = frames if frames is not None else config.get("clip_frames")
        if frames is None and not isinstance(found, int):
            raise ConfigError(f"{store.url}: does not say how many frames its clips have; give clip_frames")
        stride = hop if hop is not None else config.get("stride") or found  # a stride of 0 is a whole clip
        listed = steps if isinstance(steps, str) or not isinstance(steps, Iterable) else tuple(steps)
        return cls(frames=found, hop=stride, steps=listed, cross_cuts=cross_cuts)

    @property
    def spans(self) -> NDArray[np.int64]:
        """Frames from a clip's first to its last, both counted, i64 [steps], ascending."""
        return (self.frames - 1) * np.sort(np.array(self.steps, np.int64)) + 1

    @property
    def name(self) -> str:
        """All of it in a few letters."""
        return f"{self.frames}/{self.hop}/{','.join(map(str, sorted(self.steps)))}" + "/cuts" * self.cross_cuts


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is in no clip because its scene is too short.

    Attributes:
        scenes: Scenes without a clip.
        frames: Their frames.
        needed: Frames that a scene needs.
    """

    scenes: int
    frames: int
    needed: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.frames} frames of {self.scenes} scenes, each shorter than the {self.needed} frames of a clip"


@dataclass(frozen=True, slots=True)
class Scenes:
    """The scenes of a split, in order; all fields i64 [s].

    Attributes:
        parts: The part that a scene lies in.
        begins: Its first frame in that part.
        lengths: Its frames.
        videos: Its video's number in the split; a video that goes on in the next part keeps its number.
        offsets: Its first frame in its video.
    """

    parts: NDArray[np.int64]
    begins: NDArray[np.int64]
    lengths: NDArray[np.int64]
    videos: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[VideoPart], *, cross_cuts: bool, threads: int = 1) -> "Scenes":
        """Read where the scenes of parts end; with `cross_cuts`, a video's frames in a part are one scene.

        Raises:
            StoreError: A part cannot be read, or its scenes make no sense.
        """
        with ThreadPoolExecutor(threads, thread_name_prefix="bytropix-scenes") as executor:
            found = list(
                executor.map(lambda number: _scenes_of(parts[number], cross_cuts=cross_cuts), range(len(parts)))
            )
        counts = [len(begins) for begins, *_ in found]
        videos, seen = [], 0
        for _, _, rows, _, goes_on in found:
            first = seen - 1 if goes_on and seen else seen
            videos.append(rows + first)
            seen = first + int(rows[-1]) + 1
        return cls(
            np.repeat(np.arange(len(parts)), counts),
            _joined([begins for begins, *_ in found]),
            _joined([lengths for _, lengths, *_ in found]),
            _joined(videos),
            _joined([offsets for *_, offsets, _ in found]),
        )


class ClipTable:
    """The clips of a split, by number.

    Args:
        scenes: All scenes of the split.
        rule: How they are cut.

    Attributes:
        clips: How many clips there are.
        left_out: What is in none.
        longest: Frames of the longest scene.
    """

    def __init__(self, scenes: Scenes, rule: ClipRule) -> None:
        self.rule = rule
        self._spans = rule.spans
        least = int(self._spans[0])
        kept = scenes.lengths >= least
        self.left_out = LeftOut(int((~kept).sum()), int(scenes.lengths[~kept].sum()), least)
        self.longest = int(scenes.lengths.max(initial=0))
        self.scenes = Scenes(
            *(field[kept] for field in (scenes.parts, scenes.begins, scenes.lengths, scenes.videos, scenes.offsets))
        )
        self._ends = np.cumsum(1 - (least - self.scenes.lengths) // rule.hop, dtype=np.int64)
        self.clips = int(self._ends[-1]) if self._ends.size else 0

    def places(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the scene of clips, the frame of it that each would begin at, and how many steps fit, all i64 [k]."""
        scene = np.searchsorted(self._ends, numbers, side="right")
        before = np.where(scene > 0, self._ends[scene - 1], 0)
        fitting = np.searchsorted(self._spans, self.scenes.lengths[scene], side="right")
        return scene, (numbers - before) * self.rule.hop, fitting

    def begins(
        self, scene: NDArray[np.int64], wished: NDArray[np.int64], choice: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the frame of its scene that a clip begins at, i64 [k], moved back where it would reach past the end.

        Args:
            scene: i64 [k].
            wished: i64 [k], where it would begin.
            choice: i64 [k], which of the sorted steps it takes; one that fits.
        """
        last: NDArray[np.int64] = self.scenes.lengths[scene] - self._spans[choice]
        return np.minimum(wished, last, out=last)


def _scenes_of(
    part: VideoPart, *, cross_cuts: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], bool]:
    """Return the first frame, length, row of `video_meta` and place in the video of a part's scenes.

    The last item says whether the part's first video began in an earlier part.

    Raises:
        StoreError: They make no sense.
    """
    video_ends, scene_ends = (np.asarray(ends, np.int64) for ends in (part.video_ends, part.scene_ends))
    ends = video_ends if cross_cuts else scene_ends
    meta = part.video_meta()
    firsts = [row.get("first", 0) for row in meta]
    begins = np.concatenate((np.zeros(1, np.int64), ends[:-1])) if ends.size else ends
    rows = np.searchsorted(video_ends, begins, side="right")
    right = (
        all(type(first) is int and first >= 0 for first in firsts)
        and len(firsts) == video_ends.size
        and (np.diff(ends, prepend=0) > 0).all()
        and np.isin(video_ends, scene_ends).all()
        and (video_ends[-1:] == part.frames).all()
        and ends[-1:].sum() == part.frames
    )
    if not right:
        raise StoreError(f"{part.url}: its videos and scenes make no sense; do not trust it; ingest again")
    first_frames = np.concatenate((np.zeros(1, np.int64), video_ends[:-1])) if video_ends.size else video_ends
    offsets = begins - first_frames[rows] + np.array(firsts, np.int64)[rows]
    return begins, ends - begins, rows, offsets, bool(firsts and firsts[0] > 0)


def _joined(arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return arrays end to end."""
    return np.concatenate([np.empty(0, np.int64), *arrays])
