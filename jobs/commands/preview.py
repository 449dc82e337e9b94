"""`bytropix preview`: one clip of a video store, with its region maps and motion regions drawn in.

STORE -> clip N of a split, as `ClipStream` counts them -> frames, boxes -> drawn, enlarged, captioned -> a file
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.jobs.drawing import captioned, clock, drawn, enlargement
from bytropix.jobs.pictures import write_pictures, writer_of
from bytropix.jobs.store_report import printable
from bytropix.jobs.videos import clip_place, frame_step, shown_frames

SIZES = range(16, 4097)
STILL = 1.0  # seconds that the picture of a clip of one frame stays
FASTEST = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """Draw the region maps and motion regions into a clip of a video store."""

    store: tyro.conf.Positional[str]
    """The store: its folder or URL."""
    out: Path
    """The file to write; its name ends in .mp4 (H.264), .webp or .gif (animations), or .png (all frames on a sheet)."""
    clip: int = 0
    """Which clip, from 0, in the order of the store: the clips that `ClipStream` draws from."""
    split: str = "train"
    """The split it is a clip of."""
    version: int | None = None
    """Which version of the store; the newest unless you say."""
    size: int = 512
    """Longest side of a frame in the file, in pixels, about: smaller frames are enlarged by a whole number."""
    fps: float = 0.0
    """Frames a second; 0: as fast as the video is."""
    overwrite: bool = False
    """Replace a file that is there."""
    json: bool = False
    """Print one JSON object about the clip on stdout."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(f"--size must lie in {SIZES.start}..{SIZES.stop - 1} pixels, got {self.size}")
        if not 0 <= self.fps <= FASTEST:
            raise ConfigError(f"--fps must lie in 0..{FASTEST:g}, got {self.fps:g}")

    def __call__(self) -> int:
        """Write the file.

        Raises:
            ConfigError: The file cannot have this name, or is there already.
        """
        writer_of(self.out)
        if self.out.exists() and not self.overwrite:
            raise ConfigError(f"--out {self.out}: is there already; give --overwrite, or another place")
        store = Store.open(self.store, self.version)
        place = clip_place(store, self.split, self.clip)
        part = store.video_parts(self.split)[place.part]
        frames = list(shown_frames(store, part, place.frames))
        scale = enlargement((part.height, part.width), self.size)
        count = len(frames)
        pictures = [
            captioned(
                drawn(frame.image, frame.boxes, scale),
                f"{self.split} clip {self.clip} · {number} of {count}",
                clock(frame.seconds),
            )
            for number, frame in enumerate(frames, 1)
        ]
        times = np.array([frame.seconds for frame in frames])
        step = 1 / self.fps if self.fps else frame_step(times) or STILL
        seconds = [step] * count if self.fps else [*np.diff(times).tolist(), step]
        write_pictures(self.out, pictures, seconds)
        source = part.video_meta()[int(np.searchsorted(part.video_ends, place.frames[0], side="right"))]["source"]
        height, width = pictures[0].shape[:2]
        figures = {
            "out": str(self.out),
            "clip": self.clip,
            "clips": place.clips,
            "split": self.split,
            "source": source,
            "part": part.name,
            "first": place.frames[0],
            "frames": count,
            "begins": frames[0].seconds,
            "seconds": round(sum(seconds), 6),
            "width": width,
            "height": height,
            "boxes": [len(frame.boxes) for frame in frames],
        }
        if self.json:
            print(json.dumps(figures, sort_keys=True))
            return 0
        print(
            f"wrote {printable(str(self.out))}: {count} frames of {width} x {height} from {printable(source)}, "
            f"{clock(frames[0].seconds)} on",
            file=sys.stderr,
        )
        return 0
