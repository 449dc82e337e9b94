"""The frames of a group of videos, gathered into parts that are written as they fill.

    begin -> add frames, which come with the starts of scenes -> regions, a few dozen frames at a time -> buffer
          -> finish: the video stays | abandon: its frames and parts are gone
    buffer full -> the videos before this one are a part, or this video's frames so far are, cut where a clip ends
    close -> the last part

Memory is one part and some frames, however long a video is. A part that is written while a video is under way holds
nothing of the videos before it beyond those that are finished, so that an abandoned one takes no other along.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import PartRecord, SourceSpan, Storage, VideoArrays, video_meta_line, write_video_part
from bytropix.gaad.maps import region_maps
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.scenes import SceneFrames

MAP_FRAMES = 32  # whose regions are found in one call
SPARE_FRAMES = 1  # of the buffer beyond a part: the first frame of a scene, whose regions need its second


@dataclass(slots=True, eq=False)
class _Video:
    """The video under way."""

    source: str
    facts: dict[str, Any]
    """What its rows say besides counts."""
    begin: int
    """Its first frame in the buffer."""
    before: int = 0
    """Its frames in parts that are written."""
    records: list[PartRecord] = field(default_factory=list)
    """These parts."""


class Gatherer:
    """Makes the parts of one group.

    Args:
        storage: The store's.
        split: Of the group.
        number: Of the group in its split.
        config: How large parts are, and what they hold.
        version: The version of the store that they are added in.
    """

    def __init__(self, storage: Storage, split: str, number: int, config: VideoConfig, version: int) -> None:
        self._storage, self._split, self._number, self._config, self._version = storage, split, number, config, version
        height, width = config.size
        room = config.part_frames + SPARE_FRAMES
        self._images = np.empty((room, height, width, 3), np.uint8)
        self._times = np.empty(room, np.float64)
        self._starts = np.empty(room, np.bool_)
        self._regions = np.empty((room, config.regions.regions, 4), np.float32)
        self._motion = np.empty((room, config.regions.motion_regions, 4), np.float32)
        self._count = self._mapped = 0  # frames in the buffer, and those whose regions are known
        self._last: NDArray[np.uint8] | None = None  # the frame before the buffer's first
        self._rows: list[dict[str, Any]] = []
        self._ends: list[int] = []
        self._records: list[PartRecord] = []
        self._video: _Video | None = None

    def begin(self, source: str, facts: dict[str, Any]) -> None:
        """Begin a video; the one under way, if there is one, is forgotten.

        Args:
            source: Its name in the manifest.
            facts: What its rows say besides counts: fps, duration, codec and so on.
        """
        if self._video is not None:
            self.abandon()
        self._video = _Video(source, facts, self._count)

    def add(self, frames: SceneFrames) -> None:
        """Take the next frames of the video.

        Raises:
            StoreError: A part that is full cannot be written.
        """
        done = 0
        while done < len(frames.images):
            if self._count == len(self._images):
                self._make_room()
            stop = min(self._count + len(frames.images) - done, len(self._images))
            taken = slice(done, done + stop - self._count)
            self._images[self._count : stop] = frames.images[taken]
            self._times[self._count : stop] = frames.times[taken]
            self._starts[self._count : stop] = frames.starts[taken]
            done, self._count = taken.stop, stop
            if self._count - self._mapped > MAP_FRAMES:
                self._map(self._settled())

    def finish(self, facts: dict[str, Any]) -> int:
        """Keep the video and return how many frames it has.

        Args:
            facts: What its last row says besides.
        """
        video = self._under_way()
        self._map(self._count)
        while self._count > self._config.part_frames:
            self._make_room()
        frames = video.before + self._count - video.begin
        if self._count > video.begin:
            self._end_video(self._count, facts)
        self._video = None
        return frames

    def abandon(self) -> None:
        """Forget the video: its frames, and the parts that hold nothing else."""
        video = self._under_way()
        self._count, self._mapped = video.begin, min(self._mapped, video.begin)
        if video.records:
            del self._records[-len(video.records) :]
            self._storage.remove([f"{part.folder}/{file.path}" for part in video.records for file in part.files])
        self._video = None

    def close(self) -> tuple[PartRecord, ...]:
        """Write what is left and return all parts.

        Raises:
            StoreError: It cannot be written.
        """
        if self._count:
            self._write(self._count)
        return tuple(self._records)

    def _under_way(self) -> _Video:
        assert self._video is not None, "a video begins before it is given frames"
        return self._video

    def _make_room(self) -> None:
        """Write the finished videos before this one as a part, or this one's frames up to where a clip ends."""
        video = self._under_way()
        self._map(self._settled())
        if video.begin:
            self._write(video.begin)
            video.begin = 0
            return
        stop = self._clips_end()
        frames = stop - video.begin
        self._end_video(stop, {})
        self._write(stop)
        video.before += frames
        video.records.append(self._records[-1])

    def _clips_end(self) -> int:
        """Return how many frames of the buffer are whole clips of their scenes, at most a part's worth."""
        most = self._config.part_frames
        scene = int(np.flatnonzero(self._starts[:most])[-1]) if self._starts[:most].any() else 0
        return scene + (most - scene) // self._config.clip_frames * self._config.clip_frames

    def _settled(self) -> int:
        """Return up to which frame regions can be found: a scene's first frame has those of its second."""
        return self._count - int(self._starts[self._count - 1])

    def _end_video(self, stop: int, facts: dict[str, Any]) -> None:
        """Add the video's row for the part that ends at `stop` in the buffer, or will."""
        video = self._under_way()
        row = {"source": video.source, "frames": stop - video.begin, "first": video.before}
        self._rows.append(row | video.facts | facts)
        self._ends.append(stop)

    def _map(self, stop: int) -> None:
        """Find the regions of frames up to `stop`, scene by scene: there is no motion from one scene to the next."""
        begin = self._mapped
        if stop <= begin:
            return
        bounds = begin + np.flatnonzero(self._starts[begin:stop])
        for first, last in zip([begin, *bounds.tolist()], [*bounds.tolist(), stop], strict=True):
            if first == last:
                continue
            previous = None if self._starts[first] else self._last if first == 0 else self._images[first - 1]
            regions, motion = region_maps(self._images[first:last], previous, self._config.regions)
            self._regions[first:last], self._motion[first:last] = regions, motion
        self._mapped = stop

    def _write(self, stop: int) -> None:
        """Write the first frames of the buffer as a part, and move the rest to its front."""
        scenes = np.flatnonzero(self._starts[1:stop]) + 1
        arrays = VideoArrays(
            frames=self._images[:stop],
            regions=self._regions[:stop],
            motion=self._motion[:stop],
            pts=self._times[:stop],
            video_ends=np.array(self._ends, np.int64),
            scene_ends=np.append(scenes, stop).astype(np.int64),
            video_meta=b"".join(video_meta_line(**row) for row in self._rows),
        )
        record = write_video_part(
            self._storage,
            self._split,
            self._config.layout.part_name(self._number, len(self._records)),
            arrays,
            layout=self._config.layout,
            clip_frames=self._config.clip_frames,
            spans=self._spans(),
            version=self._version,
        )
        self._records.append(record)
        self._last = self._images[stop - 1].copy()
        rest = self._count - stop
        for array in (self._images, self._times, self._starts, self._regions, self._motion):
            array[:rest] = array[stop : self._count]
        self._count, self._mapped = rest, self._mapped - stop
        self._rows, self._ends = [], []

    def _spans(self) -> tuple[SourceSpan, ...]:
        """Return what the part holds of each source: sources of one name that follow each other are one."""
        spans: list[SourceSpan] = []
        for row in self._rows:
            n_bytes = row["frames"] * self._config.frame_bytes
            if spans and spans[-1].source == row["source"]:
                spans[-1] = replace(spans[-1], n_bytes=spans[-1].n_bytes + n_bytes, documents=spans[-1].documents + 1)
                continue
            spans.append(SourceSpan(source=row["source"], n_bytes=n_bytes, documents=1, patches=0, at_cap=0, single=0))
        return tuple(spans)
