"""The `fixed` rule: patches of one length, the control that any rule about content must beat."""

import numpy as np
from numpy.typing import NDArray

from bytropix.patching.config import PatchConfig
from bytropix.patching.limits import mark_wanted
from bytropix.patching.table import Measure


class FixedRule:
    """Start after `level` bytes (the mean patch length, rounded), counted from the last start.

    The stride is the greatest length here, so a start waits for the end of a character, three bytes at most.
    """

    measure: Measure = "byte"

    def levels(self, config: PatchConfig) -> tuple[int, int]:
        """Return the stride twice: nothing is left to calibrate."""
        stride = int(config.mean_patch + 0.5)
        return stride, stride

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
        mark_wanted(data, np.zeros(data.size, dtype=np.bool_), ends, level, level, state, starts)
        return starts
