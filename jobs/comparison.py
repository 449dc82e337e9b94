"""Predictions beside the truth, as a picture or as a film.

clips, predictions -> .png: a row for each clip, given | true | predicted
                   -> .mp4, .gif, .webp: last given held | truth | prediction, the clips below each other
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.jobs.drawing import GROUND, Frame, drawn, enlargement
from bytropix.jobs.pictures import write_pictures
from bytropix.jobs.video_pictures import beside, compared, stacked

HELD_SECONDS = 0.12  # that a picture of the film stays, unless told otherwise
LONGEST = 96  # pixels of a frame's longer side in the strip; smaller frames are enlarged by a whole number
SPACE = 10  # pixels between what is given, true and predicted


def write_comparison(
    path: Path,
    clips: Sequence[NDArray[np.uint8]],
    predictions: Sequence[NDArray[np.uint8]],
    *,
    seconds: float = HELD_SECONDS,
) -> None:
    """Write clips beside what was predicted of them, to a file of the kind that its suffix names.

    Args:
        path: Where to; an earlier file is replaced.
        clips: u8 [T, h, w, 3] each, given frames and those that follow; all of one size.
        predictions: u8 [P, h, w, 3] each, P < T: what was made of the first T - P frames.
        seconds: How long a picture of a film is shown.

    Raises:
        ConfigError: The suffix is none of ours, or the folder is missing.
        StoreError: The place cannot be written.
    """
    if path.suffix.lower() == ".png":
        strips = [strip(clip, made) for clip, made in zip(clips, predictions, strict=True)]
        write_pictures(path, [stacked(strips)], [seconds])
        return
    films = [compared(clip, made) for clip, made in zip(clips, predictions, strict=True)]
    pictures = [even(stacked(frames)) for frames in zip(*films, strict=True)]
    write_pictures(path, pictures, [seconds] * len(pictures))


def strip(clip: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> Frame:
    """Return a row of pictures: the given frames, the true ones, the predicted ones."""
    given = len(clip) - len(predicted)
    scale = enlargement(clip.shape[1:3], LONGEST)
    groups = [
        beside([drawn(frame, (), scale) for frame in frames]) for frames in (clip[:given], clip[given:], predicted)
    ]
    space = np.full((groups[0].shape[0], SPACE, 3), GROUND, np.uint8)
    return np.concatenate([part for group in groups for part in (group, space)][:-1], axis=1)


def even(picture: Frame) -> Frame:
    """Return a picture with a line of ground to its right and below where its sides are odd, as H.264 needs it."""
    height, width = picture.shape[:2]
    whole = np.full((height + height % 2, width + width % 2, 3), GROUND, np.uint8)
    whole[:height, :width] = picture
    return whole
