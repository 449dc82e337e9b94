"""Every name that a config or the command line accepts leads to code, and to nothing else."""

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import pytest

from bytropix.byte_lm import ByteTransformerConfig, WuBuConfig
from bytropix.byte_lm.heads import HEADS
from bytropix.gaad import DECOMPOSITIONS, subdivision
from bytropix.gaad import config as gaad
from bytropix.geometry import ROTATIONS, SPACES
from bytropix.jobs.bench import BENCHES, BenchName
from bytropix.jobs.cli import COMMANDS, command_class
from bytropix.nesting.aggregation import AGGREGATIONS
from bytropix.nesting.config import Aggregation, Flow, Rotation, SpaceName, Transform
from bytropix.nesting.maps import FLOWS, TRANSFORMS
from bytropix.patching.config import RuleName
from bytropix.patching.patcher import RULES


@pytest.mark.parametrize(
    ("choices", "registry", "built_in"),
    [
        (RuleName, RULES, set()),
        (gaad.DecompositionName, DECOMPOSITIONS, set()),
        (gaad.RuleName, subdivision.RULES, set()),
        (gaad.SelectName, subdivision.SELECTIONS, set()),
        (SpaceName, SPACES, set()),
        (Rotation, ROTATIONS, set()),
        (Transform, TRANSFORMS, set()),
        (Flow, FLOWS, {"none"}),
        (Aggregation, AGGREGATIONS, set()),
        (BenchName, BENCHES, set()),
        (get_type_hints(WuBuConfig)["head"], HEADS, set()),
        (get_type_hints(ByteTransformerConfig)["head"], HEADS, set()),
    ],
    ids=[
        "rule",
        "decomposition",
        "cut",
        "selection",
        "space",
        "rotation",
        "transform",
        "flow",
        "aggregation",
        "bench",
        "head",
        "transformer head",
    ],
)
def test_choices_are_the_registry(choices: Any, registry: Mapping[str, object], built_in: set[str]) -> None:
    """The values that a field's type allows are the entries of its registry, and each entry can be called."""
    assert set(get_args(choices)) == set(registry) | built_in
    assert all(callable(entry) or hasattr(entry, "mark") for entry in registry.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    """A command of the table can be imported, called, and has a docstring for its help."""
    command = command_class(name)

    assert callable(command)
    assert (command.__doc__ or "").strip()
