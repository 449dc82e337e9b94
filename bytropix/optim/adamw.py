"""AdamW with warm-up and cosine decay.

    step -> learning_rate: linear rise over `warmup` steps, then half a cosine down to `final_share` of the peak

Weight decay acts on matrices only: gains, biases, embeddings of one vector and the scalars of the geometry stay.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from bytropix.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter 2019) and its schedule."""

    lr: float = 2e-3
    """Peak learning rate."""
    warmup: int = 20
    """Steps of linear rise."""
    final_share: float = 0.1
    """Learning rate at the last step, as a share of the peak."""
    weight_decay: float = 0.1
    """Decay of matrices."""
    beta1: float = 0.9
    """Decay of the running mean of gradients."""
    beta2: float = 0.95
    """Decay of the running mean of squared gradients."""
    clip: float = 1.0
    """Largest global gradient norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"optim.lr must be positive, got {self.lr}")
        for name in ("warmup", "clip", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name} must not be negative, nor infinite, got {getattr(self, name)}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and 0 <= self.final_share <= 1):
            raise ConfigError("optim.beta1 and optim.beta2 must lie in [0, 1), optim.final_share in [0, 1]")


def make_adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters of `model`, in two groups: matrices with decay, all else without."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Return the learning rate of update `step` (from 0) of `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    return config.lr * (config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * share)))
