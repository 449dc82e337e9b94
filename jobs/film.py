"""Small films whose truth is known: for the demo, for tests, and for a first look without data.

    seed -> pictures of a scene -> scenes joined by cuts -> H.264 -> FOLDER/NAME.mp4, and what is to be seen in it

    shapes.mp4    a square and a disc bounce before a still background: boxes of both in every frame
    zoom.mp4      a pattern comes nearer
    cuts.mp4      three scenes: a cut, a flash of two frames that is no cut, a black stretch, a still picture
    tall.mp4      higher than wide, few frames a second
    damaged.mp4   shapes.mp4 with a hole in its middle
    notes.mp4     not a video at all

The same folder has the same bytes every time.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.commit import write_file
from bytropix.pipelines.video.encode import write_video

HOLE = (0.45, 0.65)  # of the bytes of the damaged file
CRF = 20


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """What is to be seen in a file."""

    path: Path
    fps: float
    images: NDArray[np.uint8]
    """u8 [t, h, w, 3], before they were encoded."""
    cuts: tuple[int, ...] = ()
    """Frames at which a scene begins, the first frame left out."""
    black: tuple[int, int] = (0, 0)
    """First black frame, and the first one after it that is lit."""
    still: tuple[int, int] = (0, 0)
    """First frame of a still picture, and the first one behind it."""
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 4), np.float32))
    """f32 [t, n, 4], x0, y0, x1, y1 of each shape in pixels."""

    @property
    def times(self) -> NDArray[np.float64]:
        """When each frame is shown, f64 [t], seconds."""
        return np.arange(len(self.images)) / self.fps


@dataclass(frozen=True, slots=True, eq=False)
class FilmSet:
    """Files of a folder."""

    films: tuple[Film, ...]
    """Those that can be read."""
    refused: tuple[Path, ...]
    """Those that cannot."""

    def __getitem__(self, name: str) -> Film:
        """Return the film of a file name, less the suffix."""
        return next(film for film in self.films if film.path.stem == name)


def make_films(folder: Path) -> FilmSet:
    """Write the films into a folder, which is made where it is missing.

    Raises:
        StoreError: The disk is full, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    films = (_shapes(folder), _zoom(folder), _cuts(folder), _tall(folder))
    for film in films:
        height, width = film.images.shape[1:3]
        with write_video(film.path, height, width, fps=film.fps, crf=CRF) as writer:
            writer.write(film.images, film.times)
    damaged, notes = folder / "damaged.mp4", folder / "notes.mp4"
    whole = bytearray(films[0].path.read_bytes())
    first, last = (round(share * len(whole)) for share in HOLE)
    whole[first:last] = bytes(last - first)
    write_file(damaged, bytes(whole))
    write_file(notes, b"Shot list: the shapes, the zoom, the cuts. This is a text that calls itself a video.\n" * 40)
    return FilmSet(films, (damaged, notes))


def texture(x: NDArray[np.float32], y: NDArray[np.float32], seed: int) -> NDArray[np.uint8]:
    """Return the colours of an endless pattern at points of the plane, u8 [h, w, 3].

    Args:
        x: f32 [w], in pixels at a scale of 1.
        y: f32 [h].
        seed: Which pattern.
    """
    generator = np.random.default_rng(seed)
    colours = np.empty((len(y), len(x), 3), np.uint8)
    for channel, level in enumerate(generator.uniform(70, 180, 3)):
        value = np.full((len(y), len(x)), level, np.float32)
        for _ in range(4):
            across, down = generator.normal(0, 0.07, 2).astype(np.float32)
            phase, height = generator.uniform(0, 6.3), generator.uniform(10, 35)
            value += np.float32(height) * np.sin((across * x + np.float32(phase)) + (down * y)[:, None])
        colours[..., channel] = np.clip(value, 0, 255)
    return colours


def panned(count: int, height: int, width: int, *, seed: int, speed: int = 0) -> NDArray[np.uint8]:
    """Return pictures of a pattern that goes by at `speed` pixels a frame, u8 [count, height, width, 3]."""
    x = np.arange(width + speed * count, dtype=np.float32)
    whole = texture(x, np.arange(height, dtype=np.float32), seed)
    return np.stack([whole[:, speed * number :][:, :width] for number in range(count)])


def zoomed(count: int, height: int, width: int, *, seed: int, zoom: float) -> NDArray[np.uint8]:
    """Return pictures of a pattern of which each is `zoom` times nearer, u8 [count, height, width, 3]."""
    y, x = (np.arange(side, dtype=np.float32) - side / 2 for side in (height, width))
    scales = np.float32(zoom) ** -np.arange(count, dtype=np.float32)
    return np.stack([texture(x * scale, y * scale, seed) for scale in scales])


def add_shapes(images: NDArray[np.uint8], side: int, *, seed: int) -> NDArray[np.float32]:
    """Draw a square and a disc that bounce from the edges, and return their boxes, f32 [t, 2, 4].

    Args:
        images: u8 [t, h, w, 3], drawn into.
        side: Side and diameter in pixels.
        seed: Where they start and how fast they go: 2 to 4 pixels a frame along each axis.
    """
    generator = np.random.default_rng(seed)
    count, height, width = images.shape[:3]
    room = np.array([width - side, height - side])
    inside = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2)) <= side / 2
    boxes = np.empty((count, 2, 4), np.float32)
    for number, (colour, mask) in enumerate((((230, 40, 30), np.ones_like(inside)), ((250, 230, 60), inside))):
        start, speed = generator.uniform(0, room), generator.uniform(2, 4, 2)
        path = start + speed * np.arange(count)[:, None]
        corners = np.rint(room - np.abs(path % (2 * room) - room)).astype(int)
        for image, (left, top) in zip(images, corners.tolist(), strict=True):
            image[top : top + side, left : left + side][mask] = colour
        boxes[:, number] = np.concatenate([corners, corners + side], axis=1)
    return boxes


def _shapes(folder: Path) -> Film:
    images = panned(96, 180, 320, seed=1)
    boxes = add_shapes(images, 44, seed=7)
    return Film(folder / "shapes.mp4", 24.0, images, boxes=boxes)


def _zoom(folder: Path) -> Film:
    return Film(folder / "zoom.mp4", 25.0, zoomed(75, 240, 240, seed=2, zoom=1.02))


def _cuts(folder: Path) -> Film:
    """Make a pan with a flash, a cut to shapes, black, and a scene that comes to rest."""
    height, width = 180, 320
    first = panned(45, height, width, seed=3, speed=2)
    first[20:22] = 255
    second = panned(36, height, width, seed=4)
    add_shapes(second, 36, seed=5)
    black = np.zeros((15, height, width, 3), np.uint8)
    third = panned(20, height, width, seed=6, speed=2)
    still = np.repeat(third[-1:], 34, axis=0)
    images = np.concatenate([first, second, black, third, still])
    lit = 45 + 36 + 15
    return Film(folder / "cuts.mp4", 30.0, images, cuts=(45, 81, lit), black=(81, lit), still=(lit + 19, lit + 54))


def _tall(folder: Path) -> Film:
    images = panned(30, 320, 180, seed=8, speed=2)
    boxes = add_shapes(images, 40, seed=9)
    return Film(folder / "tall.mp4", 12.5, images, boxes=boxes)
