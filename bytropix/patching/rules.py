"""What a boundary rule is."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bytropix.patching.config import PatchConfig
from bytropix.patching.table import Measure


class Rule(Protocol):
    """Decides where patches start, from earlier bytes alone."""

    measure: Measure

    def levels(self, config: PatchConfig) -> tuple[int, int]:
        """Return the least and the greatest level, the one integer that calibration may choose."""

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
        """Return the patch starts of documents laid end to end, bool[n].

        Args:
            data: Bytes of the documents.
            entropy: Their entropies in 1/32 bit, from `score`.
            ends: End of each document in `data`, ascending, the last one `data.size`. The first continues the
                document that `state` is in.
            level: The calibrated integer.
            config: Limits and constants.
            state: State before the first byte, from `fresh_state` at a document's start; left at the state
                after the last byte, so that the next call may go on within the last document.
        """
