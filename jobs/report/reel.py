"""Videos of a store to look at: a strip of frames with their boxes, an animation, the scenes.

videos, drawn by a seed -> frames spread over each, a stretch of its middle -> WebP in the page, boxes as shapes over it
"""

import base64
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bytropix.datasets.store import Store
from bytropix.jobs.drawing import Frame, Outline, clock, drawn, enlargement
from bytropix.jobs.pictures import animation
from bytropix.jobs.videos import Shown, Video, frame_step, middle_stretch, shown_frames, spread_frames

STRIP_FRAMES = 6
ANIMATED_FRAMES = 24
ANIMATED_RATE = 12.0  # frames a second, about
LONGEST_SIDE = 256  # of a frame in the strip, in pixels; the animation has twice as many, for lines to be clear
QUALITY = 78
BYTES = 6 << 20  # of pictures on a page; videos that come after them are in the table alone
SCENES_DRAWN = 400
SCENE_WIDTH = 1000.0  # of the bar, in units of the drawing


@dataclass(frozen=True, slots=True)
class Still:
    """A frame of the strip, with the boxes that lie over it."""

    picture: str
    """Its address, which holds it."""
    boxes: list[Outline]
    time: str
    about: str
    """For those who do not see it."""


@dataclass(frozen=True, slots=True)
class SceneBar:
    """A scene in the bar of its video."""

    x: float
    width: float
    says: str


@dataclass(frozen=True, slots=True, eq=False)
class Reel:
    """A video as the page shows it."""

    video: Video
    strip: list[Still]
    moving: str
    """Address of the animation, which holds it."""
    poster: str
    """The same of its first frame, for those who want nothing to move."""
    width: int
    """Of the animation, in pixels."""
    height: int
    about: str
    scenes: list[SceneBar]
    scenes_about: str

    @property
    def size(self) -> int:
        """Bytes it takes in the page, about."""
        return len(self.moving) + len(self.poster) + sum(len(still.picture) for still in self.strip)


def choose_reels(store: Store, videos: Sequence[Video], count: int, seed: int) -> list[Reel]:
    """Return `count` videos that `seed` draws, or all if there are fewer, as the page shows them, in their order.

    There are fewer where their pictures would make the page too large.

    Raises:
        StoreError: The frames of one are damaged.
    """
    places = range(len(videos))
    chosen = places if len(videos) <= count else sorted(random.Random(seed).sample(places, count))
    reels: list[Reel] = []
    room = BYTES
    for place in chosen:
        reel = _reel(store, videos[place])
        room -= reel.size
        if room < 0 and reels:
            break
        reels.append(reel)
    return reels


def _reel(store: Store, video: Video) -> Reel:
    """Return a video as the page shows it."""
    parts = store.video_parts(video.split)
    strip = []
    for place, frame in spread_frames(video, STRIP_FRAMES):
        part = parts[place]
        (found,) = shown_frames(store, part, range(frame, frame + 1))
        strip.append(_still(found))
    number, frames = middle_stretch(video, ANIMATED_FRAMES, ANIMATED_RATE, parts)
    shown = list(shown_frames(store, parts[number], frames))
    scale = min(enlargement(shown[0].image.shape[:2], 2 * LONGEST_SIDE), 2)
    pictures = [drawn(found.image, found.boxes, scale) for found in shown]
    times = np.array([found.seconds for found in shown])
    seconds = [*np.diff(times).tolist(), frame_step(times) or 1.0]
    height, width = pictures[0].shape[:2]
    return Reel(
        video=video,
        strip=strip,
        moving=_address(animation(pictures, seconds, QUALITY)),
        poster=_address(_still_bytes(pictures[0])),
        width=width,
        height=height,
        about=f"{len(pictures)} frames from {clock(times[0])} on, with their boxes, as a moving picture",
        scenes=_scene_bars(video),
        scenes_about=_scenes_said(video),
    )


def _still(found: Shown) -> Still:
    """Return a frame of the strip; its boxes are not drawn into it."""
    scale = min(enlargement(found.image.shape[:2], LONGEST_SIDE), 1.0)
    motion = sum(1 for box in found.boxes if box.motion)
    time = clock(found.seconds)
    return Still(
        picture=_address(_still_bytes(drawn(found.image, [], scale))),
        boxes=found.boxes,
        time=time,
        about=f"Frame at {time} with {len(found.boxes) - motion} regions and {motion} motion regions",
    )


def _still_bytes(image: Frame) -> bytes:
    """Return an image as WebP."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def _address(data: bytes) -> str:
    """Return the address that holds a WebP picture."""
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _scene_bars(video: Video) -> list[SceneBar]:
    """Return the first scenes of a video, end to end over the width of a drawing."""
    per_second = SCENE_WIDTH / (video.seconds or 1)
    bars = []
    place = 0.0
    for number, seconds in enumerate(video.scenes[:SCENES_DRAWN]):
        begin = video.begins[number]
        says = f"scene {number + 1}: {clock(begin)} to {clock(begin + seconds)}"
        bars.append(SceneBar(place, seconds * per_second or SCENE_WIDTH / len(video.scenes), says))
        place += bars[-1].width
    return bars


def _scenes_said(video: Video) -> str:
    """Return the scenes of a video in words."""
    count = len(video.scenes)
    cuts = ", ".join(clock(begin) for begin in video.begins[1:13])
    more = f" and {count - 13:,} more" if count > 13 else ""
    return "One scene" if count == 1 else f"{count:,} scenes; cuts at {cuts}{more}"
