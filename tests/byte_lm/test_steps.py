"""One byte by itself goes through compiled kernels: these give what the modules give."""

from typing import Any

import pytest
import torch

from bytropix.byte_lm.config import MixerConfig, NgramConfig
from bytropix.nesting import LevelConfig, NestingConfig

BYTES = 90

WUBU: dict[str, dict[str, Any]] = {
    "as it is": {},
    "flat head": {"head": "flat"},
    "no n-grams": {"ngram": NgramConfig(sizes=())},
    "longest n-grams": {"ngram": NgramConfig(sizes=(7, 8), rows=3)},
    "flat space": {"nesting": NestingConfig(levels=(LevelConfig(dim=8), LevelConfig(dim=4)), space="euclidean")},
    "no mixer layers": {"mixer": MixerConfig(width=48, layers=0, heads=2)},
}
TRANSFORMER: dict[str, dict[str, Any]] = {"as it is": {}, "two-stage head": {"head": "two_stage"}}


def check_roads(model: Any, lab: Any) -> None:
    """Read bytes by kernels, by modules, and by either in turn; the log-probabilities must be equal."""
    values = list(lab.noise(BYTES, "steps"))
    starts = lab.random_starts(1, BYTES + 1, 0.3, seed=5)[0, 1:].tolist()
    compiled, plain, mixed = model.session(), model.session(), model.session()
    steps = plain._steps
    plain._steps = None
    for index, (value, begins) in enumerate(zip(values, starts, strict=True)):
        mixed._steps = steps if index % 7 < 3 else None
        expected = plain.push([value], [begins])

        torch.testing.assert_close(compiled.push([value], [begins]), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed.push([value], [begins]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", WUBU)
def test_wubu_kernels_equal_modules(lab: Any, name: str) -> None:
    """Every kind of WuBu model gives the same by kernels, by modules, and by both in one window."""
    check_roads(lab.wubu(**WUBU[name]), lab)


@pytest.mark.parametrize("name", TRANSFORMER)
def test_transformer_kernels_equal_modules(lab: Any, name: str) -> None:
    """The plain transformer gives the same by kernels, by modules, and by both in one window."""
    check_roads(lab.transformer(**TRANSFORMER[name]), lab)


@pytest.mark.parametrize("kind", ["wubu", "transformer"])
def test_kernels_take_the_weights_as_they_are(lab: Any, kind: str) -> None:
    """Weights with gains, biases and offsets far from where training begins count alike on both roads."""
    model = lab.model(kind)
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.rand(parameter.shape, generator=draws)
    check_roads(model, lab)


@pytest.mark.parametrize("kind", ["wubu", "transformer"])
def test_double_precision_stays_with_modules(lab: Any, kind: str) -> None:
    """A model in float64 reads byte by byte without kernels, which know float32 alone."""
    session = lab.model(kind).double().session()
    session.push([1], [True])

    assert session.push([65], [False]).dtype == torch.float64
