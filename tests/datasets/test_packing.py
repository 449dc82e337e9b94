"""Whole documents in rows: every byte once, short documents never split, little left empty, always the same rows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.datasets import packing
from bytropix.datasets.packing import DocumentCut, Kept
from bytropix.datasets.windows import Runs


class Lengths:
    """A part that knows the lengths of its documents."""

    def __init__(self, lengths: list[int]) -> None:
        self.doc_ends = np.cumsum(lengths, dtype=np.int64)


def cut(parts: list[list[int]], width: int) -> DocumentCut:
    """Return the windows of parts of documents of some lengths."""
    return DocumentCut([Lengths(lengths) for lengths in parts], width)


def all_rows(windows: DocumentCut) -> list[list[tuple[int, int, int]]]:
    """Return the runs of every row, each as part, start and stop."""
    return rows_of(windows.runs(np.arange(windows.windows)))


def rows_of(runs: Runs) -> list[list[tuple[int, int, int]]]:
    """Return the runs of each row."""
    flat = list(zip(runs.parts.tolist(), runs.starts.tolist(), runs.stops.tolist(), strict=True))
    return [flat[first:stop] for first, stop in pairwise(runs.first.tolist())]


@pytest.fixture
def small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections of two rows, so that small parts have many."""
    monkeypatch.setattr(packing, "SECTION_BYTES", 1)
    monkeypatch.setattr(packing, "SECTION_ROWS", 2)


LISTS_OF_PARTS = st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=40), min_size=1, max_size=4)


@pytest.mark.usefixtures("small_sections")
@settings(deadline=None, max_examples=50)
@given(parts=LISTS_OF_PARTS, width=st.integers(1, 70))
def test_every_byte_lies_in_one_run(parts: list[list[int]], width: int) -> None:
    """And no row is empty or overfull, and a document that fits in a row is one run."""
    rows = all_rows(cut(parts, width))
    runs = sorted(run for row in rows for run in row)

    assert all(row and sum(stop - start for _, start, stop in row) <= width for row in rows)
    for part, lengths in enumerate(parts):
        own = [(start, stop) for number, start, stop in runs if number == part]
        expected, begin = [], 0
        for length in lengths:
            cuts = [*range(begin, begin + length, width), begin + length]
            expected += list(pairwise(cuts))
            begin += length
        assert own == expected


@pytest.mark.usefixtures("small_sections")
@settings(deadline=None, max_examples=50)
@given(parts=LISTS_OF_PARTS, width=st.integers(1, 70), seed=st.integers(0, 99))
def test_windows_can_be_asked_for_in_any_order(parts: list[list[int]], width: int, seed: int) -> None:
    """A window is the same alone, among others, asked twice, and in a cut that has just been made."""
    rows = all_rows(cut(parts, width))
    windows = cut(parts, width)
    asked = np.random.default_rng(seed).integers(0, windows.windows, 2 * windows.windows)

    assert rows_of(windows.runs(asked)) == [rows[number] for number in asked.tolist()]
    assert rows_of(windows.runs(asked[:1])) == [rows[asked[0]]]
    assert rows_of(windows.runs(asked[:0])) == []


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 200), min_size=2, max_size=300), width=st.integers(1, 120))
def test_no_two_packed_rows_would_fit_in_one(lengths: list[int], width: int) -> None:
    """A row is opened for a run only where no open row has room, so packed rows are more than half full on average."""
    rows = all_rows(cut([lengths], width))
    packed = sorted(sum(stop - start for _, start, stop in row) for row in rows)

    assert len(packed) < 2 or packed[0] + packed[1] > width
    assert len(rows) <= 2 * -(-sum(lengths) // width)


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=120), width=st.integers(2, 50))
def test_a_run_goes_where_it_fits_best(lengths: list[int], width: int) -> None:
    """Rows are as full as those of the plain method: the longest first, each where the least room is left behind it."""
    left: list[int] = []
    for rest in sorted((length % width for length in lengths), reverse=True):
        fits = [row for row in range(len(left)) if left[row] >= rest]
        if rest and fits:
            left[min(fits, key=left.__getitem__)] -= rest
        elif rest:
            left.append(width - rest)
    full = [width] * sum(length // width for length in lengths)
    rows = all_rows(cut([lengths], width))

    assert sorted(sum(stop - start for _, start, stop in row) for row in rows) == sorted(
        full + [width - room for room in left]
    )


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_rows_are_near_the_fewest(data: st.DataObject) -> None:
    """Documents that could fill k rows to the brim take at most 11/9 k + 4 (Johnson 1974, best fit decreasing)."""
    width = data.draw(st.integers(2, 100))
    rows, lengths = data.draw(st.integers(1, 60)), []
    draws = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for _ in range(rows):
        borders = np.unique(draws.integers(1, width, data.draw(st.integers(0, 4))))
        lengths += np.diff(borders, prepend=0, append=width).tolist()
    draws.shuffle(lengths)

    assert rows <= cut([lengths], width).windows <= 11 / 9 * rows + 4


def test_little_is_left_empty() -> None:
    """Documents of a web text's lengths, one part of 8 MiB: below 1 % at 4 KiB, where next fit leaves 10 times that."""
    draws = np.random.default_rng(0)
    lengths = np.maximum(1, draws.lognormal(7, 1.2, 4000)).astype(np.int64)
    width = 4097
    left, simple = 0, int((lengths // width).sum())
    for rest in (lengths % width).tolist():
        simple, left = (simple + 1, width - rest) if rest > left else (simple, left - rest)
    windows = cut([lengths.tolist()], width)
    padding = 1 - lengths.sum() / (windows.windows * width)

    assert padding < 0.01
    assert 1 - lengths.sum() / (simple * width) > 10 * padding


def test_a_row_is_made_of_near_documents() -> None:
    """Nothing in a row is further apart than a section, so that blocks of the store are read once and let go."""
    draws = np.random.default_rng(1)
    lengths = draws.integers(1, 2000, 6000)
    rows = all_rows(cut([lengths.tolist()], 1025))

    assert lengths.sum() > 5 * packing.SECTION_BYTES
    assert max(row[-1][2] - row[0][1] for row in rows) <= packing.SECTION_BYTES + 2000


def test_numbers_of_documents_fit_16_bits() -> None:
    """A row is closed when it holds 32,767 runs, however much room is left."""
    rows = all_rows(cut([[1] * 70_000], 65_537))

    assert [len(row) for row in rows] == [32_767, 32_767, 70_000 - 2 * 32_767]


def test_values_are_kept_while_there_is_room() -> None:
    """The one used longest ago goes first; one that is larger than the room is still given."""
    made: list[int] = []

    def make(number: int) -> NDArray[np.uint8]:
        made.append(number)
        return np.zeros(number, dtype=np.uint8)

    kept = Kept(make, room=100)
    for number in (40, 50, 40, 30, 40, 50, 200, 200, 40):
        assert kept[number].size == number

    assert made == [40, 50, 30, 50, 200, 40]
