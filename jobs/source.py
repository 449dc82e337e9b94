"""What a training reads, from the words on its command line.

--store PLACE[:WEIGHT] ... --temperature T --curriculum STEP:WEIGHT,WEIGHT ... -> Store, or Mixture of several
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bytropix.datasets.mixture import Mixture, Stage
from bytropix.datasets.mixture_order import MixtureOrder
from bytropix.datasets.order import Order
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError

Source = Store | Mixture

SERVER_WITH_PORT = re.compile(r"https?://([^/]*@)?(\[[^/\]]*\]|[^/:@]*):[0-9]+")


def open_source(
    places: Sequence[str], *, temperature: float | None, curriculum: Sequence[str], step_windows: int
) -> Source:
    """Open the stores of a training.

    Args:
        places: Values of --store.
        temperature: Value of --temperature.
        curriculum: Values of --curriculum.
        step_windows: Windows of an optimizer step, in which a stage's steps are counted.

    Raises:
        ConfigError: No store, weights for some of them only, or what `Mixture` refuses.
        StoreError: A store cannot be opened.
    """
    if not places:
        raise ConfigError("--store is needed: the store to train on, or several with their weights (a.bx:0.7 b.bx:0.3)")
    named = [read_place(word) for word in places]
    stages = tuple(Stage(step * step_windows, weights) for step, weights in map(read_stage, curriculum))
    bare = [place for place, weight in named if weight is None]
    if bare and len(bare) < len(named):
        raise ConfigError(f"--store {bare[0]} has no weight, but others have; give all of them one, or none")
    if len(named) == 1 and (stages or temperature is not None):
        raise ConfigError("--temperature and --curriculum are for several stores, and there is only one --store")
    weights = None if bare else tuple(weight for _, weight in named if weight is not None)
    stores = tuple(Store.open(place) for place, _ in named)
    mixture = Mixture(stores, weights, temperature, stages)
    return mixture if len(stores) > 1 else stores[0]


def stores_of(source: Source) -> tuple[Store, ...]:
    """Return the stores of a source; a run keeps the patcher of the first one."""
    return source.stores if isinstance(source, Mixture) else (source,)


def names_of(source: Source) -> list[str]:
    """Return a name for each store, its own or, where two have the same, that with its number."""
    names = [store.name for store in stores_of(source)]
    return [name if names.count(name) == 1 else f"{index}-{name}" for index, name in enumerate(names, 1)]


def facts_of(mixture: Mixture) -> dict[str, Any]:
    """Return a mixture as plain data: stores, weights, temperature and stages, whose starts count windows."""
    weights = mixture.weights or [None] * len(mixture.stores)
    return {
        "stores": [
            {"name": store.name, "fingerprint": store.fingerprint, "weight": weight}
            for store, weight in zip(mixture.stores, weights, strict=True)
        ],
        "temperature": "inf" if mixture.temperature == math.inf else mixture.temperature,  # JSON has no infinity
        "stages": [{"start": stage.start, "weights": list(stage.weights)} for stage in mixture.stages],
    }


def notices_of(source: Source) -> list[str]:
    """Return what a user should know of stores that do not fit each other.

    Stores that were ingested apart have entropy tables of their own, so text is cut into patches by another rule in
    each. A model trains well on both, but a run keeps one patcher to cut prompts and files with, that of the first.
    """
    first, *others = stores_of(source)
    notices = []
    for store in others:
        if store.manifest.patcher["config"] != first.manifest.patcher["config"]:
            what, remedy = "other settings", "repatch it with the same ones (`bytropix repatch`), or"
        elif _table(store) != _table(first):
            what, remedy = "another entropy table", "for one cut of both,"
        else:
            continue
        notices.append(
            f"{store.url} was cut into patches with {what} than {first.url}, whose patcher this run keeps for "
            f"generation and evaluation; {remedy} `bytropix append` both texts to one store"
        )
    return notices


def progress_of(source: Source, order: Order, position: int, since: int) -> dict[str, float]:
    """Return how a mixture is read, by tag: each store's share of the windows from `since` to a position, its epochs.

    Of a single store there is nothing to tell.
    """
    if not isinstance(order, MixtureOrder):
        return {}
    names = names_of(source)
    shares = zip(names, order.shares(position, since).tolist(), strict=True)
    epochs = zip(names, order.epochs(position).tolist(), strict=True)
    return {f"mixture/{name}/share": share for name, share in shares} | {
        f"mixture/{name}/epochs": count for name, count in epochs
    }


def read_place(word: str) -> tuple[str, float | None]:
    """Return place and weight of PLACE[:WEIGHT]; the weight is what follows the last colon, if that is a number.

    A port is none (`http://host:8000`, a store at a server's root), nor is what ends the name of a local store.
    """
    if SERVER_WITH_PORT.fullmatch(word) or ("://" not in word and Path(word).exists()):
        return word, None
    place, colon, last = word.rpartition(":")
    weight = _number(last)
    return (word, None) if not colon or weight is None else (place, weight)


def read_stage(word: str) -> tuple[int, tuple[float, ...]]:
    """Return step and weights of STEP:WEIGHT,WEIGHT,...

    Raises:
        ConfigError: It is not of that form.
    """
    step, colon, rest = word.partition(":")
    weights = [_number(part) for part in rest.split(",")]
    found = tuple(weight for weight in weights if weight is not None)
    if not (colon and step.isascii() and step.isdigit() and len(found) == len(weights)):
        raise ConfigError(
            f"--curriculum {word!r} is not STEP:WEIGHT,WEIGHT,... as in 1000:0.2,0.8: from that step on, a weight for "
            "each --store"
        )
    return int(step), found


def _number(text: str) -> float | None:
    """Return a number, None for anything else."""
    try:
        return float(text)
    except ValueError:
        return None


def _table(store: Store) -> list[str]:
    """Return what two stores of the same entropy table share."""
    return [file.sha256 for file in store.manifest.babylon]
