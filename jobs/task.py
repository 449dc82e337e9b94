"""What the training loop must know of the thing it trains; `byte_task.py` and `video_task.py` say it.

    Task -> model, loss, stream -> jobs/train.py, the loop -> run folder
         <- evaluations, samples, what a batch looks like <-

The loop knows no bytes and no clips. It counts units, the bytes or clips that are data, and divides the sum of a step's
losses by their number on all ranks, so that a loss is the same however the units were spread.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from bytropix.datasets.resumable import ResumableStream
from bytropix.jobs.loop_config import TaskRecipe
from bytropix.jobs.metrics import RunLog, Unit
from bytropix.jobs.ranks import Ranks
from bytropix.jobs.sharding import Shares
from bytropix.jobs.source import Source


class Batch(Protocol):
    """One rank's rows of a training batch: a dataclass, whose tensors all have a row each."""

    @property
    def rows(self) -> int:
        """Rows, filled or not."""
        ...

    @property
    def position(self) -> int:
        """Windows that all ranks together were given before this batch."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device."""
        ...

    def pin_memory(self) -> Self:
        """Return the batch in pinned memory."""
        ...


B = TypeVar("B", bound=Batch)


class Task(Protocol[B]):
    """One thing to train. Every rank makes its own; what it returns is alike on all of them."""

    @property
    def recipe(self) -> TaskRecipe:
        """What to train."""
        ...

    @property
    def source(self) -> Source:
        """Where the data come from."""
        ...

    @property
    def unit(self) -> Unit:
        """What is counted, and how the loss is called."""
        ...

    def stream(self, device: torch.device, ranks: Ranks) -> ResumableStream[B]:
        """Return this rank's stream of training batches.

        Raises:
            ConfigError, StoreError: The source cannot be read so.
        """
        ...

    def build(self) -> nn.Module:
        """Return a freshly initialized model, on the CPU; torch has been seeded."""
        ...

    def prepare(self, model: nn.Module, device: torch.device, ranks: Ranks) -> None:
        """Finish the model, on the device, once: before the first step of a run that has no checkpoint.

        All ranks come here together and leave with the same model. An error of one of them is one of all: do not call
        `ranks.together` inside.
        """
        ...

    def loss(self, model: nn.Module) -> nn.Module:
        """Return the module that DDP wraps and torch.compile compiles.

        Its `forward(batch, positions)` takes this rank's rows on the device, and i64 [rows], the position of each row
        in the stream, which is the same for any number of ranks. It returns the sum of the losses of this rank's units,
        a tensor of no dimensions, and tallies f32 [k, 2] without a gradient: sums and counts that add up over batches
        and ranks, k at least 0. It asks the device for no number.
        """
        ...

    def shares(self, model: nn.Module, loss: nn.Module) -> Shares:
        """Return how FSDP2 splits the model; parameters without dimensions stay whole in any case."""
        ...

    def units(self, batch: B) -> int:
        """Return how many units of a batch are data, without asking the device."""
        ...

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return the modules whose gradient norms are logged, by name."""
        ...

    def scalars(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Return what is logged of the model itself, by tag."""
        ...

    def tallied(self, tallies: Tensor) -> Mapping[str, float]:
        """Return scalars by tag from tallies f64 [k, 2] on the CPU, those of all ranks since the last row; k > 0."""
        ...

    def reading(self, stream: ResumableStream[B], position: int, since: int) -> Mapping[str, float]:
        """Return how the source was read, by tag: positions `since` to `position`, counted in windows."""
        ...

    def show(self, batch: B, step: int, log: RunLog) -> None:
        """Log what a batch looks like."""
        ...

    def evaluate(self, model: nn.Module, step: int, log: RunLog, ranks: Ranks) -> None:
        """Evaluate on the val split and log that, with samples.

        All ranks come here together. Weights are their running mean where the run keeps one. Under FSDP2 the parameters
        are shares: `plain_copy` (jobs/sharding.py) gives each rank a whole model.
        """
        ...

    def kept(self, folder: Path) -> dict[str, Any]:
        """Write what a run keeps of its source into its folder, and return what store.json holds."""
        ...
