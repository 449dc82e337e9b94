"""Golden aspect adaptive decomposition: regions of a frame by golden cuts and spirals, motion regions, sampling.

subdivision, spiral -> decomposition -> Regions         energy, adaptive, integral, motion -> maps -> roi
"""

from bytropix.gaad.config import RegionConfig, SpiralConfig, rectangle_count
from bytropix.gaad.decomposition import DECOMPOSITIONS, decompose
from bytropix.gaad.regions import Regions

__all__ = ["DECOMPOSITIONS", "RegionConfig", "Regions", "SpiralConfig", "decompose", "rectangle_count"]
