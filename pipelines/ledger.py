"""What this machine remembers of a store that it made: from which files, and whether they are still the same.

    store, config, files with size, times and inode -> <cache>/bytropix/<hash of the store's place>.json
    a rerun: the same store, config and files -> nothing to do, and no source is read

It lies in the user's cache folder, never in a store, so that stores are the same on every machine. To lose it costs a
scan. BYTROPIX_CACHE names another folder.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store.page_cache import cache_folder
from bytropix.errors import ConfigError, StoreError
from bytropix.pipelines.sources import SourceFile
from bytropix.pipelines.sources.files import STDIN
from bytropix.pipelines.sources.remote import is_url

# A file that is changed twice within one tick of its file system's clock has one time: such a file is not trusted yet.
FINE_TICK, COARSE_TICK = 50_000_000, 2_500_000_000  # nanoseconds; coarse where times are whole seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What one run was given."""

    sources: tuple[str, ...]
    """As they were named, paths made absolute."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Remembered:
    """What is known of a store."""

    fingerprint: str
    """Of the store, see `Store`."""
    config: str
    """Hash of the config."""
    runs: tuple[Selection, ...]
    """What it was made from, and what was appended since: one for each version."""
    files: tuple[str, ...] = ()
    """What `signatures` gives; empty after an append."""


def signatures(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """Return name, path, size, times and inode of each file; nothing at all if one is remote or too new to be told."""
    found = []
    for file in files:
        if file.path == STDIN or is_url(file.path):
            return ()
        try:
            stat = Path(file.path).stat()
        except OSError as error:
            found.append(json.dumps([file.name, str(Path(file.path).absolute()), str(error.errno), file.refused]))
            continue
        newest = max(stat.st_mtime_ns, stat.st_ctime_ns)
        if time.time_ns() - newest < (COARSE_TICK if stat.st_mtime_ns % 1_000_000_000 == 0 else FINE_TICK):
            return ()
        place = str(Path(file.path).absolute())
        found.append(
            json.dumps([file.name, place, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, file.refused])
        )
    return tuple(found)


def config_hash(config: object) -> str:
    """Return a hash of what decides the bytes of a store."""
    return hashlib.sha256(json.dumps(to_plain(config), sort_keys=True).encode()).hexdigest()


def selection(arguments: Sequence[str | Path], include: Sequence[str], exclude: Sequence[str]) -> Selection:
    """Return what a run is given, with sources as they can be found from any folder, sorted, each once."""
    places = {str(argument) for argument in arguments}
    sources = sorted(place if place == STDIN or is_url(place) else str(Path(place).absolute()) for place in places)
    return Selection(sources=tuple(sources), include=tuple(include), exclude=tuple(exclude))


def remember(store: str, what: Remembered) -> None:
    """Keep what is known of a store; that it cannot be written is no error."""
    place = _place(store)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f"{place.name}.{os.getpid()}")
        beside.write_text(json.dumps({"store": _url(store), **to_plain(what)}), "utf-8", "surrogateescape")
        beside.replace(place)


def recall(store: str) -> Remembered | None:
    """Return what is known of a store, `None` if nothing is."""
    try:
        plain: dict[str, Any] = dict(json.loads(_place(store).read_text("utf-8")))
        return from_plain(Remembered, plain) if plain.pop("store") == _url(store) else None
    except (OSError, ValueError, TypeError, KeyError, ConfigError):
        return None


def sources_of(store: str) -> tuple[Selection, ...]:
    """Return from what a store was made on this machine, one for each version.

    Raises:
        StoreError: It was not made here, or has changed since.
    """
    found = recall(store)
    if found is None:
        raise StoreError(f"{store}: this machine does not remember its sources; name them")
    return found.runs


def _url(store: str) -> str:
    return store if is_url(store) else str(Path(store).resolve())


def _place(store: str) -> Path:
    return cache_folder() / f"{hashlib.sha256(_url(store).encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"
