"""Patchers of every rule, fitted on made-up data, and the shared data where it lies beside the checkout."""

import hashlib

import pytest

from bytropix.patching import RULES, PatchConfig, Patcher, fit_patcher

WORDS = [
    "the",
    "sea",
    "was",
    "not",
    "calm",
    "and",
    "over",
    "went",
    "a",
    "ship",
    "with",
    "seven",
    "sails",
    "of",
    "cloth",
]


class Made:
    """Made-up data, the same on every machine."""

    @staticmethod
    def noise(n: int, seed: str) -> bytes:
        """Return n bytes that look random and are the same on every machine."""
        blocks = (hashlib.sha256(f"{seed} {block}".encode()).digest() for block in range(n // 32 + 1))
        return b"".join(blocks)[:n]

    @staticmethod
    def prose(n: int, seed: str) -> bytes:
        """Return about n bytes of words, commas and full stops."""
        ends = [" ", " ", " ", " ", ", ", ". ", "\n"]
        pairs = zip(Made.noise(n // 4, seed), Made.noise(n // 4, seed + "!"), strict=True)
        return "".join(WORDS[word % len(WORDS)] + ends[end % len(ends)] for word, end in pairs).encode()[:n]

    @staticmethod
    def mixture() -> list[bytes]:
        """Return documents of prose, Japanese and Cyrillic letters, DNA, binary data and a long run."""
        kana = "".join(chr(0x3041 + value % 80) for value in Made.noise(3000, "kana"))
        cyrillic = "".join(chr(0x430 + value % 32) if value > 40 else " " for value in Made.noise(3000, "cyrillic"))
        dna = bytes(b"acgt"[value % 4] for value in Made.noise(8000, "dna"))
        return [
            Made.prose(20_000, "a"),
            kana.encode(),
            cyrillic.encode(),
            dna,
            Made.noise(4000, "binary"),
            b"\0" * 500,
            b"x",
        ]


@pytest.fixture(scope="session")
def made() -> type[Made]:
    """Makers of test data; test modules cannot import this file."""
    return Made


@pytest.fixture(scope="session")
def patchers() -> dict[str, Patcher]:
    """A fitted patcher for every rule."""
    return {rule: fit_patcher(Made.mixture(), PatchConfig(rule=rule)) for rule in RULES}
