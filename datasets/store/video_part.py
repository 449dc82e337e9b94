"""What a part of video is, whatever its format: frames, boxes and times, read by ranges, checked on first touch.

    VideoArrays -> a format's encode -> files        files -> a format's VideoPart -> read_frames, regions, motion

Frames of all videos of a part lie end to end, and all have one size. Frames may lie as coded units, each a stretch of
frames that is decoded by itself; a conversion carries units over as they are.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.part import parse_rows
from bytropix.datasets.store.part_files import PartFiles
from bytropix.datasets.store.remote_file import later
from bytropix.datasets.store.schema import PartRecord, dump_row
from bytropix.datasets.store.storage import Storage
from bytropix.errors import StoreError

UnitCodec = Literal["jpeg", "h264"]
NO_BOX = np.zeros(4, np.float32)  # padding: a box without area is none
RGB = 3


@dataclass(frozen=True, slots=True, eq=False)
class CodedFrames:
    """Frames as the units that an image or video codec made of them."""

    codec: UnitCodec
    shape: tuple[int, int, int, int]
    """Frames, height, width, 3."""
    data: NDArray[np.uint8]
    """The units, end to end."""
    unit_ends: NDArray[np.int64]
    """i64 [u], where each ends in `data`."""
    unit_stops: NDArray[np.int64]
    """i64 [u], the frame behind each one's last."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoArrays:
    """The arrays of a part of video in memory."""

    frames: NDArray[np.uint8] | CodedFrames
    """u8 [t, h, w, 3], RGB; or coded already."""
    regions: NDArray[np.float32]
    """f32 [t, r, 4]: x0, y0, x1, y1 in pixels of the stored frame; all 0 where there is no box."""
    motion: NDArray[np.float32]
    """f32 [t, m, 4], the same."""
    pts: NDArray[np.float64]
    """f64 [t], seconds in the video."""
    video_ends: NDArray[np.int64]
    """i64 [v], the frame behind the last of each video, or of what the part has of it."""
    scene_ends: NDArray[np.int64]
    """i64 [s], the frame behind the last of each scene; every end of a video is one."""
    video_meta: bytes
    """One line of `video_meta_line` for each video."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Frames, height, width, 3."""
        frames, height, width, rgb = self.frames.shape
        return frames, height, width, rgb


def video_meta_line(
    *,
    source: str,
    frames: int,
    first: int,
    fps: float,
    duration: float,
    width: int,
    height: int,
    codec: str,
    decoder: str,
    bad_packets: int = 0,
    corrupt: int = 0,
) -> bytes:
    """Return a video's row of `video_meta`.

    Args:
        source: Name of the source.
        frames: Frames of it in this part.
        first: Number of the first of them in the video; past 0 where it goes on from an earlier part.
        fps: Frames a second of the source.
        duration: Seconds of the source.
        width: Of the source's frames, in pixels, upright.
        height: The same.
        codec: What the source is coded by.
        decoder: What decoded it.
        bad_packets: Packets that could not be decoded.
        corrupt: Frames that the decoder called damaged.
    """
    row = {"source": source, "frames": frames, "first": first, "fps": fps, "duration": duration, "width": width}
    row |= {"height": height, "codec": codec, "decoder": decoder, "bad_packets": bad_packets, "corrupt": corrupt}
    return dump_row(row)


def units_of(scene_ends: NDArray[np.int64], clip_frames: int) -> NDArray[np.int64]:
    """Return the frame behind each unit's last, i64 [u]: units have `clip_frames`, the last of a scene what is left."""
    begins = np.concatenate(([0], scene_ends[:-1]))
    counts = -(-(scene_ends - begins) // clip_frames)
    scene = np.repeat(np.arange(len(scene_ends)), counts)
    within = np.arange(len(scene)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.minimum(begins[scene] + (within + 1) * clip_frames, scene_ends[scene]).astype(np.int64)


class VideoPart(PartFiles, ABC):
    """One part of a store of video, open for reading; safe for threads. See `open_video_part`, and `PartFiles`.

    Frames are numbered in the part. Ranges must lie in it; what is returned must not be written to.

    Attributes:
        frames: How many it has.
        height: Of a frame, in pixels.
        width: The same.
        clip_frames: Frames of a unit, or of a sample: where they are coded, a unit is decoded as a whole.
    """

    weight = 4  # frames lie in several chunk files

    def __init__(self, storage: Storage, record: PartRecord, *, mapped: bool) -> None:
        super().__init__(storage, record, mapped=mapped)
        self.frames, self.clip_frames = record.frames, record.clip_frames
        self.height, self.width = record.frame_shape
        self.shape = (self.frames, self.height, self.width, RGB)

    @abstractmethod
    def read_frames(
        self, start: int, stop: int, step: int = 1, out: NDArray[np.uint8] | None = None, *, check: bool = True
    ) -> NDArray[np.uint8]:
        """Return frames `start`, `start + step` ... before `stop`, u8 [n, h, w, 3], RGB, copied.

        Args:
            start: First frame.
            stop: Frame behind the last that may be taken.
            step: At least 1.
            out: Where to write them, u8 [n, h, w, 3]; memory of its own if `None`.
            check: Whether frames that are mapped are checked when they are first touched; others always are.

        Raises:
            StoreError: Some of it is damaged; it names file and byte.
        """

    @property
    @abstractmethod
    def box_counts(self) -> tuple[int, int]:
        """Regions and motion regions of a frame, told without reading any.

        Raises:
            StoreError: What describes them is damaged.
        """

    @abstractmethod
    def regions(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the regions of frames `start` to `stop`, f32 [n, r, 4]."""

    @abstractmethod
    def motion(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the motion regions of frames `start` to `stop`, f32 [n, m, 4]."""

    @property
    @abstractmethod
    def pts(self) -> NDArray[np.float64]:
        """Seconds of each frame in its video, f64 [t]."""

    @property
    @abstractmethod
    def video_ends(self) -> NDArray[np.int64]:
        """The frame behind the last of each video, i64 [v]."""

    @property
    @abstractmethod
    def scene_ends(self) -> NDArray[np.int64]:
        """The frame behind the last of each scene, i64 [s]; every end of a video is one."""

    @abstractmethod
    def video_meta_lines(self) -> bytes:
        """Return one JSON line per video, see `video_meta_line`."""

    @abstractmethod
    def prefetch_pages(self, start: int, stop: int) -> None:
        """Have the pages fetched ahead that frames `start` to `stop` lie in.

        Raises:
            StoreError: The part cannot be opened.
        """

    @abstractmethod
    def coded_frames(self) -> NDArray[np.uint8] | CodedFrames:
        """Return all frames as they are stored: coded, or u8 [t, h, w, 3]."""

    @abstractmethod
    def first_damage(self, file: str) -> int | None:
        """Return where the first damaged block of one of the part's files begins, `None` if no checksum tells."""

    def prefetch_frames(self, start: int, stop: int) -> None:
        """Take note that frames `start` to `stop` will be wanted soon, and return at once.

        Where they are local, do nothing. What goes wrong is told when the frames are read.
        """
        if self.remote:
            later(lambda: self.prefetch_pages(start, stop))

    def video_meta(self) -> list[dict[str, Any]]:
        """Return one row per video: its source, what it was, and which of its frames the part has.

        Raises:
            StoreError: They are damaged, or not what they should be.
        """
        rows = parse_rows(self.video_meta_lines(), f"{self.url}, video_meta")
        if len(rows) != self.record.documents:
            raise self.nonsense("video_meta", f"{len(rows)} rows for {self.record.documents} videos")
        return rows

    def arrays(self) -> VideoArrays:
        """Return everything the part holds, checked; coded frames as they are.

        Raises:
            StoreError: Some of it is damaged.
        """
        return VideoArrays(
            frames=self.coded_frames(),
            regions=self.regions(0, self.frames),
            motion=self.motion(0, self.frames),
            pts=self.pts,
            video_ends=self.video_ends,
            scene_ends=self.scene_ends,
            video_meta=self.video_meta_lines(),
        )

    def refuse_ends(self, name: str, ends: NDArray[np.int64], last: int) -> None:
        """Refuse ends that do not rise to the last one.

        Raises:
            StoreError: They do not.
        """
        if not (len(ends) and ends[0] > 0 and ends[-1] == last and (ends[1:] > ends[:-1]).all()):
            raise self.nonsense(name, f"{name} do not ascend to {last}")

    def refuse_range(self, start: int, stop: int, step: int = 1) -> None:
        """Refuse a range of frames that the part has not.

        Raises:
            ValueError: It has not.
        """
        if not (0 <= start <= stop <= self.frames and step > 0):
            raise ValueError(f"{self.url}: frames {start} to {stop} in steps of {step}; it has {self.frames}")


def broken_rules(arrays: VideoArrays) -> list[str]:
    """Return what is wrong with the arrays of a part; coded frames are not decoded for it."""
    frames, height, width, rgb = arrays.frames.shape
    said = []
    for name, ends in (("video_ends", arrays.video_ends), ("scene_ends", arrays.scene_ends)):
        if not (len(ends) and ends[0] > 0 and ends[-1] == frames and (np.diff(ends) > 0).all()):
            said.append(f"{name} do not ascend to {frames}, the frames of the part")
    if said or rgb != RGB or frames < 1:
        return said or [f"frames of shape {arrays.frames.shape}"]
    if not np.isin(arrays.video_ends, arrays.scene_ends).all():
        said.append("a video ends where no scene does")
    for name, boxes in (("regions", arrays.regions), ("motion", arrays.motion)):
        if boxes.ndim != RGB or (boxes.shape[0], boxes.shape[2]) != (frames, 4):
            said.append(f"{name} of shape {boxes.shape} for {frames} frames")
            continue
        bad = wrong_boxes(boxes, height, width)
        if bad.any():
            place = int(np.argmax(bad.any(axis=1)))
            box = boxes[place, int(np.argmax(bad[place]))].tolist()
            said.append(f"{name} of frame {place} hold the box {box}, which is none in {width} x {height} pixels")
    if arrays.pts.shape != (frames,) or not np.isfinite(arrays.pts).all():
        said.append(f"pts are not {frames} numbers")
    else:
        same_video = np.ones(frames - 1, np.bool_)
        same_video[arrays.video_ends[:-1] - 1] = False
        falls = same_video & (np.diff(arrays.pts) <= 0)
        if falls.any():
            said.append(f"the time of frame {int(np.argmax(falls)) + 1} is not past the one before")
    return said + _wrong_rows(arrays)


def wrong_boxes(boxes: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """Return which boxes [..., 4] are neither inside the frame, x0 < x1 and y0 < y1, nor all zeros."""
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    inside = (x0 >= 0) & (y0 >= 0) & (x0 < x1) & (y0 < y1) & (x1 <= width) & (y1 <= height)
    return np.asarray(~(inside | (boxes == NO_BOX).all(axis=-1)))


def _wrong_rows(arrays: VideoArrays) -> list[str]:
    """Return what is wrong with the rows of videos."""
    try:
        rows = parse_rows(arrays.video_meta, "video_meta")
        again = b"".join(map(dump_row, rows))
    except (StoreError, RecursionError) as error:
        return [str(error)]
    if len(rows) != len(arrays.video_ends):
        return [f"{len(rows)} rows of video_meta for {len(arrays.video_ends)} videos"]
    if again != arrays.video_meta:
        return ["video_meta is not written as `video_meta_line` does"]
    for number, (row, count) in enumerate(zip(rows, np.diff(arrays.video_ends, prepend=0).tolist(), strict=True)):
        first = row.get("first")
        good = isinstance(row.get("source"), str) and type(first) is int and first >= 0
        good = good and type(row.get("frames")) is int and row["frames"] == count
        good = good and all(type(row.get(name)) in (int, float) for name in ("fps", "duration"))
        if not (good and math.isfinite(row["fps"]) and math.isfinite(row["duration"])):
            return [f"row {number} of video_meta is not that of a video with {count} frames here"]
    return []
