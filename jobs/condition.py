"""What a video model is given by the user: frames of a film or of a clip in a store, as its run's store has them.

run's store.json -> Footage: size, fit and rate of the frames that the model knows
film -> decoded, resampled to that -> Stretch: frames in a row, and how fast they are
store, split, clip -> frames of its scene -> Stretch
"""

import json
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, RunError
from bytropix.jobs.run_folder import STORE, RunFolder
from bytropix.jobs.video_clips import require_video
from bytropix.jobs.video_recipe import VideoRecipe
from bytropix.jobs.videos import clip_place, frame_step
from bytropix.pipelines.decoders.contract import Fit, VideoInfo, Wanted
from bytropix.pipelines.decoders.process import DecoderProcess

SAME_RATE = 0.01  # rates that differ by less than this share are one


@dataclass(frozen=True, slots=True)
class Footage:
    """The frames that a model knows."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fit: Fit
    """How frames of another shape get this one."""
    fps: float
    """Stored frames a second; 0: as many as the film has."""
    every: int
    """Stored frames from one frame of a clip to the next, the fewest that the model was trained on."""

    @classmethod
    def of(cls, run: RunFolder) -> "Footage":
        """Return what the frames were like that a run was trained on.

        Raises:
            RunError: There is no run, it is not of video, or what it keeps of its store cannot be read.
        """
        every = min(run.recipe(VideoRecipe).train.frame_steps)
        file = run.path / STORE
        try:
            kept: dict[str, Any] = json.loads(file.read_text("utf-8"))
            height, width = (int(side) for side in kept["size"])
            config = kept["config"]
            wanted = Wanted(height=height, width=width, fit=config["fit"], fps=float(config["fps"]))
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise RunError(f"{file}: cannot be read ({error}); restore it or train again") from error
        return cls(height, width, wanted.fit, wanted.fps, every)

    @property
    def words(self) -> str:
        """The size, as people say it."""
        return f"{self.width} x {self.height}"


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Frames in a row."""

    images: NDArray[np.uint8]
    """u8 [n, h, w, 3], as many as were asked for or as there are."""
    fps: float
    """How many a second; 0 where nothing says."""
    source: str
    """Where they come from, in words."""
    notice: str = ""
    """What was done to them."""


def stretch_of_film(path: Path, footage: Footage, start: float, count: int) -> Stretch:
    """Return frames of a film, decoded and resampled as those of the run's store were.

    Args:
        path: The file.
        footage: What the model knows.
        start: Seconds from the first frame shown.
        count: Most frames that are wanted.

    Raises:
        ConfigError: There is no such file.
        VideoFault: It is no video, or is damaged before the last frame that is wanted.
    """
    if not path.is_file():
        raise ConfigError(f"--condition {path}: there is no such file or store")
    wanted = Wanted(height=footage.height, width=footage.width, fit=footage.fit, fps=footage.fps)
    images: list[NDArray[np.uint8]] = []
    times: list[float] = []
    with DecoderProcess() as decoder:
        info = decoder.probe(path, wanted)
        with closing(decoder.frames(path, wanted)) as batches:
            frames = (frame for batch in batches for frame in zip(batch.images, batch.times.tolist(), strict=True))
            later = ((image, time) for image, time in frames if time >= start - 1e-6)
            for image, time in islice(later, 0, count * footage.every, footage.every):
                images.append(image.copy())
                times.append(time)
                if len(images) == count:
                    break
    rate = (footage.fps or info.fps) / footage.every
    if not rate and (step := frame_step(np.array(times))):
        rate = 1 / step
    whole = np.stack(images) if images else np.empty((0, footage.height, footage.width, 3), np.uint8)
    return Stretch(whole, rate, f"{path} from {start:g} s on", _resampled(path, info, footage, rate))


def stretch_of_store(place: str, split: str, clip: int, footage: Footage, count: int) -> Stretch:
    """Return frames of a store, from the start of a clip to the end of its scene at most.

    Args:
        place: The store's folder or URL.
        split: One of its splits.
        clip: Number of a clip in it, as `bytropix preview` counts them.
        footage: What the model knows.
        count: Most frames that are wanted.

    Raises:
        StoreError: It is no store of video, is damaged, or its split has no clips.
        ConfigError: It has no such clip, or frames of another size.
    """
    store = Store.open(place)
    require_video(store)
    found = clip_place(store, split, clip)
    part = store.video_parts(split)[found.part]
    if (part.height, part.width) != (footage.height, footage.width):
        raise ConfigError(
            f"{store.url}: its frames are {part.width} x {part.height}, those of the run {footage.words}: give the "
            "film itself as --condition, which is resampled"
        )
    begin = found.frames[0]
    end = int(part.scene_ends[np.searchsorted(part.scene_ends, begin, side="right")])
    stop = min(end, begin + (count - 1) * footage.every + 1)
    step = frame_step(part.pts[begin:end])
    rate = 1 / (step * footage.every) if step else footage.fps / footage.every
    notice = ""
    if footage.fps and abs(rate * footage.every - footage.fps) > SAME_RATE * footage.fps:
        notice = f"{store.url}: {rate * footage.every:g} frames a second, those of the run {footage.fps:g}"
    images = part.read_frames(begin, stop, footage.every)
    return Stretch(images, rate, f"{split} clip {clip} of {store.url}", notice)


def _resampled(path: Path, info: VideoInfo, footage: Footage, rate: float) -> str:
    """Return what was done to a film, empty for nothing."""
    same_size = (info.height, info.width) == (footage.height, footage.width)
    if same_size and (not info.fps or abs(rate - info.fps) <= SAME_RATE * info.fps):
        return ""
    fit = {"crop": "cut to shape", "pad": "black around it", "stretch": "stretched"}[footage.fit]
    shape = info.width * footage.height == info.height * footage.width
    return (
        f"{path}: {info.width} x {info.height} at {info.fps:g} frames a second, taken as {footage.words} at {rate:g}"
        f"{'' if shape else f' ({fit})'}, as the run's own were"
    )


def is_store(place: str) -> bool:
    """Whether the name of a condition is that of a store: a folder, a URL, or a name that ends like one."""
    return "://" in place or place.rstrip("/").endswith(".bx") or Path(place).is_dir()
