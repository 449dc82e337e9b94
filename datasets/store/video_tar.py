"""A part of video as a WebDataset tar that plain webdataset reads, and an index for random access beside it.

    00000.tar     one sample a unit of `clip_frames` frames, never across a scene:
                  KEY.frames.npy | KEY.000.jpg KEY.001.jpg ... | KEY.mp4   KEY.regions.npy   KEY.motion.npy   KEY.json
    00000.index   two .npy tables end to end: one row a sample, where its members lie and their crc32c; and one row a
                  frame, its time and, of jpeg, where its picture lies

KEY.json has the times of the sample's frames, its video's row of `video_meta`, and its place in the part. Members lie
uncompressed; times and owners are 0, so that the same part is the same tar.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.ranges import Ranges
from bytropix.datasets.store.schema import PartRecord, dump_row
from bytropix.datasets.store.storage import Storage, StoredFile
from bytropix.datasets.store.tar_writer import TarWriter, as_npy, from_npy, index_name, npy_header
from bytropix.datasets.store.video_part import CodedFrames, VideoArrays, VideoPart, units_of
from bytropix.datasets.store.video_units import UnitReader
from bytropix.errors import StoreError

SIDES = ("regions", "motion", "json")
MEMBERS = ("frames", *SIDES)  # of jpeg, pictures come in place of the first
SAMPLE = np.dtype(
    [("stop", "<i8"), ("scene", "<i8"), ("video", "<i8")]
    + [(f"{name}_{what}", kind) for name in MEMBERS for what, kind in (("at", "<i8"), ("size", "<i8"), ("crc", "<u4"))]
)
FRAME = np.dtype([("pts", "<f8"), ("at", "<i8"), ("size", "<i8"), ("crc", "<u4")])
BOXES = np.dtype("<f4")


def encode_part(arrays: VideoArrays, name: str, clip_frames: int) -> list[StoredFile]:
    """Return the tar `name` of a part, and its index; frames lie in it as they are."""
    tar = TarWriter()
    stops = units_of(arrays.scene_ends, clip_frames)
    begins = np.concatenate(([0], stops[:-1]))
    samples, frames = np.zeros(len(stops), SAMPLE), np.zeros(arrays.shape[0], FRAME)
    samples["stop"], frames["pts"] = stops, arrays.pts
    samples["scene"] = np.searchsorted(arrays.scene_ends, begins, side="right")
    samples["video"] = np.searchsorted(arrays.video_ends, begins, side="right")
    rows = [json.loads(line) for line in arrays.video_meta.splitlines()]
    for number, (begin, stop) in enumerate(zip(begins.tolist(), stops.tolist(), strict=True)):
        key, sample = f"{name.removesuffix('.tar')}-{number:08d}", samples[number]
        members = {} if _is_jpeg(arrays) else {"frames": _frames_member(arrays, number, begin, stop)}
        for frame in range(begin, stop) if _is_jpeg(arrays) else ():
            found = tar.add(f"{key}.{frame - begin:03d}.jpg", _unit(arrays, frame))
            frames["at"][frame], frames["size"][frame], frames["crc"][frame] = found
        for side, boxes in (("regions", arrays.regions), ("motion", arrays.motion)):
            members[side] = (f"{side}.npy", as_npy(boxes[begin:stop].astype(BOXES, copy=False)))
        place = {"frame": begin, "scene": int(sample["scene"]), "video": int(sample["video"])}
        row = {"place": place, "pts": arrays.pts[begin:stop].tolist(), "video": rows[place["video"]]}
        members["json"] = ("json", dump_row(row))
        for member, (ending, *contents) in members.items():
            found = tar.add(f"{key}.{ending}", *contents)
            sample[f"{member}_at"], sample[f"{member}_size"], sample[f"{member}_crc"] = found
    return [StoredFile(index_name(name), [as_npy(samples), as_npy(frames)]), StoredFile(name, tar.finish())]


def _is_jpeg(arrays: VideoArrays) -> bool:
    return isinstance(arrays.frames, CodedFrames) and arrays.frames.codec == "jpeg"


def _frames_member(arrays: VideoArrays, number: int, begin: int, stop: int) -> tuple[Any, ...]:
    """Return the ending and the contents of the member that has the frames of a sample."""
    if isinstance(arrays.frames, CodedFrames):
        return "mp4", _unit(arrays, number)
    frames = np.ascontiguousarray(arrays.frames[begin:stop])
    return "frames.npy", npy_header(frames.dtype, frames.shape), frames.reshape(-1).data


def _unit(arrays: VideoArrays, number: int) -> memoryview:
    """Return a coded unit."""
    assert isinstance(arrays.frames, CodedFrames)
    ends = arrays.frames.unit_ends
    return arrays.frames.data[ends[number - 1] if number else 0 : ends[number]].data


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A tar and its index."""

    data: Ranges
    samples: NDArray[np.void]
    frames: NDArray[np.void]
    stops: NDArray[np.int64]
    checked: dict[str, NDArray[np.bool_]]
    """By kind of member, which ones were."""


class TarVideoPart(VideoPart):
    """A part of video that is a WebDataset tar; see `VideoPart`."""

    def __init__(self, storage: Storage, record: PartRecord) -> None:
        super().__init__(storage, record, mapped=record.codec == "raw" and storage.local is not None)
        self._lock = threading.Lock()
        self._tar: _Opened | None = None
        self._units: UnitReader | None = None

    def read_frames(
        self, start: int, stop: int, step: int = 1, out: NDArray[np.uint8] | None = None, *, check: bool = True
    ) -> NDArray[np.uint8]:
        """Return frames, copied; see `VideoPart`."""
        self.refuse_range(start, stop, step)
        if self.record.codec != "raw":
            if self._units is None:
                jpeg = self.record.codec == "jpeg"
                stops = np.arange(1, self.frames + 1) if jpeg else self._open().stops
                self._units = UnitReader(self, stops, self._picture if jpeg else self._clip)
            return self._units.read(start, stop, step, out)
        out = np.empty((-(-(stop - start) // step), *self.shape[1:]), np.uint8) if out is None else out
        done = 0
        for number, first, last in self._samples(start, stop):
            if start < last:
                clip = self._npy("frames", number, np.dtype(np.uint8), (last - first, *self.shape[1:]), check=check)
                here = clip[start - first : min(stop, last) - first : step]
                out[done : done + len(here)] = here
                done, start = done + len(here), start + len(here) * step
        return out

    @property
    def box_counts(self) -> tuple[int, int]:
        """Regions and motion regions of a frame."""
        frames = int(self._open().stops[0])
        return self._box_count("regions", 0, frames), self._box_count("motion", 0, frames)

    def regions(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the regions of frames."""
        return self._boxes("regions", start, stop)

    def motion(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the motion regions of frames."""
        return self._boxes("motion", start, stop)

    @property
    def pts(self) -> NDArray[np.float64]:
        """Seconds of each frame in its video."""
        return self._open().frames["pts"].astype(np.float64)

    @property
    def video_ends(self) -> NDArray[np.int64]:
        """The frame behind the last of each video."""
        return self._ends("video")

    @property
    def scene_ends(self) -> NDArray[np.int64]:
        """The frame behind the last of each scene."""
        return self._ends("scene")

    def video_meta_lines(self) -> bytes:
        """Return one JSON line per video."""
        videos = self._open().samples["video"]
        lines = []
        for number in np.flatnonzero(np.diff(videos, prepend=-1)).tolist():
            text = self._member("json", number).tobytes()
            try:
                lines.append(dump_row(json.loads(text)["video"]))
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise self.nonsense(f"sample {number}", repr(error)) from error
        return b"".join(lines)

    def prefetch_pages(self, start: int, stop: int) -> None:
        """Have the pages fetched ahead that frames `start` to `stop` lie in."""
        tar = self._open()
        for number, _, _ in self._samples(start, stop):
            sample, after = tar.samples[number], tar.samples["json_at"][number]
            before = int(tar.samples["json_at"][number - 1]) if number else 0
            tar.data.prefetch(before, int(after) + int(sample["json_size"]))

    def coded_frames(self) -> NDArray[np.uint8] | CodedFrames:
        """Return all frames as they are stored."""
        if self.record.codec == "raw":
            return self.read_frames(0, self.frames)
        jpeg, tar = self.record.codec == "jpeg", self._open()
        count = self.frames if jpeg else len(tar.stops)
        units = [(self._picture if jpeg else self._clip)(number) for number in range(count)]
        return CodedFrames(
            codec="jpeg" if jpeg else "h264",
            shape=self.shape,
            data=np.frombuffer(b"".join(units), np.uint8),
            unit_ends=np.cumsum([len(unit) for unit in units], dtype=np.int64),
            unit_stops=np.arange(1, count + 1) if jpeg else tar.stops,
        )

    def first_damage(self, file: str) -> int | None:
        """Return where the first damaged member of the tar begins, or which byte around members is not as written."""
        if file != self.name:
            return None
        try:
            tar = self._open()
            for number in range(len(tar.stops)):
                for name in MEMBERS if self.record.codec != "jpeg" else SIDES:
                    self._member(name, number)
            _, written = encode_part(self.arrays(), self.name, self.clip_frames)
        except StoreError as error:
            return error.offset
        content = np.frombuffer(b"".join(written.pieces), np.uint8)
        size = min(len(content), tar.data.size)
        return int(np.argmax(np.append(content[:size] != tar.data.range(0, size), np.True_)))

    def _samples(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Give the number, first frame and stop of each sample that frames `start` to `stop` lie in."""
        stops = self._open().stops
        if start < stop:
            first, last = np.searchsorted(stops, (start, stop - 1), side="right").tolist()
            begin = int(stops[first - 1]) if first else 0
            for number in range(first, last + 1):
                end = int(stops[number])
                yield number, begin, end
                begin = end

    def _boxes(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Return boxes of frames."""
        self.refuse_range(start, stop)
        found = []
        for number, first, last in self._samples(start, stop):
            count = self._box_count(name, number, last - first)
            boxes = self._npy(name, number, BOXES, (last - first, count, 4))
            found.append(boxes[max(0, start - first) : stop - first])
        if not found:
            return np.empty((0, 0, 4), np.float32)
        if len({boxes.shape[1] for boxes in found}) > 1:
            raise self.nonsense(name, "samples have different numbers of boxes")
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _box_count(self, name: str, number: int, frames: int) -> int:
        """Return how many boxes each frame of a sample has, by the size of their member."""
        size = int(self._open().samples[f"{name}_size"][number])
        # The header has as many bytes whatever the number of boxes.
        return max(0, (size - len(npy_header(BOXES, (frames, 0, 4)))) // (16 * frames))

    def _npy(
        self, name: str, number: int, dtype: np.dtype[Any], shape: tuple[int, ...], *, check: bool = True
    ) -> NDArray[Any]:
        """Return a member that is a .npy file, which must be of this shape."""
        content = self._member(name, number, check=check)
        header = npy_header(dtype, shape)
        size = int(np.prod(shape)) * dtype.itemsize
        if len(content) != len(header) + size or content[: len(header)].tobytes() != header:
            raise self.nonsense(f"'{name}' of sample {number}", f"it is no array of shape {shape}")
        return np.frombuffer(content, dtype, offset=len(header)).reshape(shape)

    def _clip(self, number: int) -> bytes:
        return self._member("frames", number).tobytes()

    def _picture(self, frame: int) -> bytes:
        """Return the picture of a frame, checked."""
        row = self._open().frames[frame]
        return self._bytes("picture", frame, int(row["at"]), int(row["size"]), int(row["crc"])).tobytes()

    def _member(self, name: str, number: int, *, check: bool = True) -> NDArray[np.uint8]:
        """Return a member of a sample, checked when it is first touched."""
        row = self._open().samples[number]
        at, size, crc = int(row[f"{name}_at"]), int(row[f"{name}_size"]), int(row[f"{name}_crc"])
        return self._bytes(name, number, at, size, crc, check=check)

    def _bytes(self, name: str, number: int, at: int, size: int, crc: int, *, check: bool = True) -> NDArray[np.uint8]:
        """Return bytes of the tar, checked when they are first touched."""
        tar = self._open()
        checked = tar.checked[name]
        if checked[number] or not (check or self.remote):
            return tar.data.range(at, at + size)
        for read in (tar.data.range, tar.data.anew):
            content = read(at, at + size)
            if len(content) == size and google_crc32c.value(np.ascontiguousarray(content)) == crc:
                checked[number] = not self.remote  # what comes over a network is checked each time it comes
                return content
        whose = f"frame {number}" if name == "picture" else f"sample {number}"
        raise self.damaged(self.name, at, f"'{name}' of {whose}")

    def _ends(self, name: str) -> NDArray[np.int64]:
        """Return the frame behind the last of each video or scene."""
        tar = self._open()
        last = np.append(tar.samples[name][1:] != tar.samples[name][:-1], np.True_)
        found: NDArray[np.int64] = tar.stops[last]
        return found

    def _open(self) -> _Opened:
        """Return the tar and its index, read once."""
        if self._tar is not None:
            return self._tar
        with self._lock:
            if self._tar is None:
                samples, frames = self._index()
                checked = {name: np.zeros(len(samples), np.bool_) for name in MEMBERS}
                checked["picture"] = np.zeros(len(frames), np.bool_)
                stops = samples["stop"].astype(np.int64)
                self._tar = _Opened(self.ranges(self.name), samples, frames, stops, checked)
            return self._tar

    def _index(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Return the tables of the index."""
        name = index_name(self.name)
        data = self.checked_file(name).tobytes()
        size = len(npy_header(FRAME, (self.frames,))) + self.frames * FRAME.itemsize
        try:
            samples, frames = from_npy(data[:-size], SAMPLE), from_npy(data[-size:], FRAME)
        except ValueError as error:
            raise self.nonsense(name, str(error)) from error
        steps = {column: np.diff(samples[column]) for column in ("stop", "scene", "video")}
        right = (
            len(samples)
            and samples["stop"][0] > 0
            and samples["stop"][-1] == self.frames
            and (steps["stop"] > 0).all()
            and (samples["scene"][0], samples["video"][0], samples["video"][-1]) == (0, 0, self.record.documents - 1)
            and all(((steps[column] == 0) | (steps[column] == 1)).all() for column in ("scene", "video"))
            and (steps["scene"] >= steps["video"]).all()
            and all((samples[column] >= 0).all() for column in SAMPLE.names or ())
            and all((frames[column] >= 0).all() for column in ("at", "size"))
        )
        if not right:
            raise self.nonsense(name, "its rows are not those of the part")
        return samples, frames
