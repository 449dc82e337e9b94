"""Frozen dataclasses as plain data and back, so that a TOML recipe, a manifest and a flag are one thing.

    dataclass -> to_plain -> dict of str, int, float, bool, list, dict -> from_plain -> the same dataclass

Fields that are `None` are left out of the plain form, since TOML has no null; so are fields marked ADDED_LATER at their
default, so that a run made before such a field was thought of is still the same run.
"""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

from bytropix.errors import ConfigError

T = TypeVar("T")

ADDED_LATER = types.MappingProxyType({"added_later": True})  # as a field's metadata


def to_plain(value: object) -> Any:
    """Return `value` (a dataclass, or what its fields may hold) as nested dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        kept = {
            field.name: to_plain(item)
            for field, item in fields.items()
            if not (field.metadata.get("added_later") and item == field.default)
        }
        return {name: plain for name, plain in kept.items() if plain is not None}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], plain: object, *, where: str = "") -> T:
    """Build the dataclass `kind` from nested plain data, checking every key and type.

    Args:
        kind: A dataclass whose fields are scalars, Literals, optional values, dataclasses or tuples of these.
        plain: What `to_plain` returned, or the same read from TOML or JSON.
        where: Dotted path of this table, for messages.

    Raises:
        ConfigError: An unknown key (the nearest right one is named), a wrong type, or a value out of range.
    """
    if not isinstance(plain, dict):
        raise ConfigError(f"{where or kind.__name__} must be a table of {kind.__name__} fields, got {plain!r}")
    hints, needed = _fields(typing.cast(Hashable, kind))
    values: dict[str, Any] = {}
    for key, item in plain.items():
        if key in hints and type(item) is hints[key]:  # nearly all of a manifest, which has a hundred thousand items
            values[key] = item
            continue
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            near = difflib.get_close_matches(str(key), list(hints), n=1, cutoff=0.0)
            raise ConfigError(f"unknown key '{path}' in {kind.__name__}; did you mean '{near[0]}'?")
        values[key] = _convert(hints[key], item, path)
    for name in needed:
        if name not in values:
            raise ConfigError(f"{where or kind.__name__}: missing key '{name}'")
    return kind(**values)


@functools.cache
def _fields(kind: Hashable) -> tuple[dict[str, Any], list[str]]:
    """Return the types of a dataclass's fields by name, and the names of those that have no default."""
    hints = typing.get_type_hints(typing.cast(type, kind))
    fields = dataclasses.fields(typing.cast(Any, kind))
    missing = dataclasses.MISSING
    needed = [field.name for field in fields if field.default is missing and field.default_factory is missing]
    return {field.name: hints[field.name] for field in fields}, needed


def _convert(hint: Any, item: object, path: str) -> Any:
    """Check `item` against the type `hint` and return it in that type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert(next(arg for arg in args if arg is not types.NoneType), item, path)
    if origin is typing.Annotated:
        return _convert(args[0], item, path)
    if origin is typing.Literal:
        if item not in args:
            raise ConfigError(f"{path} must be one of {', '.join(map(str, args))}, got {item!r}")
        return item
    if origin in (tuple, Sequence):
        if not isinstance(item, list | tuple):
            raise ConfigError(f"{path} must be a list, got {item!r}")
        return tuple(_convert(args[0], value, f"{path}[{index}]") for index, value in enumerate(item))
    if origin is dict:
        if not isinstance(item, dict):
            raise ConfigError(f"{path} must be a table, got {item!r}")
        return item
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(Any, hint), item, where=path)
    if hint is float and isinstance(item, int) and not isinstance(item, bool):
        return float(item)
    if not isinstance(item, hint) or (isinstance(item, bool) and hint is not bool):
        raise ConfigError(f"{path} must be of type {hint.__name__}, got {item!r}")
    return item
