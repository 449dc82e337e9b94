"""Patch documents: fit, calibrate, apply, and follow a document byte by byte.

    documents -> gather_sample -> fit_table -> score -> calibrate -> Patcher
    Patcher(document) -> entropy u8[n], starts bool[n]
    Patcher.online() -> push(byte) ... next_starts, for generation

A patcher is its config, its calibrated level and its entropy table: with these a store patches at generation
exactly as it did at ingestion.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError
from bytropix.patching.calibration import Calibration, calibrate
from bytropix.patching.config import PatchConfig, RuleName
from bytropix.patching.entropy_rule import EntropyRule
from bytropix.patching.fitting import fit_table
from bytropix.patching.fixed_rule import FixedRule
from bytropix.patching.limits import fresh_state
from bytropix.patching.rules import Rule
from bytropix.patching.scoring import score
from bytropix.patching.table import EntropyTable
from bytropix.patching.threshold_rule import ThresholdRule
from bytropix.patching.words_rule import WordsRule

RULES: dict[RuleName, Rule] = {
    "entropy": EntropyRule(),
    "threshold": ThresholdRule(),
    "words": WordsRule(),
    "fixed": FixedRule(),
}

# More text hardly changes a table of three bytes of context; this bounds the memory of a fit to about 350 MB.
SAMPLE_BYTES = 32 << 20
_CONTEXT_BYTES = 3
# A document of one byte, whichever it is, and where it ends.
_ANY, _ONE = np.zeros(1, dtype=np.uint8), np.ones(1, dtype=np.int64)


class Patcher:
    """Cuts documents into patches, from earlier bytes alone.

    Attributes:
        config: What was asked for.
        calibration: The level of the rule and what it reached on the fitted sample.
        table: The fitted entropies.
    """

    def __init__(self, config: PatchConfig, calibration: Calibration, table: EntropyTable) -> None:
        self.config = config
        self.calibration = calibration
        self.table = table
        self._rule = RULES[config.rule]

    def __call__(self, document: bytes | NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Score and cut one document.

        Returns:
            Entropy u8[n] in 1/32 bit and starts bool[n], each from earlier bytes alone; `starts[0]` is True.
        """
        data = _as_bytes(document)
        return self.patch(data, np.array([data.size], dtype=np.int64))

    def patch(self, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Score and cut documents laid end to end; `ends` holds the end of each, the last one `data.size`."""
        entropy = score(data, ends, self.table)
        return entropy, self.cut(data, entropy, ends)

    def cut(self, data: NDArray[np.uint8], entropy: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the starts of documents that were scored before, bool[n]."""
        return self._mark(data, entropy, ends, fresh_state())

    def online(self) -> "OnlinePatcher":
        """Return a patcher that follows one document byte by byte."""
        return OnlinePatcher(self)

    def settings(self) -> dict[str, Any]:
        """Return config and calibration as plain data for a manifest; `from_settings` takes it back."""
        return {"config": asdict(self.config), "calibration": asdict(self.calibration)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any], table: EntropyTable) -> Self:
        """Build the patcher that returned `settings`.

        Raises:
            ConfigError: A key is missing or unknown, or the table measures what the rule does not.
        """
        try:
            config = PatchConfig(**settings["config"])
            calibration = Calibration(**settings["calibration"])
        except (KeyError, TypeError, ArithmeticError) as error:
            raise ConfigError(f"patcher settings are incomplete or of another version: {error}") from error
        check_measure(table, config)
        return cls(config, calibration, table)

    def _mark(
        self,
        data: NDArray[np.uint8],
        entropy: NDArray[np.uint8],
        ends: NDArray[np.int64],
        state: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        level = self.calibration.level
        return self._rule.mark(data, entropy, ends, level=level, config=self.config, state=state)


class OnlinePatcher:
    """Follows one document as it grows, and says ahead of each byte whether it will start a patch."""

    def __init__(self, patcher: Patcher) -> None:
        self._patcher = patcher
        self._state = fresh_state()
        self._tail = b""
        self._ahead = self._look_ahead()

    @property
    def next_starts(self) -> bool:
        """Whether the byte to come starts a patch, whatever it will be; True at a document's start."""
        # Any byte stands for the one to come: its start does not look at it.
        return bool(self._patcher._mark(_ANY, self._ahead, _ONE, self._state.copy())[0])

    def push(self, byte: int) -> None:
        """Take the next byte of the document, 0 to 255."""
        value = bytes((byte,))
        self._patcher._mark(np.frombuffer(value, np.uint8), self._ahead, _ONE, self._state)
        self._tail = (self._tail + value)[-_CONTEXT_BYTES:]
        self._ahead = self._look_ahead()

    def feed(self, chunk: bytes | NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Take the next bytes of the document; return their entropy and starts, as for the whole document."""
        data = _as_bytes(chunk)
        entropy = self._score(data)
        starts = self._patcher._mark(data, entropy, np.array([data.size], dtype=np.int64), self._state)
        self._tail = (self._tail + data[-_CONTEXT_BYTES:].tobytes())[-_CONTEXT_BYTES:]
        self._ahead = self._look_ahead()
        return entropy, starts

    def copy(self) -> "OnlinePatcher":
        """Return an independent patcher at the same place of the document."""
        other = OnlinePatcher(self._patcher)
        other._state = self._state.copy()
        other._tail, other._ahead = self._tail, self._ahead
        return other

    def _look_ahead(self) -> NDArray[np.uint8]:
        """Return the entropy (1,) before the byte to come, which does not look at it."""
        return self._score(_ANY)

    def _score(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the entropy before each of the next bytes."""
        joined = np.concatenate((np.frombuffer(self._tail, np.uint8), data))
        return score(joined, np.array([joined.size], dtype=np.int64), self._patcher.table)[len(self._tail) :]


def fit_patcher(documents: Iterable[bytes | NDArray[np.uint8]], config: PatchConfig) -> Patcher:
    """Fit the entropy table on a sample and calibrate the rule to `config.mean_patch` on it.

    Args:
        documents: The sample, a fair mixture of what is to be patched. Read until `SAMPLE_BYTES` are taken.
        config: The rule and its settings.

    Raises:
        ConfigError: The sample holds no byte.
    """
    data, ends = gather_sample(documents)
    return _calibrated(fit_table(data, ends, RULES[config.rule].measure), data, ends, config)


def calibrate_patcher(
    table: EntropyTable, documents: Iterable[bytes | NDArray[np.uint8]], config: PatchConfig
) -> Patcher:
    """Return a patcher with a table that was fitted before; on the same sample it is the one that `fit_patcher` gives.

    Raises:
        ConfigError: The sample holds no byte, or the table measures what the rule does not.
    """
    check_measure(table, config)
    data, ends = gather_sample(documents)
    return _calibrated(table, data, ends, config)


def check_measure(table: EntropyTable, config: PatchConfig) -> None:
    """Refuse a table that measures what the rule does not.

    Raises:
        ConfigError: It does.
    """
    needed = RULES[config.rule].measure
    if table.measure != needed:
        raise ConfigError(
            f"patch rule '{config.rule}' needs a table of {needed} entropies, got one of {table.measure} entropies"
        )


def _calibrated(table: EntropyTable, data: NDArray[np.uint8], ends: NDArray[np.int64], config: PatchConfig) -> Patcher:
    return Patcher(config, calibrate(RULES[config.rule], config, data, score(data, ends, table), ends), table)


def gather_sample(
    documents: Iterable[bytes | NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Lay documents end to end until `SAMPLE_BYTES` are taken; the last one is cut there.

    Returns:
        Bytes u8[n] and the end of each document i64[d].

    Raises:
        ConfigError: No byte came.
    """
    pieces: list[NDArray[np.uint8]] = []
    room = SAMPLE_BYTES
    for document in documents:
        pieces.append(_as_bytes(document)[:room].copy())
        room -= pieces[-1].size
        if room == 0:
            break
    if room == SAMPLE_BYTES:
        raise ConfigError("cannot fit a patcher on an empty sample: give it documents of at least one byte in all")
    ends = np.cumsum([piece.size for piece in pieces], dtype=np.int64)
    return np.concatenate(pieces), ends


def _as_bytes(document: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a document as contiguous u8[n] without a copy where possible."""
    if isinstance(document, np.ndarray):
        return np.ascontiguousarray(document, dtype=np.uint8)
    return np.frombuffer(document, dtype=np.uint8)
