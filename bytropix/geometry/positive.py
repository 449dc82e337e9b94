"""A positive number that may be learned: curvature, scale, spread."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytropix.errors import ConfigError


class PositiveParameter(nn.Module):
    """value = least + softplus(u), with u chosen so that the value begins at `first` exactly.

    Args:
        first: Initial value, above `least`.
        least: Lower bound that the value never reaches.
        learn: Whether u is a parameter or stays as it is.
    """

    def __init__(self, first: float, *, least: float, learn: bool) -> None:
        super().__init__()
        if not 0 < least < first < math.inf:
            raise ConfigError(f"a positive parameter must begin above its minimum {least} > 0, got {first}")
        rise = first - least
        free = torch.tensor(rise + math.log(-math.expm1(-rise)))  # log(expm1(rise)), which overflows past 709
        self.free: Tensor
        if learn:
            self.free = nn.Parameter(free)
        else:
            self.register_buffer("free", free)
        self.least = least

    def forward(self) -> Tensor:
        """Return the value, a tensor of no dimensions."""
        return self.least + F.softplus(self.free)
