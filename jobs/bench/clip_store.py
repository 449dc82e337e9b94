"""Stores of video written from arrays in memory, for benchmarks and tests of what reads them.

arrays by split -> parts in a layout -> manifest
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import (
    VIDEO_VERSION,
    FileRecord,
    Manifest,
    SourceRecord,
    SourceSpan,
    VideoArrays,
    VideoLayout,
    open_storage,
    publish,
    video_meta_line,
    write_video_part,
)
from bytropix.datasets.store.manifest import quarantine_name

FPS = 25.0
SOURCE = "film.mp4"
LAYOUTS = {
    "zarr raw": VideoLayout(),
    "zarr zstd": VideoLayout(frame_codec="zstd"),
    "zarr jpeg": VideoLayout(frame_codec="jpeg"),
    "zarr h264": VideoLayout(frame_codec="h264"),
    "tar raw": VideoLayout(format="webdataset", frame_codec="raw"),
    "tar jpeg": VideoLayout(format="webdataset"),
    "tar h264": VideoLayout(format="webdataset", frame_codec="h264"),
}
# The little store: scene lengths and first frame of the videos of its parts; one video goes on in the second part.
LITTLE_PARTS: "tuple[Videos, ...]" = ((((9, 3, 6), 0), ((5, 11), 0)), (((7, 2), 16),), (((4,), 0), ((30, 8), 0)))
LITTLE_SHAPE = (4, 16, 32, 3)  # of a clip
LITTLE_BOXES = (3, 2)  # regions and motion regions of a frame; the last region is padding

Videos = Sequence[tuple[Sequence[int], int]]
"""For each video of a part, the lengths of its scenes and the number of its first frame in the video."""


def write_clip_store(
    path: Path, layout: VideoLayout, parts: Mapping[str, Sequence[VideoArrays]], *, clip_frames: int, stride: int = 0
) -> None:
    """Write a store.

    Args:
        path: Where.
        layout: Of its parts.
        parts: Their arrays, by split.
        clip_frames: Frames of a clip, for which it is laid out.
        stride: Frames from one clip's beginning to the next; 0 for those of a clip.
    """
    storage = open_storage(path)
    records = []
    for split, listed in parts.items():
        for number, arrays in enumerate(listed):
            n_bytes, videos = math.prod(arrays.shape), len(arrays.video_ends)
            span = SourceSpan(source=SOURCE, n_bytes=n_bytes, documents=videos, patches=0, at_cap=0, single=0)
            records.append(
                write_video_part(
                    storage,
                    split,
                    layout.part_name(number),
                    arrays,
                    layout=layout,
                    clip_frames=clip_frames,
                    spans=(span,),
                )
            )
    storage.write(quarantine_name(1), b"")
    publish(
        storage,
        Manifest(
            format_version=VIDEO_VERSION,
            kind="video",
            config={"clip_frames": clip_frames, "stride": stride},
            patcher={},
            babylon=(),
            sources=(SourceRecord(name=SOURCE, size=1, sha256="0" * 64),),
            parts=tuple(records),
            quarantine=FileRecord(path=quarantine_name(1), size=0, sha256=FileRecord.hash_of(b"")),
            quarantined=0,
        ),
    )


def video_arrays(
    frames: NDArray[np.uint8],
    videos: Videos,
    regions: NDArray[np.float32],
    motion: NDArray[np.float32],
) -> VideoArrays:
    """Return a part of frames, u8 [t, h, w, 3].

    Args:
        frames: All frames, end to end.
        videos: What they are of.
        regions: f32 [t, r, 4].
        motion: f32 [t, m, 4].
    """
    scenes = np.cumsum([length for lengths, _ in videos for length in lengths])
    counts = [sum(lengths) for lengths, _ in videos]
    height, width = frames.shape[1:3]
    meta = b"".join(
        video_meta_line(
            source=SOURCE,
            frames=count,
            first=first,
            fps=FPS,
            duration=(first + count) / FPS,
            width=width,
            height=height,
            codec="h264",
            decoder="pyav",
        )
        for count, (_, first) in zip(counts, videos, strict=True)
    )
    return VideoArrays(
        frames=frames,
        regions=regions,
        motion=motion,
        pts=np.concatenate([(first + np.arange(sum(lengths))) / FPS for lengths, first in videos]),
        video_ends=np.cumsum(counts),
        scene_ends=scenes,
        video_meta=meta,
    )


def write_little_clips(path: Path, layout: VideoLayout) -> None:
    """Write the little store: three parts of coarse noise in train, the last of them in val too."""
    parts = [little_part(videos, seed) for seed, videos in enumerate(LITTLE_PARTS)]
    write_clip_store(path, layout, {"train": parts, "val": parts[2:]}, clip_frames=LITTLE_SHAPE[0])


def little_part(videos: Videos, seed: int) -> VideoArrays:
    """Return a part of coarse noise, of which codecs that lose something lose little."""
    generator = np.random.default_rng(seed)
    count, (_, height, width, _) = sum(sum(lengths) for lengths, _ in videos), LITTLE_SHAPE
    coarse = generator.integers(0, 256, (count, 2, 4, 3), np.uint8)
    frames = np.ascontiguousarray(coarse.repeat(height // 2, 1).repeat(width // 4, 2))
    boxes = generator.random((count, sum(LITTLE_BOXES), 4), np.float32)
    boxes[..., 2:] = boxes[..., :2] + 0.5 + boxes[..., 2:] / 4
    boxes *= np.array([width, height] * 2, np.float32) / 2
    boxes[:, LITTLE_BOXES[0] - 1] = 0
    return video_arrays(frames, videos, boxes[:, : LITTLE_BOXES[0]], boxes[:, LITTLE_BOXES[0] :])
