"""A part of video as a Zarr v3 group that plain zarr reads; see `encode_group` for what its files are.

    frames u8[t,h,w,3]   regions f32[t,r,4]   motion f32[t,m,4]   pts f64[t]   video_ends i64[v]   scene_ends i64[s]
    video_meta u8, JSON lines
    coded: frames u8[n] are the units, end to end;   unit_ends i64[u] in bytes   unit_stops i64[u] in frames

Raw frames lie in chunk files of about 256 frames, which readers map; zstd ones in a shard of inner chunks of a few
frames. Coded units are checked by blocks as they lie, then decoded as a whole; those used last are kept.
"""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.schema import BLOCK_BYTES, PartRecord
from bytropix.datasets.store.storage import Storage, StoredFile
from bytropix.datasets.store.video_part import CodedFrames, VideoArrays, VideoPart
from bytropix.datasets.store.video_units import UnitReader
from bytropix.datasets.store.zarr_array import ZarrArray
from bytropix.datasets.store.zarr_group import RAW, ArrayLayout, encode_group
from bytropix.errors import StoreError

CHUNK_FRAMES = 256  # of a raw chunk file: zarr itself reads all of a chunk for the sake of one clip
CHUNK_BYTES = 8 << 20  # and at least so many: each file that is mapped is one that the process has open
MOST_BOXES = 1 << 12  # of a frame
SIDES = ("regions", "motion", "pts", "video_ends", "scene_ends", "video_meta")


def encode_part(arrays: VideoArrays, codec: str) -> list[StoredFile]:
    """Return the files of a part.

    Args:
        arrays: What it holds; frames as they are to be stored.
        codec: raw, zstd, or that of the coded frames.
    """
    frames = arrays.frames
    group = {
        "regions": arrays.regions.astype("<f4", copy=False),
        "motion": arrays.motion.astype("<f4", copy=False),
        "pts": arrays.pts.astype("<f8", copy=False),
        "video_ends": arrays.video_ends.astype("<i8", copy=False),
        "scene_ends": arrays.scene_ends.astype("<i8", copy=False),
        "video_meta": np.frombuffer(arrays.video_meta, np.uint8),
    }
    if isinstance(frames, CodedFrames):
        group |= {
            "frames": frames.data,
            "unit_ends": frames.unit_ends.astype("<i8", copy=False),
            "unit_stops": frames.unit_stops.astype("<i8", copy=False),
        }
        return encode_group(group, ArrayLayout(codec="zstd"), others={"frames": RAW})
    group["frames"] = frames
    frame_bytes = frames[0].nbytes
    if codec == "zstd":
        inner = min(len(frames), -(-BLOCK_BYTES // frame_bytes))
        return encode_group(group, ArrayLayout(codec="zstd"), others={"frames": ArrayLayout(codec="zstd", rows=inner)})
    about = max(CHUNK_FRAMES, CHUNK_BYTES // frame_bytes)
    files = -(-len(frames) // about)
    return encode_group(group, RAW, others={"frames": ArrayLayout(rows=-(-len(frames) // files))})


class ZarrVideoPart(VideoPart):
    """A part of video that is a Zarr group; see `VideoPart`."""

    def __init__(self, storage: Storage, record: PartRecord) -> None:
        super().__init__(storage, record, mapped=record.codec == "raw" and storage.local is not None)
        self._coded = record.codec not in ("raw", "zstd")
        self._arrays: dict[str, ZarrArray] = {}
        self._sides: dict[str, NDArray[Any]] = {}
        self._units: UnitReader | None = None
        self._lock = threading.Lock()
        self._frames: ZarrArray | None = None

    def read_frames(
        self, start: int, stop: int, step: int = 1, out: NDArray[np.uint8] | None = None, *, check: bool = True
    ) -> NDArray[np.uint8]:
        """Return frames, copied; see `VideoPart`."""
        self.refuse_range(start, stop, step)
        if self._coded:
            units = self._units
            if units is None:
                units = self._units = UnitReader(self, self.unit_stops, self._unit)
            return units.read(start, stop, step, out)
        frames = self._frames
        if frames is None:
            frames = self._frames = self._array("frames")
        return frames.read_rows(start, stop, step, out, check=check)

    @property
    def box_counts(self) -> tuple[int, int]:
        """Regions and motion regions of a frame."""
        return self._array("regions").shape[1], self._array("motion").shape[1]

    def regions(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the regions of frames."""
        return self._side("regions").view(np.float32)[start:stop]

    def motion(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the motion regions of frames."""
        return self._side("motion").view(np.float32)[start:stop]

    @property
    def pts(self) -> NDArray[np.float64]:
        """Seconds of each frame in its video."""
        return self._side("pts").view(np.float64)

    @property
    def video_ends(self) -> NDArray[np.int64]:
        """The frame behind the last of each video."""
        return self._side("video_ends").view(np.int64)

    @property
    def scene_ends(self) -> NDArray[np.int64]:
        """The frame behind the last of each scene."""
        return self._side("scene_ends").view(np.int64)

    def video_meta_lines(self) -> bytes:
        """Return one JSON line per video."""
        return self._side("video_meta").tobytes()

    @property
    def unit_stops(self) -> NDArray[np.int64]:
        """The frame behind each unit's last, of a coded part."""
        return self._side("unit_stops").view(np.int64)

    def prefetch_pages(self, start: int, stop: int) -> None:
        """Have the pages fetched ahead that frames `start` to `stop` lie in."""
        frames = self._array("frames")
        if not self._coded:
            size = self.height * self.width * 3
            frames.prefetch(start * size, stop * size)
        elif start < stop:
            ends, stops = self._side("unit_ends").view(np.int64), self.unit_stops
            first, last = (int(np.searchsorted(stops, frame, side="right")) for frame in (start, stop - 1))
            frames.prefetch(int(ends[first - 1]) if first else 0, int(ends[last]))

    def coded_frames(self) -> NDArray[np.uint8] | CodedFrames:
        """Return all frames as they are stored."""
        if not self._coded:
            return self.read_frames(0, self.frames)
        frames = self._array("frames")
        return CodedFrames(
            codec="h264" if self.record.codec == "h264" else "jpeg",
            shape=self.shape,
            data=frames.read_rows(0, frames.shape[0]),
            unit_ends=self._side("unit_ends").view(np.int64),
            unit_stops=self.unit_stops,
        )

    def first_damage(self, file: str) -> int | None:
        """Return where the first damaged block of a file begins."""
        name, chunk, _ = file.partition("/c/")
        try:
            if chunk:
                array = self._array(name)
                for index in range(array.blocks):
                    if array.file_of_block(index) == file:
                        array.block(index)
        except StoreError as error:
            return error.offset
        return None

    def _unit(self, number: int) -> bytes:
        """Return the bytes of a unit, checked."""
        ends = self._side("unit_ends").view(np.int64)
        return self._array("frames").read_rows(int(ends[number - 1]) if number else 0, int(ends[number])).tobytes()

    def _side(self, name: str) -> NDArray[Any]:
        """Return an array beside the frames, read once and kept: a view where it is mapped."""
        found = self._sides.get(name)
        if found is None:
            found = self._array(name).all_rows()
            if found.dtype == np.int64:
                most = self._array("frames").shape[0] if name == "unit_ends" else self.frames
                self.refuse_ends(name, found.view(np.int64), most)
            if name not in ("regions", "motion"):  # small: a copy keeps no file open
                found = found.copy()
                self._arrays.pop(name, None)
            found.flags.writeable = False  # all who ask share it
            self._sides[name] = found
        return found

    def _array(self, name: str) -> ZarrArray:
        """Return an array, opened and checked on first use, and once only."""
        found = self._arrays.get(name)
        if found is not None:
            return found
        with self._lock:
            if not self._arrays:
                self.checked_file("zarr.json")
            if name not in self._arrays:
                self._arrays[name] = self._open(name)
            return self._arrays[name]

    def _open(self, name: str) -> ZarrArray:
        """Open an array and check what it says of itself."""
        shapes: dict[str, tuple[int | None, ...]] = {
            "frames": (None,) if self._coded else self.shape,
            "regions": (self.frames, None, 4),
            "motion": (self.frames, None, 4),
            "pts": (self.frames,),
            "video_ends": (self.record.documents,),
        }
        dtypes = {"frames": "|u1", "video_meta": "|u1", "regions": "<f4", "motion": "<f4", "pts": "<f8"}
        array = ZarrArray(self, name, name, shapes.get(name, (None,)), dtypes.get(name, "<i8"))
        most = self.frames if name in ("scene_ends", "unit_ends", "unit_stops") else 1 << 40
        if array.shape[0] > most or (name in ("regions", "motion") and array.shape[1] > MOST_BOXES):
            raise self.nonsense(name, f"it has the shape {array.shape}")
        return array
