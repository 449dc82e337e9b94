"""Which bytes a sampler may draw, and with what chance."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bytropix.byte_lm import SamplerConfig
from bytropix.byte_lm.sampling import Sampler
from bytropix.errors import ConfigError


def log_probs_of(probs: dict[int, float]) -> Tensor:
    """Return log-probabilities (256,); bytes that are not named share what is left."""
    rest = (1 - sum(probs.values())) / (256 - len(probs))
    values = torch.full((256,), rest)
    values[list(probs)] = torch.tensor(list(probs.values()))
    return values.log()


USUAL = {65: 0.4, 7: 0.3, 200: 0.15, 0: 0.1}


def drawn(config: SamplerConfig, log_probs: Tensor, *, recent: bytes = b"", times: int = 3000) -> dict[int, float]:
    """Return the share of each byte among many draws."""
    sampler = Sampler(config)
    values = [sampler(log_probs, recent) for _ in range(times)]
    return {value: values.count(value) / times for value in set(values)}


def test_zero_temperature_takes_the_likeliest() -> None:
    """Nothing is drawn at temperature 0, and the other rules do not matter."""
    config = SamplerConfig(temperature=0, top_k=3, min_p=0.2, adaptive=True)

    assert drawn(config, log_probs_of(USUAL), times=20) == {65: 1.0}


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"top_k": 1}, {65}),
        ({"top_k": 3}, {65, 7, 200}),
        ({"top_p": 0.39}, {65}),
        ({"top_p": 0.69}, {65, 7}),
        ({"top_p": 0.71}, {65, 7, 200}),
        ({"min_p": 0.5}, {65, 7}),
        ({"min_p": 0.3}, {65, 7, 200}),
        ({"top_k": 2, "top_p": 0.9}, {65, 7}),
        ({"top_p": 0.94, "min_p": 0.26}, {65, 7, 200}),
    ],
)
def test_kept_bytes(rules: dict[str, float], kept: set[int]) -> None:
    """Each rule keeps the bytes it should, all of them and no others, with their chances in proportion."""
    shares = drawn(SamplerConfig(temperature=1, **rules), log_probs_of(USUAL))
    whole = sum(USUAL[value] for value in kept)

    assert kept == set(shares)
    assert all(abs(shares[value] - USUAL[value] / whole) < 0.04 for value in kept)


def test_ties_of_top_k_are_cut() -> None:
    """Of bytes that are equally likely, top-k keeps k, the smaller values first."""
    assert set(drawn(SamplerConfig(temperature=1, top_k=4), torch.full((256,), 1 / 256).log())) == {0, 1, 2, 3}


def test_top_p_of_one_keeps_the_least_likely() -> None:
    """Rounding in a running sum does not drop the tail."""
    probs = np.full(256, 1e-20)
    probs[65] = 1.0
    kept = Sampler(SamplerConfig())._filter(probs)

    assert int((kept > 0).sum()) == 256


def test_temperature_divides_log_probabilities() -> None:
    """Twice as hot is the square root of every chance; half as hot the square."""
    for temperature in (0.5, 2.0):
        shares = drawn(SamplerConfig(temperature=temperature, top_k=2), log_probs_of(USUAL))
        odds = (USUAL[65] / USUAL[7]) ** (1 / temperature)

        assert abs(shares[65] - odds / (1 + odds)) < 0.04


def test_repetition_penalty_looks_at_its_window_alone() -> None:
    """A byte in the last `repetition_window` bytes becomes less likely, one before them does not, nor a new one."""
    config = SamplerConfig(temperature=0, repetition_penalty=3.0, repetition_window=4)
    sampler = Sampler(config)

    assert sampler(log_probs_of(USUAL), b"A1234") == 65
    assert sampler(log_probs_of(USUAL), b"1A234") == 7
    assert sampler(log_probs_of(USUAL), bytes([65, 7, 200])) == 0
    assert (
        Sampler(SamplerConfig(temperature=0, repetition_penalty=3.0, repetition_window=0))(log_probs_of(USUAL), b"AAAA")
        == 65
    )


def test_repetition_penalty_leaves_its_input_alone() -> None:
    """The log-probabilities belong to the session that will give them again."""
    log_probs = log_probs_of(USUAL)
    before = log_probs.clone()
    Sampler(SamplerConfig(repetition_penalty=2.0))(log_probs, b"A")

    assert torch.equal(before, log_probs)


def test_adaptive_temperature_stays_in_bounds() -> None:
    """It cools where the model is sure, warms where it is not, within half and one and a half of what was asked."""
    sure, unsure = log_probs_of({65: 0.9999}), torch.full((256,), 1 / 256).log()
    between = log_probs_of({65: 0.9, 7: 0.1 - 1e-9})
    sampler = Sampler(SamplerConfig(temperature=0.8, adaptive=True))
    seen = []
    for log_probs, times in ((between, 3), (sure, 10), (between, 1), (unsure, 30)):
        for _ in range(times):
            sampler(log_probs, b"")
        seen.append(sampler._temperature)

    assert seen == pytest.approx([0.8, 0.4, 0.4, 1.2])
    assert 0.3 < float(torch.special.entr(between.exp()).sum()) / math.log(2) < 1.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"top_k": 257},
        {"top_p": 0.0},
        {"min_p": 1.0},
        {"repetition_penalty": 0.0},
        {"repetition_window": -1},
    ],
)
def test_bad_settings_are_refused(wrong: dict[str, float]) -> None:
    """The message names the field and what it was given."""
    ((name, value),) = wrong.items()

    with pytest.raises(ConfigError, match=f"{name} must be .*, got {value}"):
        SamplerConfig(**wrong)
