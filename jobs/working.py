"""How a command spreads its work: the flags, and the runner that they ask for."""

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bytropix.errors import ConfigError
from bytropix.pipelines.runner import Runner, local_runner


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

    def runner(self) -> AbstractContextManager[Runner]:
        """Return what does the work."""
        if not (self.dask or self.scheduler):
            return local_runner(self.workers)
        from bytropix.pipelines.dask_runner import dask_runner

        return dask_runner(self.scheduler or None, self.workers, lambda line: print(line, file=sys.stderr))
