"""The kinds of runs that there are, and how a run's config.toml says which one it is.

config.toml -> kind (absent: bytes) -> the class of its recipe, imported when it is asked for
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from bytropix.config import from_plain
from bytropix.errors import ConfigError
from bytropix.jobs.loop_config import TaskRecipe

R = TypeVar("R", bound=TaskRecipe)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of run.

    Attributes:
        recipe: Module and class of its recipes.
        train: The command that makes one.
        commands: All commands that take one, in words.
    """

    recipe: str
    train: str
    commands: str


KINDS = {
    "bytes": Kind(
        "bytropix.jobs.recipe:Recipe",
        "bytropix train bytes",
        "`bytropix train bytes`, `evaluate`, `score` and `generate`",
    ),
    "video": Kind(
        "bytropix.jobs.video_recipe:VideoRecipe",
        "bytropix train video",
        "`bytropix train video`, `evaluate` and `sample`",
    ),
}


def kind_in(plain: Mapping[str, Any]) -> str:
    """Return the kind of a run from its config.

    Raises:
        ConfigError: There is none of this name.
    """
    kind = plain.get("kind", "bytes")
    if kind not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return str(kind)


def recipe_class(kind: str) -> type[TaskRecipe]:
    """Return the class of the recipes of a kind."""
    module, name = KINDS[kind].recipe.split(":")
    return cast(type[TaskRecipe], getattr(importlib.import_module(module), name))


def recipe_in(plain: Mapping[str, Any]) -> TaskRecipe:
    """Return the recipe that a config holds.

    Raises:
        ConfigError: It is of no kind, or has an unknown key or a wrong value.
    """
    return from_plain(recipe_class(kind_in(plain)), plain)
