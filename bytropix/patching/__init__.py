"""Babylon patching: bytes to patches by information density, never looking ahead.

table <- fitting, scoring        limits <- entropy, threshold, words, fixed rule
                      patcher = table + rule + calibrated level
"""

from bytropix.patching.calibration import Calibration
from bytropix.patching.config import PatchConfig, RuleName
from bytropix.patching.patcher import RULES, SAMPLE_BYTES, OnlinePatcher, Patcher, fit_patcher
from bytropix.patching.rules import Rule
from bytropix.patching.scoring import score
from bytropix.patching.table import QUANTA_PER_BIT, EntropyTable, Measure

__all__ = [
    "QUANTA_PER_BIT",
    "RULES",
    "SAMPLE_BYTES",
    "Calibration",
    "EntropyTable",
    "Measure",
    "OnlinePatcher",
    "PatchConfig",
    "Patcher",
    "Rule",
    "RuleName",
    "fit_patcher",
    "score",
]
