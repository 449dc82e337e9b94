"""What became of damaged blocks: an error at once, or a counted list with an end.

StoreError of a block -> checks "raise": raised    "quarantine": noted, until more blocks than the budget are
"""

import threading
from dataclasses import dataclass
from typing import Literal

from bytropix.datasets.batches import check_whole
from bytropix.errors import ConfigError, StoreError, UnreachableError

Checks = Literal["raise", "quarantine", "off"]
CHECKS: tuple[Checks, ...] = ("raise", "quarantine", "off")


@dataclass(frozen=True, slots=True)
class Damage:
    """Some blocks that cannot be read.

    Attributes:
        part: Where the part lies.
        array: bytes, starts or frames.
        block: The block's number in the array; -1 for all of the part's, and of frames, where the reason tells.
        blocks: How many blocks that are.
        reason: What the store said; it names file and offset.
    """

    part: str
    array: str
    block: int
    blocks: int
    reason: str


class Quarantine:
    """The damage that one reader has met; safe for threads.

    Args:
        checks: What to do about it.
        budget: Most blocks that may be left out.

    Raises:
        ConfigError: An unknown policy, or a negative budget.
    """

    def __init__(self, checks: Checks, budget: int) -> None:
        if checks not in CHECKS:
            raise ConfigError(f"checks must be one of {', '.join(CHECKS)}, got {checks!r}")
        check_whole(budget=budget)
        if budget < 0:
            raise ConfigError(f"the budget of damaged blocks must not be negative, got {budget}")
        self.checks, self.budget = checks, budget
        self.found: list[Damage] = []
        self._lock = threading.Lock()

    def add(self, damage: Damage, error: StoreError) -> None:
        """Note damage, or raise `error`.

        Raises:
            StoreError: Damage is not to be left out, or there is more of it than the budget allows; or `error` tells
                of a server that cannot be reached, which is no damage.
        """
        if self.checks != "quarantine" or isinstance(error, UnreachableError):
            raise error
        with self._lock:
            if damage not in self.found:  # after another error, what was found with it is met again
                self.found.append(damage)
            count = sum(one.blocks for one in self.found)
        if count > self.budget:
            over = StoreError(
                f"{error}; that makes {count} damaged blocks, more than the {self.budget} that may be left out"
            )
            over.offset = error.offset
            raise over from error
