"""Damaged files of every kind: whatever the bytes, a reader refuses the file or the record, or gives bytes.

BYTROPIX_FUZZ_CASES sets how many damaged files of each kind are read.
"""

import os
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.pipelines.sources import ReadOptions, SourceFault

CASES = int(os.environ.get("BYTROPIX_FUZZ_CASES", "30"))
KINDS = ("a.txt", "a.txt.gz", "a.txt.bz2", "a.txt.xz", "a.txt.zst", "a.tar", "gnu.tar", "pax.tar", "a.tgz", "a.zip")
KINDS += ("stored.zip", "bz2.zip", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.npy", "a.xml", "a.warc", "chunked.warc")
KINDS += ("encoded.warc",)
WIDE = (b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"99999999999", b'"', b"<", b"<!DOCTYPE x>", b"../", b"\r\n")


def damage(data: bytes, seed: int) -> bytes:
    """Return `data` with one to four edits; places near the ends, where headers are, are the likelier."""
    chance = random.Random(seed)
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = min(int(len(out) * chance.random() ** chance.choice((1, 3))), max(0, len(out) - 1))
        if chance.random() < 0.3:
            place = max(0, len(out) - 1 - place)
        match chance.randrange(7):
            case 0:
                out[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                out[place : place + 1] = bytes([out[place] ^ (1 << chance.randrange(8))]) if out else b"!"
            case 2:
                del out[place : place + chance.choice((1, 2, 16, 512))]
            case 3:
                out[place:place] = chance.choice(WIDE)
            case 4:
                wide = chance.choice(WIDE)
                out[place : place + len(wide)] = wide
            case 5:
                out[place:place] = out[place // 2 : place // 2 + chance.choice((4, 64, 512))]
            case 6:
                del out[place + 1 :]
    return bytes(out)


def test_samples_are_read(samples: dict[str, bytes], read: Callable[..., object]) -> None:
    """Every kind that is damaged below is read whole, also from a stream that cannot seek."""
    assert sorted(KINDS) == sorted(samples)
    for name, data in samples.items():
        whole = read(data, name, ReadOptions(text_field="text"))
        trickled = read(data, name, ReadOptions(text_field="text"), seekable=False)

        assert whole.records == trickled.records != [], name  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(name: str, samples: dict[str, bytes], read: Callable[..., object]) -> None:
    """Only our own exception comes out, blocks keep their contract, and little input never becomes much output."""

    @settings(max_examples=CASES, deadline=None, database=None, derandomize=True)
    @given(st.integers(0, 2**40), st.booleans())
    def check(seed: int, seekable: bool) -> None:
        try:
            read(damage(samples[name], seed), name, ReadOptions(text_field="text"), seekable=seekable)
        except SourceFault as fault:
            said = str(fault)
        else:
            said = "nothing"
        assert said
        assert "\n" not in said

    check()
