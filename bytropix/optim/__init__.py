"""Optimizers and their schedules."""

from bytropix.optim.adamw import OptimConfig, learning_rate, make_adamw

__all__ = ["OptimConfig", "learning_rate", "make_adamw"]
