"""Choosing the next byte from its log-probabilities.

    log-probabilities (256) -> repetition penalty -> temperature (adaptive if asked) -> top-k -> top-p -> min-p -> draw

The generator is private and seeded, so that the same model, prompt and settings give the same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bytropix.errors import ConfigError

Scores = NDArray[np.float64]

LOW_BITS, HIGH_BITS = 0.3, 1.2  # adaptive temperature: cooler under the first entropy, warmer over the second


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """How the next byte is drawn."""

    temperature: float = 0.8
    """Divides the log-probabilities; 0 always takes the likeliest byte."""
    top_k: int = 0
    """Keep only the k likeliest bytes; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest bytes whose probabilities add up to at least p."""
    min_p: float = 0.0
    """Keep only bytes at least this share as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Multiplies the log-probability of each byte seen in the window; above 1 discourages repetition."""
    repetition_window: int = 64
    """Number of last bytes that the penalty looks at."""
    adaptive: bool = False
    """Cool down where the model is sure and warm up where it is not."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        rules = (
            ("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 or more"),
            ("top_k", self.top_k, 0 <= self.top_k <= 256, "0 to 256"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "more than 0, at most 1"),
            ("min_p", self.min_p, 0 <= self.min_p < 1, "0 to less than 1"),
            ("repetition_penalty", self.repetition_penalty, 0 < self.repetition_penalty < math.inf, "more than 0"),
            ("repetition_window", self.repetition_window, self.repetition_window >= 0, "0 or more"),
        )
        for name, value, right, rule in rules:
            if not right:
                raise ConfigError(f"{name} must be {rule}, got {value}")


class Sampler:
    """Draws bytes by a SamplerConfig."""

    def __init__(self, config: SamplerConfig) -> None:
        self.config = config
        self._draws = np.random.default_rng(config.seed)
        self._temperature = config.temperature

    def __call__(self, log_probs: Tensor, recent: Sequence[int]) -> int:
        """Return the next byte.

        Args:
            log_probs: (256,) in nats.
            recent: The bytes so far, of which the last `repetition_window` count.
        """
        config = self.config
        scores = log_probs.detach().cpu().numpy().astype(np.float64)
        seen = sorted(set(recent[-config.repetition_window :] if config.repetition_window else ()))
        if seen and config.repetition_penalty != 1:
            scores[seen] *= config.repetition_penalty
        if config.temperature == 0:
            return int(scores.argmax())
        if config.adaptive:
            self._adapt(scores)
        sums = self._filter(_softmax(scores / self._temperature)).cumsum()
        return int(sums.searchsorted(self._draws.random() * sums[-1], side="right"))

    def _adapt(self, scores: Scores) -> None:
        """Move the temperature by the entropy of the step, within half and one and a half of the one asked for."""
        probs = _softmax(scores)
        bits = -float((probs * np.log2(np.maximum(probs, np.finfo(np.float64).tiny))).sum())
        factor = 0.8 if bits < LOW_BITS else 1.1 if bits > HIGH_BITS else 1.0
        asked = self.config.temperature
        self._temperature = min(max(self._temperature * factor, 0.5 * asked), 1.5 * asked)

    def _filter(self, probs: Scores) -> Scores:
        """Return `probs` with the bytes that top-k, top-p or min-p drop set to zero."""
        config = self.config
        order = (-probs).argsort(kind="stable")
        ranked = probs[order]
        keep = ranked >= config.min_p * ranked[0]
        if config.top_k:
            keep[config.top_k :] = False
        if config.top_p < 1:
            # The byte that carries the sum past p is still kept. At 1 rounding would drop the least likely bytes.
            keep &= ranked.cumsum() - ranked < config.top_p
        keep[0] = True
        kept = np.zeros_like(probs)
        kept[order] = ranked * keep
        return kept


def _softmax(scores: Scores) -> Scores:
    """Return the probabilities of scores (256,)."""
    raised: Scores = np.exp(scores - scores.max())
    probs: Scores = raised / raised.sum()
    return probs
