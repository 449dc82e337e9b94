"""What a video run shows in TensorBoard: frames beside what became of them.

    frames, reconstructions -> two rows of pictures -> PNG
    given frames, their boxes -> a row of drawn pictures -> PNG
    last given | truth | prediction -> an animation -> GIF         -> Summary protos -> the run's events

TensorBoard shows an animated GIF where it is told of an image, so nothing has to be coded as video.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from bytropix.jobs.drawing import GROUND, Frame, drawn, enlargement, outlines

LONGEST = 128  # pixels of a frame's longer side; smaller frames are enlarged by a whole number
MOST = 8  # pictures in a row
GAP = 2  # pixels between pictures
GIF_SECONDS = 0.15  # that each picture of an animation stays


def image_summary(tag: str, coded: bytes, size: tuple[int, int]) -> Summary:
    """Return a PNG or GIF, of height and width `size`, as TensorBoard takes it."""
    height, width = size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=coded)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def still(tag: str, picture: Frame) -> Summary:
    """Return one picture u8 [h, w, 3]."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return image_summary(tag, out.getvalue(), picture.shape[:2])


def animation(tag: str, pictures: Sequence[Frame]) -> Summary:
    """Return pictures u8 [h, w, 3] as an endless animation."""
    out = io.BytesIO()
    first, *rest = map(Image.fromarray, pictures)
    duration = round(1000 * GIF_SECONDS)
    first.save(out, "GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    return image_summary(tag, out.getvalue(), pictures[0].shape[:2])


def two_rows(above: NDArray[np.uint8], below: NDArray[np.uint8]) -> Frame:
    """Return pictures over those they should be compared with, both u8 [n, h, w, 3]."""
    scale = enlargement(above.shape[1:3], LONGEST)
    rows = [beside([drawn(frame, (), scale) for frame in row[:MOST]]) for row in (above, below)]
    return stacked(rows)


def mapped(
    frames: NDArray[np.uint8], regions: NDArray[np.float32], motion: NDArray[np.float32], rectangles: int
) -> Frame:
    """Return frames u8 [n, h, w, 3] in a row, with their regions [n, r, 4] and motion regions [n, m, 4] drawn in."""
    shape = (frames.shape[1], frames.shape[2])
    scale = enlargement(shape, LONGEST)
    boxes = [outlines(*one, shape, rectangles) for one in zip(regions, motion, strict=True)]
    return beside([drawn(frame, some, scale) for frame, some in zip(frames[:MOST], boxes, strict=False)])


def compared(clip: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> list[Frame]:
    """Return the pictures of an animation: the last given frame held, the truth, and the prediction, side by side.

    Args:
        clip: u8 [T, h, w, 3], the given frames and those that follow.
        predicted: u8 [P, h, w, 3], what was made of the given ones; P < T.
    """
    given = len(clip) - len(predicted)
    held = np.concatenate([clip[:given], np.repeat(clip[given - 1 : given], len(predicted), axis=0)])
    made = np.concatenate([clip[:given], predicted])
    scale = enlargement(clip.shape[1:3], LONGEST)
    return [beside([drawn(frame, (), scale) for frame in frames]) for frames in zip(held, clip, made, strict=True)]


def beside(pictures: Sequence[Frame]) -> Frame:
    """Return pictures of one size from left to right."""
    gap = np.full((pictures[0].shape[0], GAP, 3), GROUND, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1)


def stacked(pictures: Sequence[Frame]) -> Frame:
    """Return pictures of one width from top to bottom."""
    gap = np.full((GAP, pictures[0].shape[1], 3), GROUND, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=0)
