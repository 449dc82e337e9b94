"""The nested levels, one inside the other.

    patch vectors -> Linear -> level 0 -> transition -> level 1 -> ... -> aggregation over levels -> memory vectors

All of it runs in float32 (or float64 if the weights are) also under autocast. Without a mask it is causal: a patch sees
itself and the patches before it. A mask may show each patch any others, before it or after: those of its document, the
regions of its frame, all frames of a clip. A level without boundary points and landmark needs a mask that leaves each
patch something to see, if only itself.

With `phi_curvature` the levels' curvatures are learned numbers times powers of the golden ratio, a ladder that
training bends and does not lose; with `rotation_init = "phi"` a transition begins at golden angles in successive
planes. Both are switches to be compared with their controls, which draw the same random numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytropix.nesting.aggregation import AGGREGATIONS
from bytropix.nesting.config import NestingConfig
from bytropix.nesting.level import Frame, Inflow, Level
from bytropix.nesting.maps import linear
from bytropix.nesting.transition import Passage, Transition


@dataclass(frozen=True, slots=True)
class Measures:
    """All that levels and transitions measure with: a function of the parameters alone."""

    frames: list[Frame]
    passages: list[Passage]


@dataclass(slots=True)
class StackCache:
    """What is kept between patches that come one by one; its tensors are replaced, never written in place."""

    measures: Measures
    """Of the parameters at the time the cache was made."""
    points: list[Tensor | None]
    """Points of the patches so far, one tensor (B, Q, D) per level."""

    def copy(self) -> "StackCache":
        """Return a cache that grows apart from this one."""
        return StackCache(self.measures, list(self.points))


class NestedStack(nn.Module):
    """Levels, the transitions between them, and the aggregation.

    Args:
        inputs: Width of the patch vectors.
        outputs: Width of the memory vectors.
        config: The levels.
    """

    def __init__(self, inputs: int, outputs: int, config: NestingConfig) -> None:
        super().__init__()
        self.config = config
        dims = [level.dim for level in config.levels]
        self.entry = linear(inputs, dims[0])
        befores = [None, *config.levels[:-1]]
        self.levels = nn.ModuleList(
            Level(level, before, space=config.space, dropout=config.dropout, curvature_factor=factor)
            for level, before, factor in zip(config.levels, befores, config.curvature_factors(), strict=True)
        )
        self.transitions = nn.ModuleList(
            Transition(level, dim, dropout=config.dropout)
            for level, dim in zip(config.levels[:-1], dims[1:], strict=True)
        )
        self.aggregation = AGGREGATIONS[config.aggregation](dims, outputs)

    def forward(self, h_BPM: Tensor, cache: StackCache | None = None, visible_BPP: Tensor | None = None) -> Tensor:
        """Return memory vectors (B, P, outputs).

        Args:
            h_BPM: Patch vectors (B, P, inputs); with a cache, those of the new patches alone.
            cache: Points of the patches before, updated by this call.
            visible_BPP: True where a patch may see another, earlier or later; without a cache. None: itself and all
                before.
        """
        with torch.autocast(h_BPM.device.type, enabled=False):
            measures = self.measures() if cache is None else cache.measures
            inflow = Inflow(self.entry(h_BPM.to(self.entry.weight.dtype)))
            outs = []
            for index, (level, frame) in enumerate(zip(self._levels(), measures.frames, strict=True)):
                v_BPD, points_BQD = level(frame, inflow, None if cache is None else cache.points[index], visible_BPP)
                if cache is not None:
                    cache.points[index] = points_BQD
                outs.append(v_BPD)
                if index < len(self.transitions):
                    inflow = self.transitions[index](frame, measures.passages[index], v_BPD)
            out: Tensor = self.aggregation(outs)
        return out

    def measures(self) -> Measures:
        """Return the present frames and passages, which every patch shares."""
        found = Measures([], [])
        landmark_D: Tensor | None = None
        with torch.autocast(self.entry.weight.device.type, enabled=False):
            for index, level in enumerate(self._levels()):
                found.frames.append(level.frame(landmark_D))
                if index < len(self.transitions):
                    transition = self.transitions[index]
                    assert isinstance(transition, Transition)
                    found.passages.append(transition.passage(level.descriptor_D))
                    landmark_D = found.passages[-1].landmark_E
        return found

    def new_cache(self) -> StackCache:
        """Return the cache of an empty window, for the parameters as they are now."""
        return StackCache(self.measures(), [None] * len(self.levels))

    def scalars(self) -> dict[str, Tensor]:
        """Return the present curvature, scale and spread of each level by metric tag."""
        values: dict[str, Tensor] = {}
        for index, level in enumerate(self._levels()):
            values[f"levels/{index}/curvature"] = level.whole_curvature().detach()
            values[f"levels/{index}/scale"] = level.scale().detach()
            if level.spread is not None:
                values[f"levels/{index}/spread"] = level.spread().detach()
        return values

    def _levels(self) -> list[Level]:
        return [level for level in self.levels if isinstance(level, Level)]
