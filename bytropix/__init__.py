"""Bytropix: raw bytes to shard stores to models that think in nested hyperbolic spaces.

geometry <- nesting <- byte_lm        patching        optim
    (bytropix.pipelines, bytropix.datasets and bytropix.jobs stand beside this folder in a checkout)
"""

from pathlib import Path

from bytropix.version import VERSION

__version__ = VERSION

# A wheel holds pipelines/, datasets/ and jobs/ inside this package; a checkout keeps them beside it.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "jobs" / "cli.py").is_file():
    __path__.append(str(_checkout))
