"""Many small films of things that move evenly, to train a model on whose next frames can be told from the last ones.

    seed, number -> still background -> a square and a disc that bounce -> H.264 -> FOLDER/film-000.mp4

They are films like `shapes.mp4` of `film.py`, each with a background, places and speeds of its own. A shape keeps its
speed of 2 to 5 pixels a frame until it meets the frame's edge, and is drawn with soft edges, so that it moves by
fractions of a pixel as evenly as by whole ones: two frames tell the third. To repeat the last frame is wrong wherever a
shape was or will be. The same folder has the same bytes every time.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError
from bytropix.jobs.film import Film, panned
from bytropix.pipelines.video.encode import check_even, write_video

FPS = 16.0
CRF = 12  # so little is lost that what is learned is the motion, not the blocks
SQUARE, DISC = (235, 40, 30), (250, 230, 60)  # their colours
PALE, CONTRAST = 130, 0.4  # of a background: nearer to grey than its pattern, so that every shape stands out
SLOWEST, FASTEST = 2.0, 5.0  # pixels a frame, along the way
SIDES = (0.22, 0.3)  # of a shape, as shares of the frame's shorter side


@dataclass(frozen=True, slots=True)
class Shape:
    """A square or a disc."""

    colour: tuple[int, int, int]
    round: bool
    side: float
    """Side or diameter, in pixels."""
    start: tuple[float, float]
    """Left and upper edge in the first frame."""
    speed: tuple[float, float]
    """Pixels a frame, to the right and down."""

    def corners(self, count: int, height: int, width: int) -> NDArray[np.float64]:
        """Return its left and upper edge in frames 0..count - 1, f64 [count, 2]: straight on, and back at an edge."""
        room = np.array([width, height]) - self.side
        path = np.array(self.start) + np.array(self.speed) * np.arange(count)[:, None]
        bounced: NDArray[np.float64] = room - np.abs(path % (2 * room) - room)
        return bounced


def make_training_films(
    folder: Path, count: int = 48, *, size: tuple[int, int] = (64, 64), frames: int = 64, seed: int = 0
) -> tuple[Film, ...]:
    """Write films into a folder, which is made where it is missing, and return them with their truth.

    Ingested with a `val_fraction` of 0.2, about a fifth of them is held back, by the hash of their content.

    Args:
        folder: Where to.
        count: How many films, 1 to 1000.
        size: Height and width in pixels, even, at least 16.
        frames: Frames of each, at least 1, shown at `FPS`.
        seed: Names them all; a film is the same in a longer row of films.

    Raises:
        ConfigError: The count or the size cannot be.
        StoreError: The disk is full, or the folder cannot be written.
    """
    if not (1 <= count <= 1000 and frames >= 1):
        raise ConfigError(f"training films: 1 to 1000 of at least a frame each, got {count} of {frames}")
    check_even(*size)
    if min(size) < 16:
        raise ConfigError(f"training films: sides of at least 16 pixels, got {size}")
    folder.mkdir(parents=True, exist_ok=True)
    films = []
    for number in range(count):
        images, boxes = moving_shapes(frames, *size, seed=(seed, number))
        film = Film(folder / f"film-{number:03}.mp4", FPS, images, boxes=boxes)
        with write_video(film.path, *size, fps=FPS, crf=CRF) as writer:
            writer.write(film.images, film.times)
        films.append(film)
    return tuple(films)


def moving_shapes(
    count: int, height: int, width: int, *, seed: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return pictures u8 [count, height, width, 3] and the boxes of the shapes in them, f32 [count, n, 4]."""
    generator = np.random.default_rng(seed)
    pattern = panned(count, height, width, seed=int(generator.integers(1 << 31)))
    images = np.rint(PALE + CONTRAST * (pattern.astype(np.float32) - PALE)).astype(np.uint8)
    shapes = [_some_shape(generator, height, width, colour=colour) for colour in (SQUARE, DISC)]
    boxes = np.empty((count, len(shapes), 4), np.float32)
    for number, shape in enumerate(shapes):
        corners = shape.corners(count, height, width)
        draw(images, shape, corners)
        boxes[:, number] = np.concatenate([corners, corners + shape.side], axis=1)
    return images, boxes


def draw(images: NDArray[np.uint8], shape: Shape, corners: NDArray[np.float64]) -> None:
    """Draw a shape into images u8 [t, h, w, 3], its left and upper edges at `corners` f64 [t, 2].

    A pixel takes as much of the colour as the shape covers of it: exactly so for a square, nearly for a disc.
    """
    height, width = images.shape[1:3]
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    centres = corners + shape.side / 2
    across, down = np.abs(x - centres[:, :1]), np.abs(y - centres[:, 1:])
    if shape.round:
        far = np.hypot(across[:, None, :], down[:, :, None])
        cover = np.clip(shape.side / 2 + 0.5 - far, 0, 1)
    else:
        over, under = (np.clip(shape.side / 2 + 0.5 - away, 0, 1) for away in (across, down))
        cover = under[:, :, None] * over[:, None, :]
    mixed = images + cover[..., None] * (np.array(shape.colour) - images.astype(np.float64))
    images[:] = np.rint(mixed).astype(np.uint8)


def _some_shape(generator: np.random.Generator, height: int, width: int, *, colour: tuple[int, int, int]) -> Shape:
    """Return a shape of chance size, place and speed."""
    side = float(min(height, width) * generator.uniform(*SIDES))
    angle, pace = generator.uniform(0, 2 * np.pi), generator.uniform(SLOWEST, FASTEST)
    return Shape(
        colour=colour,
        round=colour == DISC,
        side=side,
        start=(float(generator.uniform(0, width - side)), float(generator.uniform(0, height - side))),
        speed=(float(pace * np.cos(angle)), float(pace * np.sin(angle))),
    )
