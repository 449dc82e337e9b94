"""The context of the small video models that are trained in benchmarks: stacks of two low balls each."""

from bytropix.nesting.config import LevelConfig, NestingConfig
from bytropix.video.config import ContextConfig, StackConfig


def small_context() -> ContextConfig:
    """Return WuBu-S, -M and -T of a size that one core trains in minutes."""
    return ContextConfig(
        features=24,
        region_width=32,
        width=64,
        spatial=_stack(32, 16, 32),
        motion=_stack(32, 16, 32),
        temporal=_stack(64, 32, 64),
    )


def _stack(first: int, second: int, output: int) -> StackConfig:
    levels = tuple(LevelConfig(dim=dim, combiner_hidden=(32,)) for dim in (first, second))
    return StackConfig(nesting=NestingConfig(levels=levels), output=output)
