"""Frozen dataclasses as plain data and back: nothing is lost, and what is wrong is named."""

import dataclasses
import json
from typing import Any, Literal

import pytest

from bytropix.byte_lm import ByteTransformerConfig, SamplerConfig, WuBuConfig
from bytropix.byte_lm.config import LocalConfig, MixerConfig, NgramConfig
from bytropix.config import from_plain, to_plain
from bytropix.datasets.store import PartLayout
from bytropix.errors import ConfigError
from bytropix.jobs.recipe import Recipe, TrainConfig
from bytropix.nesting import LevelConfig, NestingConfig
from bytropix.optim import OptimConfig
from bytropix.patching import PatchConfig
from bytropix.pipelines.config import IngestConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wheel:
    """A table in a table."""

    radius: float
    spokes: int = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bicycle:
    """One field of every kind."""

    name: str
    wheels: tuple[Wheel, ...] = ()
    front: Wheel = Wheel(radius=1.0)
    bell: int | None = None
    kind: Literal["road", "city"] = "city"
    light: bool = False
    gears: tuple[int, ...] = ()
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


FULL = Bicycle(
    name="Rad",
    wheels=(Wheel(radius=0.5), Wheel(radius=2.0, spokes=3)),
    bell=3,
    kind="road",
    light=True,
    gears=(1, 2, 3),
    notes={"colour": "grün", "parts": [1, 2]},
)

CONFIGS = [
    Recipe(),
    Recipe(model="transformer", train=TrainConfig(steps=3), optim=OptimConfig(clip=0.0)),
    WuBuConfig(encoder=LocalConfig(width=8, heads=2), decoder=LocalConfig(width=8, heads=1), head="flat"),
    ByteTransformerConfig(dropout=0.5),
    MixerConfig(layers=0),
    NgramConfig(sizes=()),
    NestingConfig(levels=(LevelConfig(dim=4, relative="sum"), LevelConfig(dim=2, combiner_hidden=()))),
    SamplerConfig(top_k=3, adaptive=True),
    PatchConfig(rule="words", min_patch=2),
    IngestConfig(layout=PartLayout(codec="none"), patch=PatchConfig(mean_patch=4.5)),
    FULL,
    Bicycle(name=""),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_every_config_survives_the_way_through_json(config: object) -> None:
    """What is written in a manifest or a recipe is read back to an equal value of the same types."""
    plain = json.loads(json.dumps(to_plain(config)))

    assert from_plain(type(config), plain) == config
    assert repr(from_plain(type(config), plain)) == repr(config)


def test_absent_values_are_left_out_and_read_back_as_absent() -> None:
    """TOML has no null: a field that is None has no key."""
    plain = to_plain(Bicycle(name="Rad"))

    assert "bell" not in plain
    assert from_plain(Bicycle, plain).bell is None


def test_whole_numbers_are_read_as_floats_where_a_float_is_meant() -> None:
    """`radius = 1` in TOML means 1.0."""
    radius = from_plain(Wheel, {"radius": 1}).radius

    assert radius == 1.0
    assert type(radius) is float


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"nam": "Rad"}, r"unknown key 'nam' in Bicycle; did you mean 'name'\?"),
        ({"name": "a", "front": {"radus": 1.0}}, r"unknown key 'front\.radus' in Wheel; did you mean 'radius'\?"),
        ({"name": "a", "wheels": [{"radius": 1.0}, {"spoke": 1}]}, r"'wheels\[1\]\.spoke'.*did you mean 'spokes'\?"),
        ({"name": "a", 7: 1}, "unknown key '7' in Bicycle"),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_right_one(
    plain: dict[object, Any], message: str
) -> None:
    """A slip of the pen is answered with what was meant."""
    with pytest.raises(ConfigError, match=message):
        from_plain(Bicycle, plain)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", 3, "name must be of type str, got 3"),
        ("name", None, "name must be of type str, got None"),
        ("bell", "loud", "bell must be of type int, got 'loud'"),
        ("bell", True, "bell must be of type int, got True"),
        ("bell", 1.0, "bell must be of type int, got 1.0"),
        ("light", 1, "light must be of type bool, got 1"),
        ("kind", "boat", "kind must be one of road, city, got 'boat'"),
        ("gears", 3, "gears must be a list, got 3"),
        ("gears", "123", "gears must be a list, got '123'"),
        ("gears", [1, "2"], r"gears\[1\] must be of type int, got '2'"),
        ("notes", [], r"notes must be a table, got \[\]"),
        ("front", 1.0, "front must be a table of Wheel fields, got 1.0"),
        ("front", {}, "front: missing key 'radius'"),
        ("front", {"radius": "big"}, "front.radius must be of type float, got 'big'"),
        ("front", {"radius": True}, "front.radius must be of type float, got True"),
        ("wheels", [{"radius": 1.0}, 2], r"wheels\[1\] must be a table of Wheel fields, got 2"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_place(field: str, value: object, message: str) -> None:
    """No value is bent into the type that was meant."""
    with pytest.raises(ConfigError, match=message):
        from_plain(Bicycle, {"name": "Rad", field: value})


def test_a_missing_key_is_named() -> None:
    """Fields without a default are needed."""
    with pytest.raises(ConfigError, match="Bicycle: missing key 'name'"):
        from_plain(Bicycle, {"bell": 3})


def test_a_value_that_is_no_table_at_all_is_refused() -> None:
    """A list where a table belongs names the table."""
    with pytest.raises(ConfigError, match=r"Bicycle must be a table of Bicycle fields, got \[1\]"):
        from_plain(Bicycle, [1])


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (TrainConfig, {"steps": 0}),
        (TrainConfig, {"evaluate_every": -1}),
        (OptimConfig, {"lr": 0.0}),
        (OptimConfig, {"lr": float("nan")}),
        (OptimConfig, {"lr": float("inf")}),
        (OptimConfig, {"clip": float("nan")}),
        (OptimConfig, {"clip": float("inf")}),
        (OptimConfig, {"weight_decay": float("inf")}),
        (OptimConfig, {"beta1": 1.0}),
        (SamplerConfig, {"temperature": -0.1}),
        (SamplerConfig, {"temperature": float("nan")}),
        (SamplerConfig, {"temperature": float("inf")}),
        (SamplerConfig, {"repetition_penalty": float("inf")}),
        (SamplerConfig, {"top_p": 0.0}),
        (LevelConfig, {"dim": 0}),
        (PatchConfig, {"mean_patch": 65.0}),
        (IngestConfig, {"val_fraction": 1.0}),
    ],
)
def test_ranges_are_checked_whichever_way_a_config_is_made(kind: type[Any], plain: dict[str, Any]) -> None:
    """A value out of range, or one that is no number, is an error of the same kind from a file and from code."""
    with pytest.raises(ConfigError):
        from_plain(kind, plain)
    with pytest.raises(ConfigError):
        kind(**plain)
