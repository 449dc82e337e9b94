"""The maps of a run of frames, as ingestion stores them.

frames -> regions: one map for their size, or one for each picture -> f32[t, r, 4]
       -> motion:  boxes around what differs from the frame before -> f32[t, m, 4]
"""

import numpy as np
from numpy.typing import NDArray

from bytropix.gaad.adaptive import adaptive_regions
from bytropix.gaad.config import RegionConfig
from bytropix.gaad.decomposition import decompose
from bytropix.gaad.motion import motion_regions


def region_maps(
    frames: NDArray[np.uint8], previous: NDArray[np.uint8] | None, config: RegionConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the regions and the motion regions of frames, in pixels, as x0, y0, x1, y1; padding is 0, 0, 0, 0.

    A film may be handed over in pieces of any length: each piece with the last frame of the one before gives what the
    whole would, but for a first frame on its own, which has no motion where it would have that of its second.

    Args:
        frames: u8[t, h, w, 3], t >= 1.
        previous: u8[h, w, 3], the frame before the first; `None` where a scene begins.
        config: What the maps are like.

    Returns:
        f32[t, config.regions, 4] and f32[t, config.motion_regions, 4].
    """
    if config.adaptive:
        regions = adaptive_regions(frames, config)
    else:
        boxes = decompose(frames.shape[2], frames.shape[1], config).boxes
        regions = np.broadcast_to(boxes, (len(frames), *boxes.shape))
    return regions, motion_regions(frames, previous, config)
