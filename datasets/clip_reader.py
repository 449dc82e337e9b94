"""Reading clips into batches: each clip straight into its row, no Python per frame.

Clips -> memory of one batch, reused -> frames, boxes and times of each clip, read into place -> mirrored -> ClipBatch
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from bytropix.datasets.buffers import BufferPool
from bytropix.datasets.clip_batch import TENSORS, ClipBatch
from bytropix.datasets.clip_order import Clips
from bytropix.datasets.quarantine import Damage, Quarantine
from bytropix.datasets.store.video_part import VideoPart
from bytropix.errors import StoreError

_ALIGNED = 64  # bytes; any type may begin there


class ClipReader:
    """Reads clips of a list of parts; safe to call from several threads.

    Args:
        parts: The parts, in the order that `Clips.parts` numbers them; at least one.
        clip_frames: Frames of a clip.
        quarantine: What to do about damage.
        pinned: Whether batches are to lie in pinned memory.

    Attributes:
        frame_shape: Height, width and 3.
    """

    def __init__(
        self, parts: Sequence[VideoPart], *, clip_frames: int, quarantine: Quarantine, pinned: bool = False
    ) -> None:
        self._parts, self._quarantine, self._pool = parts, quarantine, BufferPool(pinned=pinned)
        first = parts[0]
        self.frame_shape = (first.height, first.width, 3)
        boxes = first.box_counts  # told without reading boxes, which may be damaged and still be left out
        self._fields: list[tuple[tuple[int, ...], torch.dtype]] = [
            ((clip_frames, *self.frame_shape), torch.uint8),
            ((clip_frames, boxes[0], 4), torch.float32),
            ((clip_frames, boxes[1], 4), torch.float32),
            ((clip_frames,), torch.float64),
            ((), torch.int64),
            ((), torch.int64),
            ((), torch.int64),
            ((), torch.bool),
        ]
        self._row_bytes = [math.prod(shape) * dtype.itemsize for shape, dtype in self._fields]
        self._clip_frames = clip_frames

    def __call__(self, clips: Clips, *, rows: int, position: int) -> ClipBatch:
        """Read clips into a batch of so many rows; those behind the clips are empty.

        Raises:
            StoreError: Something that a clip touches is damaged, and not to be left out.
        """
        batch = ClipBatch(**self._tensors(rows), clips=0, position=position)
        count = clips.parts.size
        batch.video.numpy()[:count] = clips.videos
        batch.start.numpy()[:count] = clips.offsets
        batch.step.numpy()[:count] = clips.steps
        batch.flipped.numpy()[:count] = clips.flipped
        frames, regions, motion, pts = (
            tensor.numpy() for tensor in (batch.frames, batch.regions, batch.motion, batch.pts)
        )
        places = zip(
            clips.parts.tolist(), clips.starts.tolist(), clips.steps.tolist(), clips.flipped.tolist(), strict=True
        )
        for row, (number, start, step, flipped) in enumerate(places):
            stop = start + (self._clip_frames - 1) * step + 1
            part = None
            try:
                part = self._parts[number]
                part.read_frames(start, stop, step, frames[row], check=self._quarantine.checks != "off")
                regions[row] = part.regions(start, stop)[::step]
                motion[row] = part.motion(start, stop)[::step]
                pts[row] = part.pts[start:stop:step]
            except StoreError as error:
                place = f"part {number}" if part is None else part.url
                self._quarantine.add(Damage(place, "frames", -1, 1, str(error)), error)
                _empty(batch, slice(row, row + 1))
                continue
            if flipped:
                flip_rows(frames[row].reshape(-1, 3 * self.frame_shape[1]))
                flip_boxes(regions[row], self.frame_shape[1])
                flip_boxes(motion[row], self.frame_shape[1])
        if count < rows:
            _empty(batch, slice(count, rows))
        return replace(batch, clips=int(np.count_nonzero(batch.video.numpy() >= 0)))

    @property
    def clip_bytes(self) -> int:
        """Bytes of a clip and all that comes with it."""
        return sum(self._row_bytes)

    def _tensors(self, rows: int) -> dict[str, Any]:
        """Return the tensors of a batch, side by side in one stretch of memory, with arbitrary content."""
        sizes = [rows * size for size in self._row_bytes]
        places = list(accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0))
        memory = self._pool.take(places[-1])
        return {
            name: memory[place : place + size].view(dtype).view(rows, *shape)
            for name, (shape, dtype), place, size in zip(TENSORS, self._fields, places, sizes, strict=False)
        }


def _empty(batch: ClipBatch, rows: slice) -> None:
    """Make rows empty."""
    for tensor in (batch.frames, batch.regions, batch.motion, batch.pts, batch.start, batch.step, batch.flipped):
        tensor[rows] = 0
    batch.video[rows] = -1


@numba.njit(nogil=True, cache=True)
def flip_rows(rows: NDArray[np.uint8]) -> None:
    """Mirror rows of pixels, u8 [n, 3 * width], left for right, in place.

    All bytes are turned round, then the colours of each pixel: both loops are ones that compilers make wide, where
    indices cannot be negative; pixel by pixel it would take 15 times as long.
    """
    width, one, two, three = np.uint64(rows.shape[1]), np.uint64(1), np.uint64(2), np.uint64(3)
    turned = np.empty(rows.shape[1], np.uint8)
    for number in range(rows.shape[0]):
        row = rows[number]
        for i in range(width):
            turned[np.uint64(i)] = row[width - one - np.uint64(i)]
        for pixel in range(width // three):
            red = three * np.uint64(pixel)
            row[red], row[red + one], row[red + two] = turned[red + two], turned[red + one], turned[red]


@numba.njit(nogil=True, cache=True)
def flip_boxes(boxes: NDArray[np.float32], width: int) -> None:
    """Mirror boxes, f32 [t, n, 4], in frames of a width, in place; those that are padding stay."""
    for t in range(boxes.shape[0]):
        for n in range(boxes.shape[1]):
            left, right = boxes[t, n, 0], boxes[t, n, 2]
            if right > left and boxes[t, n, 3] > boxes[t, n, 1]:
                boxes[t, n, 0], boxes[t, n, 2] = np.float32(width) - right, np.float32(width) - left
