"""Several stores as one source: which share of the windows each of them gives, and from when on.

    stores, weights or sizes -> shares, as places of a cycle -> phases (start, places) -> MixtureOrder

Shares are whole places of a cycle of `PLACES`, about 0.0005 %: integers, so that every machine mixes alike.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bytropix.datasets.lanes import LANES
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError

PLACES = LANES << 12  # of a cycle; the smallest share is one of them


@dataclass(frozen=True, slots=True)
class Stage:
    """Weights that hold from a place of the stream on.

    Attributes:
        start: Windows delivered before, of all stores and ranks together; step * windows of a step.
        weights: One for each store, as in `Mixture`.
    """

    start: int
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """A stage as the order takes it: `places` of a cycle for each store, from `start` on."""

    start: int
    places: tuple[int, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each store, as it is kept."""
        return tuple(count / PLACES for count in self.places)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Several stores to stream from; each runs through its own epochs, in its own shuffled order, without end.

    Without weights, store i has a share in proportion to n_bytes_i ** (1 / temperature), of the bytes of the split: 1
    mixes by size, so that all stores end their epochs together; a larger temperature is flatter, infinity is even.

    Attributes:
        stores: Open stores.
        weights: One for each store, not negative; only their ratios count. A store of weight 0 is not read, any other
            gets one place of a cycle at least.
        temperature: How sizes become shares, in place of weights; 1 unless given.
        stages: Later weights, by ascending start.

    Raises:
        ConfigError: No store or one twice, weights or a temperature that cannot work, or stages out of order.
    """

    stores: tuple[Store, ...]
    weights: tuple[float, ...] | None = None
    temperature: float | None = None
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stores", tuple(self.stores))
        if not self.stores:
            raise ConfigError("a mixture needs a store")
        places: dict[str, str] = {}
        for store in self.stores:
            if store.fingerprint in places:
                raise ConfigError(
                    f"{store.url}: the same store as {places[store.fingerprint]}; name it once, with both weights added"
                )
            places[store.fingerprint] = store.url
        if self.weights is not None:
            if self.temperature is not None:
                raise ConfigError("weights and a temperature: give one of them, a temperature makes weights of sizes")
            object.__setattr__(self, "weights", self._checked(self.weights, "weights"))
        if self.temperature is not None and not self.temperature > 0:
            raise ConfigError(f"the temperature of a mixture must be positive, got {self.temperature}")
        object.__setattr__(self, "stages", tuple(self.stages))
        before = 0
        for stage in self.stages:
            if stage.start <= before:
                raise ConfigError(f"stages must begin one after the other, behind 0: {stage.start} follows {before}")
            self._checked(stage.weights, f"weights of the stage at {stage.start}")
            before = stage.start

    def phases(self, sizes: Sequence[int]) -> tuple[Phase, ...]:
        """Return the shares over time, the first from 0 on.

        Args:
            sizes: Bytes of each store's split.
        """
        temperature = 1.0 if self.temperature is None else self.temperature
        weights = weights_of_sizes(sizes, temperature) if self.weights is None else self.weights
        stages = (Stage(0, weights), *self.stages)
        return tuple(Phase(stage.start, places_of(stage.weights)) for stage in stages)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the stores' places; they are opened again there."""
        return _reopen, ([store.url for store in self.stores], self.weights, self.temperature, self.stages)

    def _checked(self, weights: Sequence[float], what: str) -> tuple[float, ...]:
        """Return weights that can work."""
        if len(weights) != len(self.stores):
            raise ConfigError(f"{what}: {len(weights)} for {len(self.stores)} stores; give one for each store")
        for store, weight in zip(self.stores, weights, strict=True):
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"{what}: {weight} for {store.url}; a weight must be a number that is not negative")
        if not any(weights):
            raise ConfigError(f"{what}: all are 0, so nothing would be read; give one store a positive weight")
        return tuple(float(weight) for weight in weights)


def _reopen(
    urls: Sequence[str], weights: tuple[float, ...] | None, temperature: float | None, stages: tuple[Stage, ...]
) -> Mixture:
    return Mixture(tuple(map(Store.open, urls)), weights, temperature, stages)


def fingerprint_at(position: int, stores: Sequence[Store], phases: Sequence[Phase]) -> str:
    """Return what decides the windows before a position of a mixture: sha256 of stores and begun phases, in hex.

    Phases that begin at the position or later do not count: a run may go on with others.
    """
    begun = [[phase.start, phase.places] for phase in phases if phase.start < max(1, position)]
    kept = {"stores": [store.fingerprint for store in stores], "phases": begun}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def weights_of_sizes(sizes: Sequence[int], temperature: float) -> tuple[float, ...]:
    """Return weights in proportion to size ** (1 / temperature), 1 for the largest size."""
    largest = max(sizes)
    return tuple((size / largest) ** (1 / temperature) for size in sizes)


def places_of(weights: Sequence[float]) -> tuple[int, ...]:
    """Return the places of a cycle in proportion to weights: rounded down, the rest to the largest remainders.

    A weight that is not 0 gets a place, at the cost of the largest.
    """
    largest = max(weights)
    total = math.fsum(weight / largest for weight in weights)
    exact = [weight / largest / total * PLACES for weight in weights]
    places = [max(int(count), int(weight > 0)) for count, weight in zip(exact, weights, strict=True)]
    while sum(places) > PLACES:
        places[places.index(max(places))] -= 1
    by_remainder = sorted(range(len(places)), key=lambda index: places[index] - exact[index])
    for index in by_remainder[: PLACES - sum(places)]:
        places[index] += 1
    return tuple(places)
