"""Where windows lie: every byte of a split in one of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.datasets.windows import RowCut, Runs


def bytes_of(runs: Runs, sizes: list[int]) -> list[list[int]]:
    """Return the bytes of each row by their place in the split."""
    begins = np.concatenate(([0], np.cumsum(sizes)))
    rows = []
    for row in range(runs.rows):
        taken = range(int(runs.first[row]), int(runs.first[row + 1]))
        rows.append([int(begins[runs.parts[i]]) + byte for i in taken for byte in range(runs.starts[i], runs.stops[i])])
    return rows


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=8).filter(any),
    width=st.integers(1, 400),
)
def test_windows_are_the_split_cut_into_equal_pieces(sizes: list[int], width: int) -> None:
    """In any order of asking, whatever the parts: short ones, empty ones, several within one window."""
    cut = RowCut(np.array(sizes), width)
    numbers = np.random.default_rng(0).permutation(cut.windows)
    total = sum(sizes)
    runs = cut.runs(numbers)

    assert [list(range(n * width, min(total, (n + 1) * width))) for n in numbers.tolist()] == bytes_of(runs, sizes)
    assert (runs.stops > runs.starts).all()


@pytest.mark.parametrize(("total", "windows"), [(1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_the_last_window_is_short(total: int, windows: int) -> None:
    """The number of windows is that of full ones and one for the rest."""
    assert RowCut(np.array([total]), 16).windows == windows
