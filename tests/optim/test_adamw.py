"""Which parameters decay, and the learning rate at every turn of its schedule."""

from typing import Any

import pytest
import torch
from torch import nn

from bytropix.errors import ConfigError
from bytropix.nesting import LevelConfig, NestedStack, NestingConfig
from bytropix.optim import OptimConfig, learning_rate, make_adamw


class Model(nn.Module):
    """One of everything: a table, a norm, a lone vector, and a nesting with quaternions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.norm = nn.LayerNorm(6)
        self.slot = nn.Parameter(torch.ones(6))
        levels = (LevelConfig(dim=8, rotation="quat", transform="quat"), LevelConfig(dim=4))
        self.nesting = NestedStack(6, 5, NestingConfig(levels=levels))


def names_in_groups(model: nn.Module, config: OptimConfig) -> tuple[set[str], set[str]]:
    """Return the names of parameters with and without decay."""
    optimizer = make_adamw(model, config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with_decay, without = optimizer.param_groups

    assert with_decay["weight_decay"] == config.weight_decay
    assert without["weight_decay"] == 0
    return {names[id(p)] for p in with_decay["params"]}, {names[id(p)] for p in without["params"]}


def test_only_weights_of_maps_decay() -> None:
    """Linear and quaternion weights decay; tables, norms, offsets, points, quaternions, c, s and sigma do not."""
    decayed, kept = names_in_groups(Model(), OptimConfig())

    assert {
        "nesting.entry.weight",
        "nesting.transitions.0.map.weight",
        "nesting.levels.1.combiner.0.weight",
        "nesting.levels.0.flow.3.weight",
        "nesting.aggregation.out.weight",
    } <= decayed
    assert {
        "table.weight",
        "norm.weight",
        "slot",
        "nesting.entry.bias",
        "nesting.levels.0.boundary_KD",
        "nesting.levels.0.descriptor_D",
        "nesting.levels.0.curvature.free",
        "nesting.levels.0.scale.free",
        "nesting.levels.0.spread.free",
        "nesting.transitions.0.rotation.left",
        "nesting.transitions.0.map.bias",
    } <= kept


def test_every_parameter_is_in_one_group() -> None:
    """No parameter is left out or updated twice; a frozen one is in no group."""
    model = Model()
    model.table.weight.requires_grad_(False)
    decayed, kept = names_in_groups(model, OptimConfig())

    assert not decayed & kept
    assert decayed | kept == {name for name, _ in model.named_parameters()} - {"table.weight"}


def test_decay_shrinks_weights_and_nothing_else() -> None:
    """With gradients of zero one update multiplies weights by 1 - lr * decay and leaves the rest."""
    model = Model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    config = OptimConfig(lr=0.1, weight_decay=0.5)
    decayed, _ = names_in_groups(model, config)
    optimizer = make_adamw(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if name in decayed else 1.0))


def test_settings_reach_the_optimizer() -> None:
    """The moments decay as configured, and learning begins at the peak rate until the schedule sets it."""
    optimizer = make_adamw(Model(), OptimConfig(lr=0.01, beta1=0.8, beta2=0.9))

    assert [(group["lr"], group["betas"]) for group in optimizer.param_groups] == [(0.01, (0.8, 0.9))] * 2


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (35, 0.5 + 0.5 * 0.2), (60, 0.2), (61, 0.2), (1000, 0.2)],
)
def test_schedule(step: int, share: float) -> None:
    """Ten steps up in a line, half a cosine down to the last of 61 steps, and flat behind it."""
    config = OptimConfig(lr=3.0, warmup=10, final_share=0.2)

    assert learning_rate(config, step, 61) == pytest.approx(3.0 * share)


def test_schedule_never_rises_after_warm_up() -> None:
    """The rate rises strictly, then never again, with no jump."""
    config = OptimConfig(lr=1.0, warmup=20, final_share=0.0)
    rates = torch.tensor([learning_rate(config, step, 200) for step in range(200)], dtype=torch.float64)

    assert (rates[:20].diff() > 0).all()
    assert (rates[20:].diff() <= 0).all()
    assert rates.diff().abs().max().item() < 0.06
    assert rates[-1].item() == pytest.approx(0)


@pytest.mark.parametrize("steps", [1, 5])
def test_runs_shorter_than_the_warm_up(steps: int) -> None:
    """A run that ends during warm-up, or has none, still has a positive finite rate at each step."""
    for warmup in (0, 5, 20):
        config = OptimConfig(warmup=warmup)
        assert all(0 < learning_rate(config, step, steps) <= config.lr for step in range(steps))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("lr", 0.0, "positive"),
        ("lr", float("nan"), "positive"),
        ("warmup", -1, "negative"),
        ("clip", -1.0, "negative"),
        ("weight_decay", float("nan"), "negative"),
        ("beta1", 1.0, r"\[0, 1\)"),
        ("beta2", -0.1, r"\[0, 1\)"),
        ("final_share", 1.5, r"\[0, 1\]"),
    ],
)
def test_wrong_settings_are_refused(name: str, value: Any, rule: str) -> None:
    """The error names the setting, the rule and the value."""
    with pytest.raises(ConfigError, match=f"optim.{name} must .*{rule}.*, got {value}"):
        OptimConfig(**{name: value})
