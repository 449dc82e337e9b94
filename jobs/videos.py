"""The videos of a store, each put together from the parts that hold it.

parts -> rows of video_meta, ends of videos and scenes, times -> videos, in order -> frames of one, with boxes
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.clips import ClipRule, ClipTable, Scenes
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, StoreError
from bytropix.gaad.config import DecompositionName, rectangle_count
from bytropix.jobs.drawing import Outline, outlines
from bytropix.jobs.store_report import SPLITS

if TYPE_CHECKING:
    from bytropix.datasets.store import VideoPart


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames of a video that lie in one part."""

    part: int
    """Number of the part in its split."""
    start: int
    """First frame in the part."""
    stop: int
    """Past its last frame."""


@dataclass(slots=True)
class Video:
    """A video of a store.

    Attributes:
        split: train or val.
        meta: Its row of `video_meta`, the first where several parts hold it.
        pieces: Where its frames lie, in order.
        scenes: Seconds of each scene; the end of a part ends one.
        begins: Seconds in the video at which each of them begins.
    """

    split: str
    meta: dict[str, Any]
    pieces: list[Piece] = field(default_factory=list)
    scenes: list[float] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)
    bad_packets: int = 0
    corrupt: int = 0

    @property
    def source(self) -> str:
        """Name of the source."""
        return str(self.meta["source"])

    @property
    def frames(self) -> int:
        """Stored frames."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def seconds(self) -> float:
        """What the stored frames fill."""
        return sum(self.scenes)

    def row(self) -> dict[str, Any]:
        """Return what there is to say of it, as plain data."""
        return {
            "source": self.source,
            "split": self.split,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "scenes": len(self.scenes),
            "fps": self.meta.get("fps", 0),
            "source_seconds": self.meta.get("duration", 0),
            "width": self.meta.get("width", 0),
            "height": self.meta.get("height", 0),
            "codec": self.meta.get("codec", ""),
            "decoder": self.meta.get("decoder", ""),
            "bad_packets": self.bad_packets,
            "corrupt": self.corrupt,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A frame with what is drawn over it."""

    image: NDArray[np.uint8]
    """u8 (h, w, 3)."""
    boxes: list[Outline]
    seconds: float
    """Its time in the video."""


def all_videos(store: Store) -> list[Video]:
    """Return the videos of a store, train before val, in the order they are stored.

    Reads the small arrays of every part, and no frame.

    Raises:
        StoreError: One of them is damaged.
    """
    found: list[Video] = []
    for split in SPLITS:
        for number, part in enumerate(store.video_parts(split)):
            _add_part(found, split, number, part)
    return found


def _add_part(found: list[Video], split: str, number: int, part: "VideoPart") -> None:
    """Add the videos of a part; its first one may go on from the part before."""
    start = 0
    for row, stop in zip(part.video_meta(), part.video_ends.tolist(), strict=True):
        if not (row.get("first", 0) and found and (found[-1].split, found[-1].source) == (split, row["source"])):
            found.append(Video(split, row))
        video = found[-1]
        video.pieces.append(Piece(number, start, stop))
        video.bad_packets = max(video.bad_packets, int(row.get("bad_packets", 0)))
        video.corrupt = max(video.corrupt, int(row.get("corrupt", 0)))
        _add_scenes(video, part, start, stop)
        start = stop


def _add_scenes(video: Video, part: "VideoPart", start: int, stop: int) -> None:
    """Add the scenes of frames `start` to `stop` of a part."""
    times = part.pts[start:stop]
    step = frame_step(times) or (1 / video.meta["fps"] if video.meta.get("fps") else 0.0)
    ends = part.scene_ends
    ends = ends[(ends > start) & (ends <= stop)] - start
    begins = np.concatenate(([0], ends[:-1]))
    video.begins += times[begins].tolist()
    video.scenes += (times[ends - 1] - times[begins] + step).tolist()


def frame_step(times: NDArray[np.float64]) -> float:
    """Return the usual time from one frame to the next, in seconds; 0 of a single frame.

    Args:
        times: f64 (t,), presentation times of frames of one video, rising.
    """
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def spread_frames(video: Video, count: int) -> list[tuple[int, int]]:
    """Return `count` frames, or all if there are fewer, evenly over a video, as (part, frame in it)."""
    total = video.frames
    count = min(count, total)
    return [_place(video, (2 * k + 1) * total // (2 * count)) for k in range(count)]


def _place(video: Video, frame: int) -> tuple[int, int]:
    """Return where a frame of a video lies."""
    for piece in video.pieces:
        length = piece.stop - piece.start
        if frame < length:
            return piece.part, piece.start + frame
        frame -= length
    raise IndexError(frame)


def middle_stretch(video: Video, count: int, per_second: float, parts: Sequence["VideoPart"]) -> tuple[int, range]:
    """Return the part and the frames of a stretch in the middle of the longest piece, about `per_second` of them."""
    piece = max(video.pieces, key=lambda one: one.stop - one.start)
    length = piece.stop - piece.start
    step = frame_step(parts[piece.part].pts[piece.start : piece.stop])
    every = min(max(round(1 / (per_second * step)) if step else 1, 1), max(length // count, 1))
    count = min(count, length // every)
    begin = piece.start + (length - count * every) // 2
    return piece.part, range(begin, begin + count * every, every)


def shown_frames(store: Store, part: "VideoPart", frames: range) -> Iterator[Shown]:
    """Give frames of a part with the outlines of their regions and motion regions.

    Args:
        store: The part's.
        part: One of its parts.
        frames: Which, rising, at least one.

    Raises:
        StoreError: They are damaged.
    """
    start, stop = frames[0], frames[-1] + 1
    images = part.read_frames(start, stop, frames.step)
    regions, motion = part.regions(start, stop)[:: frames.step], part.motion(start, stop)[:: frames.step]
    rectangles = _rectangles(store, regions.shape[1])
    shape = (part.height, part.width)
    for image, boxes, moving, time in zip(images, regions, motion, part.pts[start : stop : frames.step], strict=True):
        yield Shown(image, outlines(boxes, moving, shape, rectangles), float(time))


def region_settings(store: Store) -> dict[str, Any]:
    """Return the settings of regions and motion regions of a store, as its manifest holds them; {} if it has none."""
    found = store.manifest.config.get("regions")
    return dict(found) if isinstance(found, dict) else {}


def _rectangles(store: Store, regions: int) -> int:
    """Return how many of the regions of a frame are rectangles; all where the store does not say how they were made."""
    names: tuple[DecompositionName, ...] = get_args(DecompositionName)
    said = region_settings(store).get("decomposition")
    return next((rectangle_count(name, regions) for name in names if name == said), regions)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clip lies."""

    part: int
    """Number of the part in its split."""
    frames: range
    """Its frames in that part."""
    clips: int
    """How many clips the split has."""


def clip_place(store: Store, split: str, number: int) -> Place:
    """Return where a clip of a split lies, as streams cut the store unless they are told otherwise.

    Raises:
        StoreError: The split has no clips.
        ConfigError: It has no such clip.
    """
    parts = store.video_parts(split)
    if not parts:
        raise StoreError(f"{store.url}: split {split!r} holds no videos; --split takes {', '.join(store.splits)}")
    rule = ClipRule.of(store)
    table = ClipTable(Scenes.of(parts, cross_cuts=False), rule)
    if not table.clips:
        raise StoreError(
            f"{store.url}: split {split!r} has no clip: its scenes are shorter than the {rule.frames} frames of one"
        )
    if not 0 <= number < table.clips:
        raise ConfigError(f"--clip must lie in 0..{table.clips - 1} for split {split!r} of {store.url}, got {number}")
    scenes, wished, _ = table.places(np.array([number]))
    begins = table.begins(scenes, wished, np.zeros(1, np.int64))
    begin = int(table.scenes.begins[scenes[0]] + begins[0])
    return Place(int(table.scenes.parts[scenes[0]]), range(begin, begin + rule.frames), table.clips)
