"""A running mean of the weights, which samples and scores better than the last weights do.

    weights of each step -> mean += (1 - d) (weights - mean) -> checkpoints (ema.safetensors) -> evaluation, sampling

An exponential moving average (Polyak and Juditsky 1992) whose decay warms up, d = min(decay, (1 + step) / (10 + step)),
so that a short run is not a mean of its first weights. Buffers are tables, or measured once: they have no mean.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bytropix.jobs.sharding import is_share, share_like


class Ema:
    """The running mean of a model's trainable parameters, float32, each laid out as its parameter: whole, or a share.

    Args:
        model: Its weights at this moment are the first mean.
        decay: Of the mean, in [0, 1).

    Attributes:
        means: By the name of their parameter.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = trainable(model)
        self.means = {name: weight.detach().float().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int, taken: Tensor) -> None:
        """Move the mean to the weights behind a step.

        Args:
            step: Number of the step, from 1.
            taken: 1.0 if the step changed the weights, 0.0 if it was left out, which does not move the mean; on their
                device, and not asked for here.
        """
        share = taken * (1 - min(self._decay, (1 + step) / (10 + step)))
        for shared in (False, True):  # one kernel takes shares or whole tensors, not both
            names = [name for name, weight in self._weights.items() if is_share(weight) == shared]
            if names:
                means = [self.means[name] for name in names]
                moves = torch._foreach_sub([self._weights[name].detach() for name in names], means)
                torch._foreach_mul_(moves, share)
                torch._foreach_add_(means, moves)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the whole means of a checkpoint, which are of the same parameters."""
        _copy(self.means.values(), [share_like(tensors[name], mean) for name, mean in self.means.items()])

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Give the model the mean as its weights inside, and its own back afterwards, to the bit."""
        weights = list(self._weights.values())
        own = [weight.detach().clone() for weight in weights]
        _copy(weights, self.means.values())
        try:
            yield
        finally:
            _copy(weights, own)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that have a mean, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@torch.no_grad()
def _copy(weights: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Write values into weights, in place."""
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
