"""AdamW with warm-up and cosine decay.

    step -> learning_rate: linear rise over `warmup` steps, then half a cosine down to `final_share` of the peak

Weight decay acts on the weights of maps alone. Gains, offsets and the numbers of the geometry are no maps; nor are
tables of embeddings, whose unseen rows would shrink without ever having a gradient, boundary points and descriptors,
which decay would draw to the origin of their ball, and quaternions, of which only the direction counts.
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
    """Decay of the weights of maps."""
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
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.final_share <= 1:
            raise ConfigError(f"optim.final_share must lie in [0, 1], got {self.final_share}")


def make_adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters of `model` in two groups: weights of maps with decay, all else without."""
    weights = {
        id(weight)
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for name, weight in module.named_parameters(recurse=False)
        if name == "weight" and weight.dim() >= 2
    }
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in weights], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if id(p) not in weights], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Return the learning rate of update `step` (from 0) of `steps`; later updates keep that of the last."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = min(1.0, (step - config.warmup) / max(1, steps - 1 - config.warmup))
    return config.lr * (config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * share)))
