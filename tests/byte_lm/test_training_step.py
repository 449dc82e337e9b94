"""A training step: every parameter learns, dropout drops, nothing waits for the device or loops over the batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bytropix.byte_lm import ByteTransformerConfig, WuBuByteLM, WuBuConfig
from bytropix.byte_lm.config import LocalConfig, MixerConfig, NgramConfig
from bytropix.nesting import LevelConfig, NestingConfig

ONE_LEVEL = NestingConfig(levels=(LevelConfig(dim=6, boundary_points=2),), dropout=0.0)
QUATERNIONS = NestingConfig(
    levels=(
        LevelConfig(dim=8, rotation="quat", transform="quat", relative="softmax", flow="linear"),
        LevelConfig(dim=4, boundary_points=0, relative="none", descriptor=False, use_spread=False),
    ),
    aggregation="attention",
    dropout=0.0,
)
PLAIN = NestingConfig(
    levels=(
        LevelConfig(dim=8, relative="sum", transform="linear", learn_curvature=False, mixing=False),
        LevelConfig(dim=6, relative="none", rotation="identity", flow="none", learn_scale=False, learn_spread=False),
        LevelConfig(dim=4, boundary_points=3),
    ),
    aggregation="gated",
    dropout=0.0,
)
FLAT = replace(ONE_LEVEL, space="euclidean")

CONFIGS: dict[str, dict[str, Any]] = {
    "usual": {},
    "flat_head": {"head": "flat"},
    "no_ngrams": {"ngram": NgramConfig(sizes=())},
    "no_mixer_layers": {"mixer": MixerConfig(width=48, layers=0, heads=2)},
    "one_level": {"nesting": ONE_LEVEL},
    "quaternions": {"nesting": QUATERNIONS},
    "plain": {"nesting": PLAIN},
    "euclidean": {"nesting": FLAT},
    "deep": {
        "encoder": LocalConfig(width=32, heads=4, layers=2),
        "decoder": LocalConfig(width=32, heads=1, layers=3),
        "dropout": 0.1,
    },
}


def a_batch(lab, *, batch: int = 4, length: int = 60) -> tuple[Tensor, Tensor]:
    """Return bytes and patch starts of noise, each (batch, length)."""
    values = torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return values, lab.random_starts(batch, length, 0.3, seed=3)


def a_step(model: torch.nn.Module, given: tuple[Tensor, Tensor]) -> None:
    """Give every parameter of a model the gradient of one batch."""
    values, starts = given
    model.train()
    model.nats(values, starts, values.shape[1]).mean().backward()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_of_wubu_has_a_gradient(lab, name: str) -> None:
    """Spec T10: with each head, with and without n-grams and mixer layers, and for unlike nestings."""
    model = lab.wubu(**CONFIGS[name])
    a_step(model, a_batch(lab))
    dead = [key for key, one in model.named_parameters() if one.grad is None or not one.grad.any()]

    assert not dead


@pytest.mark.parametrize("head", ["flat", "two_stage"])
def test_every_parameter_of_the_transformer_has_a_gradient(lab, head: str) -> None:
    """Spec T10 for the yardstick."""
    model = lab.transformer(head=head)
    a_step(model, a_batch(lab))

    assert not [key for key, one in model.named_parameters() if one.grad is None or not one.grad.any()]


def dropped(model: torch.nn.Module) -> dict[str, float]:
    """Return the share of zeros that each dropout layer makes of what it is given, by its name."""
    shares: dict[str, float] = {}

    def note(name: str) -> Any:
        def hook(module: torch.nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> None:
            shares[name] = float((out[given[0] != 0] == 0).float().mean())

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(note(name))
    return shares


@pytest.mark.parametrize("kind", ["wubu", "transformer"])
def test_dropout_drops_every_branch_in_training_alone(lab, kind: str) -> None:
    """Pooling, reads, attention and feed-forward branches lose the share asked for; none does in evaluation."""
    model = lab.wubu(dropout=0.5) if kind == "wubu" else lab.transformer(dropout=0.5)
    shares = dropped(model)
    values = torch.randint(0, 256, (4, 60), generator=torch.Generator().manual_seed(1))
    starts = lab.random_starts(4, 60, 0.3, seed=3)
    model.train()(values, starts, 60)
    in_training = {name: share for name, share in shares.items() if not name.startswith("nesting")}
    expected = {"blocks.0.drop", "blocks.1.drop"}
    if kind == "wubu":
        expected = {"encoder.drop", "encoder.blocks.0.drop", "mixer.blocks.0.drop", "mixer.blocks.1.drop"}
        expected |= {"decoder.drop", "decoder.blocks.0.drop", "decoder.blocks.1.drop"}

    assert expected == set(in_training)
    assert all(0.4 < share < 0.6 for share in in_training.values())
    with torch.no_grad():
        once, again = (model.eval()(values, starts, 60) for _ in range(2))
    assert not any(shares.values())
    assert torch.equal(once, again)


def test_dropout_changes_every_residual_branch(lab) -> None:
    """A model that drops nearly all is left with its residual stream: blocks add next to nothing."""
    model = lab.wubu(dropout=0.999).train()
    x = torch.randn(2, 30, 32)
    block = model.decoder.blocks[0]
    kept = (block(x, model.decoder.rotary.at(slice(0, 30))) == x).float().mean()

    assert kept > 0.95


WAITING = (
    torch.ops.aten._local_scalar_dense.default,  # a number for the host
    torch.ops.aten.nonzero.default,  # a shape that depends on values
    torch.ops.aten._linalg_check_errors.default,  # whether a matrix could be solved
    torch.ops.aten.lift_fresh.default,  # a number of the host, made a tensor
)


class Counter(TorchDispatchMode):
    """Counts kernels, and those for which the host and a GPU would wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.waits = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and run one kernel."""
        self.kernels += 1
        self.waits += func in WAITING
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["wubu", "transformer"])
def test_step_neither_waits_nor_loops(lab, kind: str) -> None:
    """The kernels of a step are as many for 2 rows as for 7, for 5 patches as for 90; none needs its result here."""
    counts = []
    for batch, length in ((2, 20), (7, 20), (2, 120)):
        model, given = lab.model(kind), a_batch(lab, batch=batch, length=length)
        with Counter() as counter:
            a_step(model, given)
        counts.append(counter)

    assert len({counter.kernels for counter in counts}) == 1
    assert not any(counter.waits for counter in counts)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_variant_waits(lab, name: str) -> None:
    """Whatever the geometry and the heads, forward and backward pass leave all numbers where they are."""
    model, given = lab.wubu(**CONFIGS[name]), a_batch(lab)
    with Counter() as counter:
        a_step(model, given)

    assert not counter.waits


def test_default_models_can_be_built() -> None:
    """The defaults pass their own checks, are of like size, and run with one byte in the window."""
    torch.manual_seed(0)
    model = WuBuByteLM(WuBuConfig(), context=16).eval()
    with torch.no_grad():
        log_probs = model(torch.tensor([[7]]), torch.tensor([[True]]), 1)

    assert log_probs.shape == (1, 1, 256)
    assert ByteTransformerConfig().width % (2 * ByteTransformerConfig().heads) == 0
