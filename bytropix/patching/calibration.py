"""Find the level of a rule that gives the wanted mean patch length on a sample.

    scored sample -> slices spread over it -> bisect the level -> mean length on the whole sample

Only one number of a rule is calibrated, its level (a budget, a threshold); patches grow with it. The search
reads the sample alone, so the same sample gives the same level everywhere. Not every mean can be reached (DNA
has few distinct entropies, Japanese no patch below three bytes), so what was reached is recorded.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError
from bytropix.patching.config import PatchConfig
from bytropix.patching.limits import fresh_state
from bytropix.patching.rules import Rule

# 2 MiB in many slices tell the mean within about one percent, at a sixteenth of the time of a full sample.
SLICE_BYTES = 1 << 13
SLICES = 256
LARGE = 1 << 62  # compiled code counts in words of 64 bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The level of a rule and what it does to the fitted sample.

    Attributes:
        level: Budget or threshold in 1/32 bit, or stride in bytes; what the rule says.
        sample_bytes: Bytes of the sample.
        sample_patches: Patches of the sample at this level.
    """

    level: int
    sample_bytes: int
    sample_patches: int

    def __post_init__(self) -> None:
        for name, least in (("level", -LARGE), ("sample_bytes", 0), ("sample_patches", 1)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < LARGE:
                raise ConfigError(
                    f"{name} of a calibration must be a whole number from {least} to {LARGE}, got {value!r}"
                )

    @property
    def mean_patch(self) -> float:
        """Mean patch length on the sample, in bytes."""
        return self.sample_bytes / self.sample_patches


def calibrate(
    rule: Rule,
    config: PatchConfig,
    data: NDArray[np.uint8],
    entropy: NDArray[np.uint8],
    ends: NDArray[np.int64],
) -> Calibration:
    """Bisect the level of `rule` until the mean patch of the sample is nearest to `config.mean_patch`."""
    sliced, sliced_entropy, sliced_ends = _spread(data, entropy, ends)

    def mean_at(level: int) -> float:
        return sliced.size / _patches(rule, config, level, sliced, sliced_entropy, sliced_ends)

    low, high = rule.levels(config)
    while high - low > 1:
        middle = (low + high) // 2
        if mean_at(middle) < config.mean_patch:
            low = middle
        else:
            high = middle
    level = min((low, high), key=lambda candidate: abs(mean_at(candidate) - config.mean_patch))
    patches = _patches(rule, config, level, data, entropy, ends)
    return Calibration(level=level, sample_bytes=int(data.size), sample_patches=patches)


def _patches(
    rule: Rule,
    config: PatchConfig,
    level: int,
    data: NDArray[np.uint8],
    entropy: NDArray[np.uint8],
    ends: NDArray[np.int64],
) -> int:
    starts = rule.mark(data, entropy, ends, level=level, config=config, state=fresh_state())
    return int(np.count_nonzero(starts))


def _spread(
    data: NDArray[np.uint8], entropy: NDArray[np.uint8], ends: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Return evenly spread slices of the sample as documents of their own; a small sample as it is."""
    if data.size <= SLICES * SLICE_BYTES:
        return data, entropy, ends
    begins = np.arange(SLICES, dtype=np.int64) * (data.size - SLICE_BYTES) // (SLICES - 1)
    indices = (begins[:, None] + np.arange(SLICE_BYTES)).reshape(-1)
    borders = np.unique(np.concatenate([np.arange(1, SLICES + 1) * SLICE_BYTES, _inner_ends(begins, ends)]))
    return data[indices], entropy[indices], borders


def _inner_ends(begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ends of documents that fall inside a slice, as positions in the slices laid end to end."""
    number = np.searchsorted(begins, ends, side="left") - 1
    offset = ends - begins[np.maximum(number, 0)]
    inside = (number >= 0) & (offset <= SLICE_BYTES)
    return number[inside] * SLICE_BYTES + offset[inside]
