"""The settings of a patcher, checked."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from bytropix.errors import ConfigError

RuleName = Literal["entropy", "threshold", "words", "fixed"]

LONGEST_MEAN = 64
LONGEST_PATCH = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchConfig:
    """How bytes are grouped into patches. Lengths in bytes.

    Attributes:
        rule: A name from `RULES`.
        mean_patch: Mean patch length to aim at on the fitted sample, 1 to 64. Rule `words` has no choice.
        min_patch: Least length, 1 to `max_patch`. The last patch of a document may be shorter.
        max_patch: Greatest length, up to 1024; a character under way is finished first, at most 3 bytes more.
        peak_percent: Rule `entropy`: an entropy above this share of the running mean is a peak.
        share_percent: Rule `entropy`: share of the budget that must be used before a peak starts a patch.
        toll_bits: Rule `entropy`: what every byte uses of the budget on top of its entropy, so that a run of
            certain bytes ends too. The larger, the more alike are the patch lengths of unlike kinds of data.
    """

    rule: RuleName = "entropy"
    mean_patch: float = 6.0
    min_patch: int = 1
    max_patch: int = 64
    peak_percent: int = 140
    share_percent: int = 35
    toll_bits: int = 8

    def __post_init__(self) -> None:
        if self.rule not in get_args(RuleName):
            raise ConfigError(f"patch rule must be one of {', '.join(get_args(RuleName))}, got {self.rule!r}")
        if not (math.isfinite(self.mean_patch) and 1 <= self.mean_patch <= LONGEST_MEAN):
            raise ConfigError(f"mean patch length must be between 1 and {LONGEST_MEAN} bytes, got {self.mean_patch}")
        _check_range("max_patch", self.max_patch, 1, LONGEST_PATCH)
        _check_range("min_patch", self.min_patch, 1, self.max_patch)
        if not self.min_patch <= self.mean_patch <= self.max_patch:
            raise ConfigError(
                f"mean patch length must be between min_patch {self.min_patch} and "
                f"max_patch {self.max_patch}, got {self.mean_patch}; move mean_patch or the limits"
            )
        _check_range("peak_percent", self.peak_percent, 1, 10_000)
        _check_range("share_percent", self.share_percent, 0, 100)
        _check_range("toll_bits", self.toll_bits, 0, 64)


def _check_range(name: str, value: int, least: int, greatest: int) -> None:
    """Raise ConfigError unless `value` is a whole number from `least` to `greatest`."""
    if type(value) is not int or not least <= value <= greatest:
        raise ConfigError(f"{name} must be a whole number from {least} to {greatest}, got {value!r}")
