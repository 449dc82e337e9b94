"""Region maps and motion regions, drawn over the frames that they belong to.

boxes of a frame -> outlines, largest first -> over the frame, enlarged by a whole number -> a caption below -> picture

A golden rectangle is coloured by its share of the frame: each golden cut leaves 1 or 2 powers of the golden ratio less,
so the power tells how deep it lies, whatever chose it. Patches of a spiral have one colour, motion regions another and
bold corners in place of a line all round, so that colour is never all that tells them apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bytropix.gaad.config import GOLDEN

Frame = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Of rectangles by powers of the golden ratio, then of patches, then of motion regions. They differ in lightness too.
LEVELS: tuple[Colour, ...] = ((255, 244, 163), (255, 221, 51), (255, 176, 0), (255, 128, 20), (240, 84, 40))
PATCH: Colour = (86, 190, 255)
MOTION: Colour = (255, 70, 214)
COLOURS = (*LEVELS, PATCH, MOTION)
PATCH_COLOUR, MOTION_COLOUR = len(LEVELS), len(LEVELS) + 1
KINDS = (
    ("golden cuts", tuple(range(len(LEVELS)))),
    ("spiral", (PATCH_COLOUR,)),
    ("motion", (MOTION_COLOUR,)),
)

BRACKET = 0.28  # of a motion region's side that a corner takes
INK, SOFT, GROUND = (240, 240, 236), (168, 168, 160), (22, 24, 27)
TEXT_SIZE, ROW, MARGIN, LEAST_WIDTH = 14, 22, 8, 288


@dataclass(frozen=True, slots=True)
class Outline:
    """A box as it is drawn."""

    x0: float
    """Pixels of the stored frame, as the rest of the box."""
    y0: float
    x1: float
    y1: float
    colour: int
    """Which of COLOURS."""
    says: str

    @property
    def motion(self) -> bool:
        """Whether it is a motion region."""
        return self.colour == MOTION_COLOUR

    @property
    def corners(self) -> str:
        """Its four corners as the path of an SVG."""
        across, down = (self.x1 - self.x0) * BRACKET, (self.y1 - self.y0) * BRACKET
        ends = (
            (self.x0, self.y0, 1, 1),
            (self.x1, self.y0, -1, 1),
            (self.x1, self.y1, -1, -1),
            (self.x0, self.y1, 1, -1),
        )
        return "".join(f"M{x + i * across:.2f} {y:.2f}H{x:.2f}V{y + j * down:.2f}" for x, y, i, j in ends)

    @property
    def area(self) -> float:
        """Square pixels of the stored frame."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


def outlines(
    regions: NDArray[np.float32], motion: NDArray[np.float32], shape: tuple[int, int], rectangles: int
) -> list[Outline]:
    """Return the boxes of a frame in the order they are drawn: regions from the largest on, then motion; no padding.

    Args:
        regions: f32 (r, 4), x0, y0, x1, y1 in pixels; area 0 is padding.
        motion: f32 (m, 4), likewise, the strongest first.
        shape: Height and width of the frame.
        rectangles: How many of the regions are rectangles, the first ones.
    """
    height, width = shape
    found = []
    for number, box in enumerate(regions.tolist()):
        x0, y0, x1, y1 = box
        if x1 > x0 and y1 > y0:
            power = round(math.log(height * width / ((x1 - x0) * (y1 - y0)), GOLDEN))
            colour = min(max(power, 0), len(LEVELS) - 1) if number < rectangles else PATCH_COLOUR
            kind = "region" if number < rectangles else "spiral patch"
            found.append(Outline(x0, y0, x1, y1, colour, f"{kind} {number + 1}: {_extent(box)}"))
    found.sort(key=lambda outline: -outline.area)
    for number, box in enumerate(motion.tolist()):
        x0, y0, x1, y1 = box
        if x1 > x0 and y1 > y0:
            found.append(Outline(x0, y0, x1, y1, MOTION_COLOUR, f"motion {number + 1}: {_extent(box)}"))
    return found


def enlargement(shape: tuple[int, int], longest: int) -> float:
    """Return by how much a frame is enlarged: a whole number where it is smaller than `longest`, below 1 if larger."""
    side = max(shape)
    return longest // side if side <= longest else longest / side


def drawn(frame: Frame, boxes: Sequence[Outline], scale: float) -> Frame:
    """Return a frame u8 (h, w, 3), enlarged, with its outlines; each lies inside its box, to the pixel."""
    height, width = frame.shape[:2]
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    picture = Image.fromarray(frame)
    if picture.size != size:
        # Enlarged pixels keep their edges: they are what a model is given.
        picture = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    image = np.array(picture)
    bold = 1 if max(size) < 256 else 2
    for box in boxes:
        _outline(image, box, scale, bold)
    return image


def _outline(image: Frame, box: Outline, scale: float, bold: int) -> None:
    """Draw one box: a line all round, or bold corners."""
    high, wide = image.shape[:2]
    left, top = round(box.x0 * scale), round(box.y0 * scale)
    right, bottom = max(round(box.x1 * scale), left + 1), max(round(box.y1 * scale), top + 1)
    left, right = min(max(left, 0), wide - 1), min(right, wide)
    top, bottom = min(max(top, 0), high - 1), min(bottom, high)
    line = bold + 1 if box.motion else bold
    line = max(min(line, (right - left) // 2, (bottom - top) // 2), 1)
    across, down = [(left, right)], [(top, bottom)]
    if box.motion:
        reach = max(round((right - left) * BRACKET), line), max(round((bottom - top) * BRACKET), line)
        across = [(left, left + reach[0]), (right - reach[0], right)]
        down = [(top, top + reach[1]), (bottom - reach[1], bottom)]
    # A dark line inside keeps a pale one in sight on a pale ground.
    for colour, width in ((GROUND, line + 1), (COLOURS[box.colour], line))[bold == 1 :]:
        for begin, end in across:
            image[top : top + width, begin:end] = colour
            image[max(bottom - width, top) : bottom, begin:end] = colour
        for begin, end in down:
            image[begin:end, left : left + width] = colour
            image[begin:end, max(right - width, left) : right] = colour


def captioned(image: Frame, left: str, right: str) -> Frame:
    """Return an image u8 (h, w, 3) over two lines of text: what it is and its time, then what the colours mean.

    Height and width of the result are even, as H.264 needs them; a narrow image gets a ground to its right.
    """
    height, width = image.shape[:2]
    wide = max(width, LEAST_WIDTH)
    wide += wide % 2
    high = height + 2 * ROW + MARGIN
    high += high % 2
    whole = np.empty((high, wide, 3), np.uint8)
    whole[:] = GROUND
    whole[:height, :width] = image
    band = Image.new("RGB", (wide, ROW), GROUND)
    pen = ImageDraw.Draw(band)
    pen.text((MARGIN, ROW / 2), left, fill=INK, font=_font(), anchor="lm")
    pen.text((wide - MARGIN, ROW / 2), right, fill=INK, font=_font(), anchor="rm")
    top = height + MARGIN // 2
    whole[top : top + ROW] = np.asarray(band)
    whole[top + ROW : top + 2 * ROW] = _legend(wide)
    return whole


@lru_cache(maxsize=4)
def _legend(width: int) -> Frame:
    """Return a line of swatches and what they stand for, u8 (ROW, width, 3)."""
    band = Image.new("RGB", (width, ROW), GROUND)
    pen = ImageDraw.Draw(band)
    place = MARGIN
    for name, colours in KINDS:
        for colour in colours:
            pen.rectangle((place, ROW // 2 - 4, place + 7, ROW // 2 + 4), fill=COLOURS[colour])
            place += 8
        pen.text((place + 5, ROW / 2), name, fill=SOFT, font=_font(), anchor="lm")
        place += 5 + round(pen.textlength(name, font=_font())) + 14
    return np.asarray(band)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow, so that a picture is the same on every machine."""
    return ImageFont.load_default(TEXT_SIZE)


def clock(seconds: float) -> str:
    """Return a time in a video: 0:04.20, 12:00.00, 1:02:03.40."""
    hundredths = max(round(seconds * 100), 0)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    first = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{first}:{rest // 100:02}.{rest % 100:02}"


def _extent(box: list[float]) -> str:
    """Return the size of a box and where it begins."""
    x0, y0, x1, y1 = box
    return f"{x1 - x0:.0f} × {y1 - y0:.0f} at {x0:.0f}, {y0:.0f}"
