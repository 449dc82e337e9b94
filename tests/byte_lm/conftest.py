"""Small byte models of both kinds, fitted patchers of every rule, and texts that are the same on every machine."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bytropix.byte_lm import ByteTransformer, ByteTransformerConfig, WuBuByteLM, WuBuConfig
from bytropix.byte_lm.config import LocalConfig, MixerConfig, NgramConfig
from bytropix.nesting import LevelConfig, NestingConfig
from bytropix.patching import RULES, PatchConfig, Patcher, fit_patcher

ByteModel = WuBuByteLM | ByteTransformer

SMALL = WuBuConfig(
    encoder=LocalConfig(width=32, heads=2),
    ngram=NgramConfig(sizes=(2, 3, 8), rows=4096),
    mixer=MixerConfig(width=48, layers=2, heads=2),
    nesting=NestingConfig(
        levels=(LevelConfig(dim=8, boundary_points=3), LevelConfig(dim=4, boundary_points=2)), dropout=0.0
    ),
    decoder=LocalConfig(width=32, heads=2, layers=2),
)


class Lab:
    """Makers of models and inputs; test modules cannot import this file."""

    @staticmethod
    def wubu(*, context: int = 160, seed: int = 0, **changes: Any) -> WuBuByteLM:
        """Return a small WuBu model in evaluation mode."""
        torch.manual_seed(seed)
        return WuBuByteLM(replace(SMALL, **changes), context=context).eval()

    @staticmethod
    def transformer(*, context: int = 160, seed: int = 0, **changes: Any) -> ByteTransformer:
        """Return a small plain transformer in evaluation mode."""
        torch.manual_seed(seed)
        config = replace(ByteTransformerConfig(width=32, layers=2, heads=2), **changes)
        return ByteTransformer(config, context=context).eval()

    @staticmethod
    def model(kind: str, *, context: int = 160, seed: int = 0) -> ByteModel:
        """Return a small model of the kind "wubu" or "transformer"."""
        make = Lab.wubu if kind == "wubu" else Lab.transformer
        return make(context=context, seed=seed)

    @staticmethod
    def noise(n: int, seed: str) -> bytes:
        """Return n bytes that look random."""
        blocks = (hashlib.sha256(f"{seed} {block}".encode()).digest() for block in range(n // 32 + 1))
        return b"".join(blocks)[:n]

    @staticmethod
    def texts(n: int) -> dict[str, bytes]:
        """Return n bytes of each kind of data."""
        prose = "the sea was not calm, and over it went a ship with seven sails of grey cloth. "
        mixed = "На море дул ветер, 海はしずかで, el capitán dijo: «¡adelante!» 🚢🌊 and so on. "
        return {
            "prose": (prose * (n // len(prose) + 1)).encode()[:n],
            "utf8": (mixed * (n // len(mixed) + 1)).encode()[:n],
            "binary": Lab.noise(n, "binary"),
            "runs": (b"\0" * 30 + b"\xff" * 30 + b"ab" * 9)[:n].ljust(n, b"\xe3"),
        }

    @staticmethod
    def rows(patcher: Patcher, texts: list[bytes]) -> tuple[Tensor, Tensor]:
        """Return bytes u8 and starts bool (B, T) of windows of one length, patched each on its own."""
        values = np.stack([np.frombuffer(text, np.uint8) for text in texts])
        starts = np.stack([patcher(row)[1] for row in values])
        return torch.from_numpy(values.copy()), torch.from_numpy(starts.copy())

    @staticmethod
    def random_starts(batch: int, length: int, share: float, seed: int) -> Tensor:
        """Return random patch starts (B, T), the first column set."""
        draws = torch.Generator().manual_seed(seed)
        starts = torch.rand(batch, length, generator=draws) < share
        starts[:, 0] = True
        return starts


@pytest.fixture(scope="session")
def lab() -> type[Lab]:
    """Makers of models and inputs."""
    return Lab


@pytest.fixture(scope="session")
def patchers() -> dict[str, Patcher]:
    """A fitted patcher for every rule, its longest patch 12 bytes."""
    sample = list(Lab.texts(8000).values())
    return {rule: fit_patcher(sample, PatchConfig(rule=rule, mean_patch=4, max_patch=12)) for rule in RULES}
