"""Babylon patching: bytes to patches by information density, never looking ahead.

table <- fitting, scoring        limits <- entropy, threshold, words, fixed rule
                      patcher = table + rule + calibrated level
"""

import importlib
from typing import TYPE_CHECKING, Any

from bytropix.patching.config import PatchConfig, RuleName

if TYPE_CHECKING:
    from bytropix.patching.calibration import Calibration
    from bytropix.patching.patcher import RULES, SAMPLE_BYTES, OnlinePatcher, Patcher, calibrate_patcher, fit_patcher
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
    "calibrate_patcher",
    "fit_patcher",
    "score",
]

# All but the settings need numba, which takes half a second to import; to see that nothing is to be done needs no more.
_MODULES = {
    "Calibration": "calibration",
    "OnlinePatcher": "patcher",
    "Patcher": "patcher",
    "RULES": "patcher",
    "SAMPLE_BYTES": "patcher",
    "calibrate_patcher": "patcher",
    "fit_patcher": "patcher",
    "Rule": "rules",
    "score": "scoring",
    "EntropyTable": "table",
    "Measure": "table",
    "QUANTA_PER_BIT": "table",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
