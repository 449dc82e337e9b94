"""The hash of n-grams: order counts, rows are used evenly, eight bytes fit, nothing comes from behind or before."""

from itertools import permutations

import pytest
import torch

from bytropix.byte_lm.config import NgramConfig
from bytropix.byte_lm.encoder import REACH, NgramEmbedding
from bytropix.errors import ConfigError


def table(*sizes: int, rows: int = 1 << 30) -> NgramEmbedding:
    """Return an embedding that hashes into `rows` rows, by default too many for chance collisions, without vectors."""
    made = NgramEmbedding(NgramConfig(sizes=sizes, rows=1), 1)
    made.rows, made.offsets_N = rows, torch.arange(len(sizes)) * rows
    return made


@pytest.mark.parametrize("size", range(2, 9))
def test_order_counts(size: int) -> None:
    """No two arrangements of the same bytes share a row, which the original's sum of products did."""
    arranged = torch.tensor(list(permutations(b"listen!?"[:size])))
    rows = table(size).rows_of(arranged)[:, -1, 0]

    assert len(arranged) - 2 <= len(rows.unique())


@pytest.mark.parametrize("size", range(2, 9))
@pytest.mark.parametrize("place", range(8))
def test_each_byte_of_an_n_gram_counts_and_no_other(size: int, place: int) -> None:
    """Changing a byte changes the rows of the n-grams that hold it, at either end and in the middle, and no others."""
    before = torch.tensor([list(b"\x00abc\xffdef\x80ghijklm")])
    for flip in (1, 128, 255):
        after = before.clone()
        after[0, 4 + place] ^= flip
        changed = (table(size).rows_of(before) != table(size).rows_of(after))[0, :, 0].nonzero().flatten().tolist()

        assert list(range(4 + place, min(16, 4 + place + size))) == changed


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_rows_are_used_evenly(size: int) -> None:
    """Distinct n-grams of text-like bytes fill rows as balls thrown at random do: 1 - exp(-n / rows) of them."""
    rows = 4096
    draws = torch.Generator().manual_seed(size)
    grams = torch.randint(97, 123, (8192, size), generator=draws) if size > 2 else all_pairs()
    grams = grams.unique(dim=0)
    used = table(size, rows=rows).rows_of(grams)[:, -1, 0]
    share = len(used.unique()) / rows
    expected = 1 - torch.exp(torch.tensor(-len(grams) / rows)).item()

    assert int(used.min()) >= 0
    assert int(used.max()) < rows
    assert share == pytest.approx(expected, abs=0.03)
    assert int(used.bincount().max()) <= 16 + len(grams) // rows


def all_pairs() -> torch.Tensor:
    """Return pairs of letters and digits."""
    values = torch.arange(40, 120)
    return torch.cartesian_prod(values, values)


def test_sizes_have_rows_of_their_own() -> None:
    """The tables lie behind each other, and n-grams that begin with NULs are not those without them."""
    rows = table(2, 3, 8, rows=1000).rows_of(torch.randint(0, 256, (4, 50), generator=torch.Generator().manual_seed(1)))
    alone = [table(size).rows_of(torch.tensor([[0, 0, 0, 0, 0, 0, 65, 66]]))[0, -1, 0] for size in (2, 3, 4, 8)]

    assert ((rows // 1000) == torch.arange(3)).all()
    assert len({int(row) for row in alone}) == 4


def test_window_begins_with_zeros_or_with_what_it_is_given() -> None:
    """Rows of a window cut in two are those of the whole if the second part is told the REACH bytes before it."""
    whole = torch.randint(0, 256, (2, 30), generator=torch.Generator().manual_seed(1))
    ngrams = table(2, 5, 8)
    rows = ngrams.rows_of(whole)

    assert torch.equal(rows[:, 12:], ngrams.rows_of(whole[:, 12:], whole[:, 12 - REACH : 12]))
    assert torch.equal(rows, ngrams.rows_of(whole, torch.zeros(2, REACH, dtype=torch.long)))
    assert not torch.equal(rows[:, 12:], ngrams.rows_of(whole[:, 12:]))


def test_vectors_are_sums_over_sizes() -> None:
    """A byte gets the sum of one row of each table."""
    torch.manual_seed(0)
    ngrams = NgramEmbedding(NgramConfig(sizes=(2, 4), rows=64), 5)
    values = torch.randint(0, 256, (2, 9), dtype=torch.uint8)
    rows = ngrams.rows_of(values)

    torch.testing.assert_close(ngrams(values), ngrams.table.weight[rows].sum(2))


@pytest.mark.parametrize(("wrong", "rule"), [({"sizes": (3, 9)}, "between 2 and 8, got 9"), ({"rows": 0}, "got 0")])
def test_bad_settings_are_refused(wrong: dict[str, object], rule: str) -> None:
    """The message says the rule and the value."""
    with pytest.raises(ConfigError, match=rule):
        NgramConfig(**wrong)
