"""Numbers as waves: the embedding of timesteps, and of frame places.

    t -> t times each frequency -> cosines, sines -> [.., features]

The similarity of two embeddings (their scalar product over its largest value) is the mean of cos(frequency * distance):
near 1 for neighbours as long as the frequencies stay far below pi, where a wave would turn round between one step and
the next, and small for steps far apart, whose distance the slowest wave still tells.
"""

import math

import torch
from torch import Tensor, nn

from bytropix.video.config import TimeEmbedding

GOLDEN = (1 + math.sqrt(5)) / 2
_FASTEST_GOLDEN = 0.5  # radians a step, a third of the most that tells neighbours from opposites
_SPAN = 10_000.0  # of the geometric row (Vaswani et al. 2017): fastest over slowest frequency


def geometric_frequencies(count: int, timesteps: int) -> Tensor:
    """Return frequencies from 1 radian a step down in equal ratios, f64 [count]; the slowest period is over 2 T."""
    span = max(_SPAN, timesteps / math.pi)
    return span ** -torch.linspace(0, 1, count, dtype=torch.float64)


def golden_frequencies(count: int, timesteps: int) -> Tensor:
    """Return frequencies w phi^(-k gamma), f64 [count]; the slowest period is at least 2 T.

    gamma is 1 / m for the largest m that reaches it: m rows of powers of the golden ratio, one between the others.
    Where there are too few frequencies even for one row, gamma is the whole number that suffices.
    """
    powers = max(1.0, math.log(_FASTEST_GOLDEN * timesteps / math.pi, GOLDEN))
    steps = max(1, count - 1)
    gamma = 1 / (steps // powers) if steps >= powers else math.ceil(powers / steps)
    return _FASTEST_GOLDEN * GOLDEN ** (-gamma * torch.arange(count, dtype=torch.float64))


FREQUENCIES = {"sinusoidal": geometric_frequencies, "golden": golden_frequencies}


class Waves(nn.Module):
    """The embedding of whole numbers 0..T - 1, and beyond.

    Args:
        features: Even width.
        timesteps: T.
        kind: Which frequencies, a name in FREQUENCIES.
    """

    frequencies_K: Tensor

    def __init__(self, features: int, timesteps: int, kind: TimeEmbedding = "sinusoidal") -> None:
        super().__init__()
        table = FREQUENCIES[kind](features // 2, timesteps)
        self.register_buffer("frequencies_K", table.float(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding [..., features] in float32 of t [...]."""
        angles = t[..., None].float() * self.frequencies_K
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


def grid_waves(height: int, width: int, features: int, device: torch.device) -> Tensor:
    """Return the embedding of the cells of a grid of any size, f32 [height, width, features].

    Half the features are of the row, half of the column, as in Dosovitskiy et al. 2021 and Peebles and Xie 2023.
    """
    quarter = features // 4
    frequencies = _SPAN ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    axes = []
    for size in (height, width):
        angles = torch.arange(size, device=device, dtype=torch.float32)[:, None] * frequencies
        axes.append(torch.cat([angles.cos(), angles.sin()], dim=-1))
    rows, columns = axes
    return torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1)
