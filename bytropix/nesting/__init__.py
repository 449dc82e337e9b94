"""WuBu nesting: levels of Poincaré balls with boundary points, rotations, flows and attention by distance."""

from bytropix.nesting.config import LIST_OPTIONS, LevelConfig, NestingConfig, levels_from_lists
from bytropix.nesting.stack import NestedStack, StackCache
from bytropix.nesting.steps import StackStep, goes_in_steps

__all__ = [
    "LIST_OPTIONS",
    "LevelConfig",
    "NestedStack",
    "NestingConfig",
    "StackCache",
    "StackStep",
    "goes_in_steps",
    "levels_from_lists",
]
