"""What small models learn in a few hundred steps, and what no honest model can."""

import math

import pytest
import torch
from torch import Tensor

from bytropix.byte_lm.config import LocalConfig, MixerConfig, NgramConfig
from bytropix.byte_lm.sampling import Sampler, SamplerConfig
from bytropix.nesting import LevelConfig, NestingConfig

KINDS = pytest.mark.parametrize("kind", ["wubu", "transformer"])
# As little as has every part once.
TINY = {
    "ngram": NgramConfig(sizes=(2,), rows=512),
    "mixer": MixerConfig(width=32, layers=1, heads=2),
    "nesting": NestingConfig(levels=(LevelConfig(dim=8, boundary_points=2, spread=0.25),), dropout=0.0),
    "decoder": LocalConfig(width=32, heads=2, layers=1),
}
LETTERS = torch.arange(97, 123, dtype=torch.uint8)


def tiny(lab, kind: str) -> torch.nn.Module:
    """Return a model that trains in seconds."""
    return lab.wubu(context=60, **TINY) if kind == "wubu" else lab.transformer(context=60)


def starts_after_spaces(values: Tensor) -> Tensor:
    """Return patch starts (B, T): the first byte, and each byte behind a space."""
    starts = torch.zeros_like(values, dtype=torch.bool)
    starts[:, 0] = True
    starts[:, 1:] = values[:, :-1] == 32
    return starts


def noise(batch: int, length: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return even random bytes, a patch every four."""
    starts = (torch.arange(length) % 4 == 0).expand(batch, length)
    return torch.randint(0, 256, (batch, length), generator=draws, dtype=torch.uint8), starts


def words(batch: int, length: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return words of six even random letters and a space, a word a patch."""
    values = LETTERS[torch.randint(0, 26, (batch, length), generator=draws)]
    values[:, 6::7] = 32
    return values, starts_after_spaces(values)


def train(model: torch.nn.Module, source, *, steps: int, length: int = 28, batch: int = 16) -> None:
    """Train on fresh data from a source."""
    draws = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    model.train()
    for _ in range(steps):
        values, starts = source(batch, length, draws)
        optimizer.zero_grad()
        model.nats(values, starts, length).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def bits(model: torch.nn.Module, source, *, length: int = 28) -> tuple[Tensor, float]:
    """Return bits (T,) at each index on fresh data, the mean of all rows, and three standard errors of their mean."""
    values, starts = source(400, length, torch.Generator().manual_seed(2))
    with torch.no_grad():
        nats = model.nats(values, starts, length).double() / math.log(2)
    return nats.mean(0), 3 * float(nats.mean(1).std()) / 400**0.5


@KINDS
def test_noise_is_not_learned(lab, kind: str) -> None:
    """Spec T5, d.8 T10: on fresh even bytes no model stands below 8 bits a byte."""
    model = tiny(lab, kind)
    train(model, noise, steps=80)
    found, error = bits(model, noise)

    assert 8 - error <= float(found.mean()) < 8.5


@KINDS
def test_random_words_are_not_read_ahead(lab, kind: str) -> None:
    """Spec T5, d.8 T10: letters cost log2 26 bits each whatever was trained, and the spaces are found for nothing."""
    model = tiny(lab, kind)
    train(model, words, steps=150)
    found, error = bits(model, words)
    letters = torch.arange(28) % 7 != 6

    assert float(found[letters].mean()) >= math.log2(26) - error * 28 / 24
    assert float(found.mean()) >= 6 / 7 * math.log2(26) - error
    assert float(found[letters].mean()) < math.log2(26) + 0.3
    assert float(found[~letters].mean()) < 0.5


@KINDS
def test_alphabet_is_continued(lab, kind: str) -> None:
    """Spec T6: the likeliest byte at index i is byte i, not the one behind it, and writing goes on letter by letter."""

    def alphabet(batch: int, length: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        first = torch.randint(0, 26, (batch, 1), generator=draws)
        starts = torch.rand(batch, length, generator=draws) < 0.3
        starts[:, 0] = True
        return LETTERS[(first + torch.arange(length)) % 26], starts

    model = tiny(lab, kind)
    train(model, alphabet, steps=60)
    values, starts = alphabet(8, 28, torch.Generator().manual_seed(5))
    with torch.no_grad():
        likeliest = model(values, starts, 28).argmax(-1)
    session, sampler = model.session(), Sampler(SamplerConfig(temperature=0))
    session.push(list(b"hijk"), [False, True, False, False])
    written = bytearray()
    for place in range(20):
        written.append(sampler(session.log_probs, written))
        session.push([written[-1]], [place % 3 == 0])

    assert torch.equal(likeliest[:, 1:], values[:, 1:].long())
    assert written == b"lmnopqrstuvwxyzabcde"
