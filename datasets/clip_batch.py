"""What a stream of clips delivers: frames, the regions and motion regions on them, and where they are from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

TENSORS = ("frames", "regions", "motion", "pts", "video", "start", "step", "flipped")


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """One training batch of clips, or one rank's rows of it.

    B rows, T frames of a clip, H x W pixels, R regions and M motion regions a frame. Boxes are x0, y0, x1, y1 in pixels
    of the frame; one that is padding is 0, 0, 0, 0.

    Attributes:
        frames: u8 [B, T, H, W, 3], RGB.
        regions: f32 [B, T, R, 4].
        motion: f32 [B, T, M, 4].
        pts: f64 [B, T], seconds in the video.
        video: i64 [B], the video's number in the split; -1 for a row that is empty, all zeros: padding of a short
            batch, or damaged and left out.
        start: i64 [B], the clip's first frame, in frames of the video as it is stored.
        step: i64 [B], stored frames from one frame of the clip to the next.
        flipped: bool [B], whether the clip is mirrored, left for right, its boxes with it.
        clips: Rows that hold a clip.
        position: Clips that all ranks together were given before this batch: epoch * clips + place in the epoch.
    """

    frames: Tensor
    regions: Tensor
    motion: Tensor
    pts: Tensor
    video: Tensor
    start: Tensor
    step: Tensor
    flipped: Tensor
    clips: int
    position: int

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel, or be saved, each tensor by itself and without the memory that lies around it."""
        return ClipBatch, (*(getattr(self, name).clone() for name in TENSORS), self.clips, self.position)

    @property
    def rows(self) -> int:
        """Rows, empty ones too."""
        return self.video.shape[0]

    @property
    def filled(self) -> Tensor:
        """Which rows hold a clip, bool [B], made at each call."""
        return self.video >= 0

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Return the batch on a device; from pinned memory, the copy does not wait."""
        return self._moved(partial(Tensor.to, device=device, non_blocking=True))

    def pin_memory(self) -> "ClipBatch":
        """Return a copy in pinned memory, as a `DataLoader` asks for."""
        return self._moved(Tensor.pin_memory)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "ClipBatch":
        moved: dict[str, Any] = {name: move(getattr(self, name)) for name in TENSORS}
        return replace(self, **moved)
