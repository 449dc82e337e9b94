"""The nested balls for one patch at a time: the modules' weights and measures, handed to compiled kernels.

    patch vector (M) -> entry -> LevelStep -> TransitionStep -> LevelStep -> ... -> aggregation -> memory vector

For generation on a CPU in float32, where calling a few hundred tensor operations a patch takes most of the time. The
points of earlier patches are in the same cache as `NestedStack.forward` keeps them. Vectors are arrays of float32.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from bytropix.geometry import PoincareBall, QuaternionLinear
from bytropix.kernels import Matrix, Vector, affine, array, product
from bytropix.nesting import single
from bytropix.nesting.level import DEPTH_LIMIT, Frame, Level
from bytropix.nesting.stack import Measures, NestedStack, StackCache
from bytropix.nesting.transition import Passage, Transition


def goes_in_steps(stack: NestedStack) -> bool:
    """Whether there are kernels for a stack: balls, on a CPU, in float32."""
    weight = stack.entry.weight
    return stack.config.space == "hyperbolic" and weight.dtype is torch.float32 and weight.device.type == "cpu"


class StackStep:
    """A `NestedStack` for one patch at a time.

    Args:
        stack: In evaluation mode, such that `goes_in_steps`.
        measures: Those of the cache that it is called with.
    """

    def __init__(self, stack: NestedStack, measures: Measures) -> None:
        self._entry = network(stack.entry)
        levels = [level for level in stack.levels if isinstance(level, Level)]
        self._levels = [LevelStep(*pair) for pair in zip(levels, measures.frames, strict=True)]
        transitions = [transition for transition in stack.transitions if isinstance(transition, Transition)]
        triples = zip(transitions, measures.frames, measures.passages, strict=False)  # the last frame leads nowhere
        self._transitions = [TransitionStep(*triple) for triple in triples]
        self._aggregation = stack.aggregation

    def __call__(self, h: Vector, cache: StackCache) -> Tensor:
        """Return the memory vector (1, 1, outputs) of a patch vector (M,)."""
        v = self._entry(h)
        more: list[Vector] = []
        outs: list[Tensor] = []
        for index, level in enumerate(self._levels):
            v, cache.points[index] = level(v, more, cache.points[index])
            outs.append(torch.from_numpy(v)[None, None])
            if index < len(self._transitions):
                v, more = self._transitions[index](v)
        out: Tensor = self._aggregation(outs)
        return out


class LevelStep:
    """A `Level` for one patch."""

    def __init__(self, level: Level, frame: Frame) -> None:
        self._c, self._s, self._sigma = _numbers(frame)
        self._fixed: Matrix = array(frame.fixed_KD)
        self._descriptor = None if frame.descriptor_D is None else array(frame.descriptor_D)
        self._combiner = network(level.combiner)
        self._flow = None if level.flow is None else network(level.flow)
        self._flow_scale = np.float32(level.config.flow_scale)
        self._mixing = level.config.mixing

    def __call__(self, v: Vector, more: list[Vector], past_1QD: Tensor | None) -> tuple[Vector, Tensor]:
        """Return the level's tangent vector, and the points (1, Q + 1, D) that later patches attend to.

        Args:
            v: Tangent vector.
            more: What else the level before says: relative vector and distances.
            past_1QD: The points of earlier patches.
        """
        combined = self._combiner(np.concatenate([v, *more]))
        x = single.enter(v + combined, self._c, self._s, DEPTH_LIMIT)
        if self._descriptor is not None:
            x = single.add(self._descriptor, x, self._c)
        own_11D = torch.from_numpy(x)[None, None]
        patches_1QD = own_11D if past_1QD is None else torch.cat([past_1QD, own_11D], dim=1)
        keys = np.concatenate([self._fixed, patches_1QD[0].numpy()]) if self._mixing else self._fixed
        middle = single.attend(x, keys, self._c, self._sigma)
        v = single.leave(single.add(x, middle, self._c), self._c, self._s)
        if self._flow is not None:
            v = v + self._flow_scale * self._flow(v)
        return v, patches_1QD


class TransitionStep:
    """A `Transition` for one patch."""

    def __init__(self, transition: Transition, frame: Frame, passage: Passage) -> None:
        self._c, self._s, self._sigma = _numbers(frame)
        self._boundary: Matrix = array(frame.boundary_KD)
        self._turn = None if passage.matrix is None else _turn_of(passage.matrix)
        self._map = network(transition.map)
        self._kind = transition.kind

    def __call__(self, v: Vector) -> tuple[Vector, list[Vector]]:
        """Return the vector for the next level, and the relative vector and the distances, as far as it has them."""
        if self._turn is not None:
            v = product(self._turn, v)
        more: list[Vector] = []
        if self._boundary.size:
            x = single.enter(v, self._c, self._s, DEPTH_LIMIT)
            found = single.distances(x, self._boundary, self._c)
            scaled = found / np.float32(self._sigma)
            if self._kind != "none":
                weights = self._weights(scaled)
                more.append(self._map(single.relative(weights, x, self._boundary, found, self._c, self._s)))
            more.append(scaled)
        return self._map(v), more

    def _weights(self, scaled: Vector) -> Vector:
        """Return the weight of each boundary point in the aggregate, for distances (K,)."""
        weights: Vector = np.exp(scaled.min() - scaled) if self._kind == "softmax" else np.ones_like(scaled)
        return weights if self._kind == "sum" else weights / weights.sum()


def network(module: nn.Module) -> Callable[[Vector], Vector]:
    """Return one of the networks of `maps.py` as a function of one vector."""
    if isinstance(module, nn.Sequential):
        parts = [network(part) for part in module if not isinstance(part, nn.Dropout)]
        return lambda x: _through(parts, x)
    if isinstance(module, nn.GELU):
        return single.gelu
    if isinstance(module, nn.LayerNorm):
        gain, offset = array(module.weight), array(module.bias)
        return lambda x: single.layer_norm(x, gain, offset)
    if isinstance(module, QuaternionLinear):
        weight, bias = array(module.matrix().T), array(module.bias)
    else:
        assert isinstance(module, nn.Linear)
        weight, bias = array(module.weight), array(module.bias)
    return lambda x: affine(x, weight, bias)


def _through(parts: list[Callable[[Vector], Vector]], x: Vector) -> Vector:
    """Return x behind all parts."""
    for part in parts:
        x = part(x)
    return x


def _turn_of(rotation: Tensor) -> Matrix:
    """Return the matrix (D, D), for column vectors, of a rotation: of all features, or (D / 4, 4, 4) of blocks."""
    if rotation.ndim == 2:
        return array(rotation.T)
    size = 4 * rotation.shape[0]
    whole = rotation.new_zeros(size, size)
    for index, block in enumerate(rotation):
        whole[4 * index : 4 * index + 4, 4 * index : 4 * index + 4] = block
    return array(whole.T)


def _numbers(frame: Frame) -> tuple[float, float, float]:
    """Return curvature, scale and temperature."""
    assert isinstance(frame.space, PoincareBall)
    return float(frame.space.c), float(frame.space.s), float(frame.sigma)
