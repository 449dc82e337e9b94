"""How a command spreads its work: the flags, and the runner that they ask for."""

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bytropix.datasets.store import open_storage, part_bytes
from bytropix.datasets.store.manifest import read_manifest
from bytropix.errors import ConfigError, StoreError
from bytropix.pipelines.runner import Runner, local_runner

SMALL_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Working:
    """Who does the work. The result is the same for any of them."""

    workers: int = os.cpu_count() or 1
    """Processes."""
    dask: bool = False
    """Start a Dask cluster on this machine, and say where its dashboard is."""
    scheduler: str = ""
    """Let the Dask cluster of this scheduler work, such as tcp://host:8786."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}")

    def runner(self, place: str) -> AbstractContextManager[Runner]:
        """Return what does the work on the store at a place."""
        if not (self.dask or self.scheduler):
            return local_runner(1 if _is_small(place) else self.workers)
        from bytropix.pipelines.dask_runner import dask_runner

        return dask_runner(self.scheduler or None, self.workers, lambda line: print(line, file=sys.stderr))


def _is_small(place: str) -> bool:
    """Return whether a store is not worth the seconds that processes take to start."""
    storage = open_storage(place)
    try:
        manifest, _ = read_manifest(storage)
    except StoreError:  # whoever works on it will say so
        return True
    return int(part_bytes(manifest.parts).sum()) < SMALL_BYTES
