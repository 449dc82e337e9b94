"""Hyperbolic geometry on tensors: the Poincaré ball, rotations, quaternions, positive parameters."""

from bytropix.geometry.ball import (
    SPACES,
    FlatSpace,
    PoincareBall,
    Space,
    exp0,
    log0,
    mobius_add,
    smooth_limit,
    squared_distances,
)
from bytropix.geometry.positive import PositiveParameter
from bytropix.geometry.rotation import (
    ROTATIONS,
    NoRotation,
    QuaternionLinear,
    QuaternionRotation,
    SpecialOrthogonal,
    hamilton,
)

__all__ = [
    "ROTATIONS",
    "SPACES",
    "FlatSpace",
    "NoRotation",
    "PoincareBall",
    "PositiveParameter",
    "QuaternionLinear",
    "QuaternionRotation",
    "Space",
    "SpecialOrthogonal",
    "exp0",
    "hamilton",
    "log0",
    "mobius_add",
    "smooth_limit",
    "squared_distances",
]
