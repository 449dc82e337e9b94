"""Damaged files of every kind: whatever the bytes, a reader refuses the file or the record, or gives bytes.

BYTROPIX_FUZZ_CASES sets how many damaged files of each kind are read; the benchmark reads thousands more.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.jobs.bench.fuzz_sources import damage, fuzz_sources, harm_done
from bytropix.jobs.bench.source_samples import good_files
from bytropix.pipelines.sources import ReadOptions

CASES = int(os.environ.get("BYTROPIX_FUZZ_CASES", "30"))
FILES = good_files()


@pytest.mark.parametrize("name", FILES)
def test_good_files_are_read(name: str, read: Callable[..., Any]) -> None:
    """What is damaged below is read when it is whole, to the same records from a stream that cannot seek."""
    whole = read(FILES[name], name, ReadOptions(text_field="text"))
    trickled = read(FILES[name], name, ReadOptions(text_field="text"), seekable=False)

    assert whole.records == trickled.records != []


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(name: str) -> None:
    """Only our own exception comes out, blocks keep their contract, and little input never becomes much output."""

    @settings(max_examples=CASES, deadline=None, database=None, derandomize=True)
    @given(st.integers(0, 2**40), st.booleans())
    def check(seed: int, seekable: bool) -> None:
        assert harm_done(damage(FILES[name], seed), name, seekable=seekable) == ""

    check()


def test_the_search_finds_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that lets an error of a library through is found, by file and seed."""

    def broken(*given: Any) -> Any:
        raise KeyError("slipped")

    assert fuzz_sources(30, seed=1) == []
    monkeypatch.setattr("bytropix.jobs.bench.fuzz_sources.read_records", broken)
    assert fuzz_sources(2, seed=1)[0] == "a.txt, seed 1: KeyError: 'slipped'"
