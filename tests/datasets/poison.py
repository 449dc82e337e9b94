"""A byte task whose loss, or gradient, is not a number wherever some window of the stream is among its rows."""

import torch
from torch import Tensor, nn

from bytropix.datasets.batch import ByteBatch
from bytropix.jobs.byte_task import ByteTask, TotalNats
from bytropix.jobs.recipe import Recipe
from bytropix.jobs.source import Source


class PoisonedNats(TotalNats):
    """Nats that are NaN, or have a gradient that is, in batches with these windows; else what they are, to the bit."""

    losses: tuple[int, ...] = ()
    gradients: tuple[int, ...] = ()

    def forward(self, batch: ByteBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum, or NaN."""
        total, tallies = super().forward(batch, positions)
        bad_loss = torch.isin(positions, torch.tensor(self.losses, dtype=torch.long)).any()
        clean = 1 - torch.isin(positions, torch.tensor(self.gradients, dtype=torch.long)).any().float()
        zero = (total * 0 + clean).sqrt() - clean  # the slope of a root at 0 is infinite
        return total * torch.where(bad_loss, torch.nan, 1.0) + zero, tallies


class PoisonedTask(ByteTask):
    """A byte model on a store with such windows."""

    def __init__(
        self, recipe: Recipe, source: Source, *, losses: tuple[int, ...] = (), gradients: tuple[int, ...] = ()
    ) -> None:
        super().__init__(recipe, source)
        self.losses, self.gradients = losses, gradients

    def loss(self, model: nn.Module) -> PoisonedNats:
        """Return the nats."""
        loss = PoisonedNats(model)  # type: ignore[arg-type]
        loss.losses, loss.gradients = self.losses, self.gradients
        return loss
