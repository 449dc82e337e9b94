"""Frames of any size and colour format -> RGB frames of the size that is wanted.

    decoded frame -> (alpha over black) -> scaled by swscale, pixels made square -> turned upright -> cut or padded

Shrinking averages areas, growing is bicubic. Colours follow the frame's own matrix and range; where it names none they
are BT.601 and limited, as every FFmpeg program takes them. Deep colour becomes 8 bits; high dynamic range keeps its
curve (no tone mapping). The rounding flags give the same bytes on every processor.
"""

from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from bytropix.pipelines.decoders.contract import Fit, Wanted

EXACT = Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# Formats with an alpha channel; the palette of GIF is one of them.
ALPHA = ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya8", "ya16", "pal8", "ayuv", "vuya")
# A stated pixel shape beyond this is a broken header, not a film.
MOST_STRETCHED_PIXEL = 16.0
# A long and narrow frame is cut before it is scaled where the whole would have more pixels than this, and more than so
# many times those that are wanted.
MOST_SCALED = 2**22
MOST_OVERHANG = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How a frame of one size comes to the size that is wanted, before it is turned."""

    cut: tuple[int, int, int, int]
    """Top, bottom, left and right of what is used of the frame."""
    scaled: tuple[int, int]
    """Height and width that this is scaled to."""
    crop: tuple[int, int]
    """Rows and columns left out at the top and left of the scaled frame."""
    place: tuple[int, int]
    """Rows and columns of black above and left of it."""


def plan(height: int, width: int, pixel_aspect: float, target: tuple[int, int], fit: Fit) -> Plan:
    """Return how a frame is fitted.

    Args:
        height: Of the decoded frame.
        width: Of the decoded frame.
        pixel_aspect: Width of one of its pixels over the height.
        target: Height and width that are wanted.
        fit: How a different shape is brought there.
    """
    whole = (0, height, 0, width)
    if fit == "stretch":
        return Plan(whole, target, (0, 0), (0, 0))
    across, down = target[1] / (width * pixel_aspect), target[0] / height
    factor = max(across, down) if fit == "crop" else min(across, down)
    scaled = (max(1, round(height * factor)), max(1, round(width * pixel_aspect * factor)))
    if fit == "pad":
        scaled = (min(scaled[0], target[0]), min(scaled[1], target[1]))
        return Plan(whole, scaled, (0, 0), ((target[0] - scaled[0]) // 2, (target[1] - scaled[1]) // 2))
    if scaled[0] * scaled[1] > max(MOST_SCALED, MOST_OVERHANG * target[0] * target[1]):
        rows = min(height, max(1, round(target[0] / factor)))
        columns = min(width, max(1, round(target[1] / factor / pixel_aspect)))
        top, left = (height - rows) // 2, (width - columns) // 2
        return Plan((top, top + rows, left, left + columns), target, (0, 0), (0, 0))
    scaled = (max(scaled[0], target[0]), max(scaled[1], target[1]))
    return Plan(whole, scaled, ((scaled[0] - target[0]) // 2, (scaled[1] - target[1]) // 2), (0, 0))


def has_alpha(frame: av.VideoFrame) -> bool:
    """Return whether a frame says how opaque each pixel is."""
    return frame.format.name.startswith(ALPHA)


class Shaper:
    """Brings the frames of one video to the size that is wanted; a new frame size gets a new plan.

    Args:
        wanted: Says the size and the fit.
        pixel_aspect: Width of a decoded pixel over its height.
        rotation: Degrees clockwise that a decoded frame is turned by to be shown.
        mirrored: Whether it is put upside down before.
    """

    def __init__(self, wanted: Wanted, *, pixel_aspect: float = 1.0, rotation: int = 0, mirrored: bool = False) -> None:
        self._wanted = wanted
        usable = 1 / MOST_STRETCHED_PIXEL <= pixel_aspect <= MOST_STRETCHED_PIXEL
        self._pixel_aspect = pixel_aspect if usable else 1.0
        self._mirrored = mirrored
        self._turns = rotation // 90 % 4
        size = (wanted.height, wanted.width)
        self._target = size[::-1] if self._turns % 2 else size
        self._plans: dict[tuple[int, int], Plan] = {}
        self._scaler = VideoReformatter()
        self._flattener = VideoReformatter()

    def shape(self, frame: av.VideoFrame, out: NDArray[np.uint8]) -> None:
        """Write a decoded frame into `out`, u8[height, width, 3]."""
        size = (frame.height, frame.width)
        if size not in self._plans:
            self._plans = {size: plan(*size, self._pixel_aspect, self._target, self._wanted.fit)}
        fitted = self._plans[size]
        if has_alpha(frame):
            frame = self._over_black(frame)
        top, bottom, left, right = fitted.cut
        if (bottom - top, right - left) != size:
            flat = self._flattener.reformat(frame, format="rgb24", interpolation=EXACT, threads=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(_pixels(flat)[top:bottom, left:right]), "rgb24")
        pixels = self._scale(frame, *fitted.scaled)
        rows, columns = fitted.crop
        pixels = pixels[rows : rows + self._target[0], columns : columns + self._target[1]]
        lying = np.rot90(out, self._turns)  # turned anti-clockwise by as much as the frame is turned clockwise
        if self._mirrored:
            lying = lying[::-1]
        above, beside = fitted.place
        if pixels.shape != lying.shape:
            out[:] = 0
        lying[above : above + pixels.shape[0], beside : beside + pixels.shape[1]] = pixels

    def _scale(self, frame: av.VideoFrame, height: int, width: int) -> NDArray[np.uint8]:
        """Return a frame as RGB of a size."""
        shrinks = height < frame.height or width < frame.width
        kernel = Interpolation.AREA if shrinks else Interpolation.BICUBIC
        scaled = self._scaler.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=kernel | EXACT, threads=1
        )
        return _pixels(scaled)

    def _over_black(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a frame with its alpha laid over black; before scaling, so that no hidden colour bleeds in."""
        colours = self._flattener.reformat(frame, format="rgba", interpolation=EXACT, threads=1)
        rgba = _pixels(colours)
        weight = rgba[..., 3:].astype(np.uint16)
        return av.VideoFrame.from_ndarray(((rgba[..., :3] * weight + 127) // 255).astype(np.uint8), "rgb24")


def _pixels(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Return the pixels of a frame of bytes."""
    return cast(NDArray[np.uint8], frame.to_ndarray())
