"""The `threshold` rule: one global threshold on the entropy of the next byte.

The rule of the Byte Latent Transformer (Pagnoni et al. 2024, section 2.3, "global constraint").
It is strict: an entropy equal to the threshold starts no patch.
"""

import numpy as np
from numpy.typing import NDArray

from bytropix.patching.config import PatchConfig
from bytropix.patching.limits import mark_wanted
from bytropix.patching.table import LARGEST, Measure


class ThresholdRule:
    """Start where the entropy of the next byte exceeds the level, in 1/32 bit."""

    measure: Measure = "byte"

    def levels(self, config: PatchConfig) -> tuple[int, int]:
        """Return the least threshold (every byte starts) and the greatest (none does)."""
        return -1, LARGEST

    def mark(
        self,
        data: NDArray[np.uint8],
        entropy: NDArray[np.uint8],
        ends: NDArray[np.int64],
        *,
        level: int,
        config: PatchConfig,
        state: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Return the patch starts; see `Rule.mark`."""
        starts = np.empty(data.size, dtype=np.bool_)
        wanted = entropy.astype(np.int16) > level
        mark_wanted(data, wanted, ends, config.min_patch, config.max_patch, state, starts)
        return starts
