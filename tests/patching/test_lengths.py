"""Laws of patch lengths: nothing lost, characters whole, the limits kept; and the rules on literal bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.patching import RULES, PatchConfig, Patcher, RuleName
from bytropix.patching.limits import LONGEST_REST

quick = settings(deadline=None, max_examples=60, derandomize=True)
broken = st.lists(
    st.one_of(st.binary(max_size=20), st.sampled_from([b"\xe3" * 90, b"\xff" * 90, b"\0" * 90, b"\xf0\x9f" * 40])),
    max_size=6,
).map(b"".join)


def pieces(patcher: Patcher, document: bytes) -> list[bytes]:
    """Return the patches of a document."""
    begins = np.flatnonzero(patcher(document)[1]).tolist()
    ends = [*begins[1:], len(document)]
    return [document[begin:end] for begin, end in zip(begins, ends, strict=False)]


def with_limits(patcher: Patcher, **changes: int) -> Patcher:
    """Return the patcher under other limits."""
    settings_ = patcher.settings()
    settings_["config"].update(changes)
    return Patcher.from_settings(settings_, patcher.table)


@pytest.mark.parametrize("rule", RULES)
@quick
@given(document=broken)
def test_patches_make_up_the_document(patchers: dict[str, Patcher], rule: RuleName, document: bytes) -> None:
    """Patches laid end to end are the document, none is empty: NUL, 0xFF and broken characters included."""
    found = pieces(patchers[rule], document)

    assert document == b"".join(found)
    assert all(found)


@pytest.mark.parametrize("rule", RULES)
@quick
@given(text=st.text(max_size=120))
def test_characters_stay_whole(patchers: dict[str, Patcher], rule: RuleName, text: str) -> None:
    """Every patch of valid UTF-8 is valid UTF-8, even where the greatest length is one byte."""
    tight = with_limits(patchers[rule], mean_patch=1, max_patch=1)

    for patcher in (patchers[rule], tight):
        assert text == "".join(piece.decode() for piece in pieces(patcher, text.encode()))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("greatest", [6, 16])
@quick
@given(document=broken)
def test_greatest_length_waits_for_a_character_only(
    patchers: dict[str, Patcher], rule: RuleName, greatest: int, document: bytes
) -> None:
    """No patch exceeds `max_patch` by more than the three bytes a character may still need."""
    patcher = with_limits(patchers[rule], max_patch=greatest)
    lengths = [len(piece) for piece in pieces(patcher, document)]

    assert greatest + LONGEST_REST >= max(lengths, default=0)


def test_endless_promise_is_broken_off(patchers: dict[str, Patcher]) -> None:
    """A run of lead bytes, each promising two more, is cut at `max_patch` + 3."""
    patcher = with_limits(patchers["entropy"], mean_patch=6, max_patch=8)

    assert [len(piece) for piece in pieces(patcher, b"\xe3" * 40)] == [11, 11, 11, 7]


@pytest.mark.parametrize("rule", ["entropy", "threshold", "words"])
@quick
@given(document=broken)
def test_least_length_is_kept(patchers: dict[str, Patcher], rule: RuleName, document: bytes) -> None:
    """Every patch but the last is at least `min_patch` long."""
    lengths = [len(piece) for piece in pieces(with_limits(patchers[rule], min_patch=4), document)]

    assert min(lengths[:-1], default=4) >= 4


@pytest.mark.parametrize("rule", RULES)
def test_empty_document_has_no_patch(patchers: dict[str, Patcher], rule: RuleName) -> None:
    """Nothing gives nothing."""
    entropy, starts = patchers[rule](b"")

    assert (entropy.size, starts.size) == (0, 0)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"one two  three", [b"one ", b"two ", b" three"]),
        (b"end, next", [b"end,", b" ", b"next"]),
        (b"a.b", [b"a.", b"b"]),
        (b"wait... what?!\n", [b"wait.", b".. ", b"what?", b"!\n"]),
        (b"  indented", [b" ", b" indented"]),
        (b"tab\tline\r\nnext\x0b\x0cend", [b"tab\t", b"line\r", b"\nnext\x0b", b"\x0cend"]),
        ("caf\u00e9 \u3042\u3044".encode(), ["caf\u00e9 ".encode(), "\u3042\u3044".encode()]),
    ],
)
def test_words(patchers: dict[str, Patcher], document: bytes, expected: list[bytes]) -> None:
    """A patch starts after a delimiter of a new class, and so at every word of plain prose."""
    assert expected == pieces(patchers["words"], document)


def test_words_know_38_delimiters(patchers: dict[str, Patcher]) -> None:
    """Six kinds of ASCII whitespace and 32 of punctuation end a word; no other byte does."""
    starts = [bool(patchers["words"](bytes([ord("a"), value, ord("a")]))[1][2]) for value in range(256)]

    assert sum(starts) == 38


def test_fixed_counts_from_the_left(patchers: dict[str, Patcher]) -> None:
    """The stride is counted from the last start, which a character may have delayed."""
    text = "abcdefg\u3042\u3044\u3046\u3048 rest of it"

    assert [piece.decode() for piece in pieces(patchers["fixed"], text.encode())] == [
        "abcdef",
        "g\u3042\u3044",
        "\u3046\u3048",
        " rest ",
        "of it",
    ]


@pytest.mark.parametrize(("mean", "stride"), [(1.0, 1), (6.4, 6), (6.5, 7), (64.0, 64)])
def test_fixed_stride_is_the_rounded_mean(mean: float, stride: int) -> None:
    """The mean patch length is rounded, halves up."""
    assert (stride, stride) == RULES["fixed"].levels(PatchConfig(rule="fixed", mean_patch=mean))
