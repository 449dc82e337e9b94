"""The formats of a part of video, and how one is written and opened.

VideoArrays + VideoLayout -> frames coded -> encode -> write -> PartRecord -> open_video_part -> VideoPart
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bytropix.datasets.store import video_tar, video_zarr
from bytropix.datasets.store.formats import SUFFIXES, FormatName, records_of, write_encoded
from bytropix.datasets.store.frame_codecs import FRAME_CODECS, check_size, encode_units
from bytropix.datasets.store.schema import PartRecord, SourceSpan
from bytropix.datasets.store.storage import Storage, StoredFile
from bytropix.datasets.store.video_part import CodedFrames, VideoArrays, VideoPart, broken_rules, units_of
from bytropix.errors import ConfigError, StoreError

FrameCodecName = Literal["raw", "zstd", "jpeg", "h264"]
LOSSLESS: tuple[FrameCodecName, ...] = ("raw", "zstd")
CODECS_OF: dict[str, tuple[FrameCodecName, ...]] = {
    "zarr": ("raw", "zstd", "jpeg", "h264"),
    "webdataset": ("jpeg", "raw", "h264"),
}  # of each format, its default first


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoLayout:
    """How a part of video lies on disk."""

    format: FormatName = "zarr"
    """zarr: a Zarr group; webdataset: a tar of samples."""
    frame_codec: FrameCodecName | None = None
    """How frames are kept; `None`: the format's default, which becomes `None` if it is named. raw: as they are, which a
    reader maps, the default of zarr; zstd: packed without loss, zarr only; jpeg: about a tenth, the default of
    webdataset; h264: about a hundredth, in units of a clip."""
    quality: int = 90
    """Of jpeg: 1 to 100, the best."""
    crf: int = 20
    """Of h264: 51 to 0, the best."""

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise ConfigError(f"format must be one of {', '.join(SUFFIXES)}, got {self.format!r}")
        if self.used_codec not in CODECS_OF[self.format]:
            raise ConfigError(
                f"frame_codec of format {self.format} must be one of {', '.join(CODECS_OF[self.format])}, got "
                f"{self.frame_codec!r}"
            )
        if self.frame_codec == CODECS_OF[self.format][0]:  # one name for one layout, so that stores of it are the same
            object.__setattr__(self, "frame_codec", None)
        for name, value, codec in (("quality", self.quality, "jpeg"), ("crf", self.crf, "h264")):
            ends = FRAME_CODECS[codec].best, FRAME_CODECS[codec].worst
            if not min(ends) <= value <= max(ends):
                raise ConfigError(f"{name} must lie in {min(ends)}..{max(ends)}, got {value}")

    @property
    def used_codec(self) -> FrameCodecName:
        """The codec that is meant."""
        return self.frame_codec or CODECS_OF[self.format][0]

    def part_name(self, number: int, further: int = 0) -> str:
        """Return the name of a part below parts/<split>/, or of the `further`-th that a long video makes after it."""
        return f"{number:05d}{f'-{further:04d}' if further else ''}{SUFFIXES[self.format]}"

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size of frames that the codec cannot hold.

        Raises:
            ConfigError: It cannot.
        """
        check_size(self.used_codec, height, width)


def encode_video(arrays: VideoArrays, layout: VideoLayout, name: str, clip_frames: int) -> list[StoredFile]:
    """Return the files of a part, below its record's folder; frames that are coded already stay as they are."""
    coded = _coded(arrays, layout, clip_frames)
    if layout.format == "webdataset":
        return video_tar.encode_part(coded, name, clip_frames)
    return video_zarr.encode_part(coded, layout.used_codec)


def write_video_part(
    storage: Storage,
    split: str,
    name: str,
    arrays: VideoArrays,
    *,
    layout: VideoLayout,
    clip_frames: int,
    spans: tuple[SourceSpan, ...],
    version: int = 1,
) -> PartRecord:
    """Write a part of video below parts/`split` and return its record.

    A zarr part appears as a whole; of a tar the index appears first, and neither counts without a record.

    Args:
        storage: The store's.
        split: train or val.
        name: As `VideoLayout.part_name` gives it.
        arrays: What it holds.
        layout: How it lies there.
        clip_frames: Frames of a unit or sample.
        spans: Where its frames come from, in the order of its videos.
        version: The version of the store that it is added in.

    Raises:
        ConfigError: The codec cannot hold frames of this size.
        StoreError: The arrays do not fit each other, the disk is full, or the place cannot be written.
    """
    for said in broken_rules(arrays):
        raise StoreError(f"{storage.url}/parts/{split}/{name}: cannot be written: {said}")
    files = encode_video(arrays, layout, name, clip_frames)
    frames, height, width, rgb = arrays.shape
    record = PartRecord(
        split=split,
        name=name,
        n_bytes=frames * height * width * rgb,
        documents=len(arrays.video_ends),
        compressed=layout.used_codec != "raw",
        files=records_of(files),
        spans=spans,
        patch_lengths=(),
        format=layout.format,
        codec=layout.used_codec,
        version=version,
        frames=frames,
        frame_shape=(height, width),
        clip_frames=clip_frames,
    )
    write_encoded(storage, record, files)
    return record


def open_video_part(storage: Storage, record: PartRecord) -> VideoPart:
    """Return a part of video, open for reading.

    Raises:
        StoreError: It is one of bytes.
    """
    if not record.frames:
        raise StoreError(
            f"{storage.url}/parts/{record.split}/{record.name}: holds bytes, not video; stream it with ByteStream"
        )
    kinds: dict[str, type[video_tar.TarVideoPart] | type[video_zarr.ZarrVideoPart]] = {
        "zarr": video_zarr.ZarrVideoPart,
        "webdataset": video_tar.TarVideoPart,
    }
    return kinds[record.format](storage, record)


def _coded(arrays: VideoArrays, layout: VideoLayout, clip_frames: int) -> VideoArrays:
    """Return arrays with frames as a layout keeps them."""
    codec, frames = layout.used_codec, arrays.frames
    if isinstance(frames, CodedFrames):
        if frames.codec != codec:
            raise ConfigError(f"frames that are {frames.codec} already cannot be kept as {codec}; decode them first")
        stops = np.arange(1, frames.shape[0] + 1) if codec == "jpeg" else units_of(arrays.scene_ends, clip_frames)
        if not np.array_equal(frames.unit_stops, stops):
            raise ConfigError(f"frames are coded in other units than of {clip_frames} frames; decode them first")
        return arrays
    if codec == "raw" or codec == "zstd":
        return arrays
    quality = layout.quality if codec == "jpeg" else layout.crf
    stops = units_of(arrays.scene_ends, clip_frames)
    return replace(
        arrays, frames=encode_units("jpeg" if codec == "jpeg" else "h264", frames, arrays.pts, stops, quality)
    )
