"""A document followed piece by piece is patched as the whole document is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.patching import RULES, Patcher, RuleName

quick = settings(deadline=None, max_examples=25, derandomize=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("piece", [1, 7, 512, 4096])
def test_pieces_give_the_whole(made: Any, patchers: dict[str, Patcher], rule: RuleName, piece: int) -> None:
    """Feeding 1, 7, 512 or 4096 bytes at a time changes nothing."""
    document = b"".join(made.mixture())[17_000:26_000]
    entropy, starts = patchers[rule](document)
    online = patchers[rule].online()
    fed = [online.feed(document[begin : begin + piece]) for begin in range(0, len(document), piece)]

    assert np.array_equal(entropy, np.concatenate([part for part, _ in fed]))
    assert np.array_equal(starts, np.concatenate([part for _, part in fed]))


@pytest.mark.parametrize("rule", RULES)
@quick
@given(document=st.one_of(st.binary(max_size=120), st.text(max_size=60).map(str.encode)))
def test_next_starts_foretells_the_whole(patchers: dict[str, Patcher], rule: RuleName, document: bytes) -> None:
    """What is said before each byte is what the whole document shows at it."""
    online = patchers[rule].online()
    foretold = []
    for byte in document:
        foretold.append(online.next_starts)
        online.push(byte)

    assert patchers[rule](document)[1].tolist() == foretold


@pytest.mark.parametrize("rule", RULES)
def test_pushed_bytes_foretell_a_real_text(made: Any, patchers: dict[str, Patcher], rule: RuleName) -> None:
    """Three bytes of context count: through text of every kind, each start is foretold."""
    document = b"".join(made.mixture())[17_000:26_000]
    online = patchers[rule].online()
    foretold = []
    for byte in document:
        foretold.append(online.next_starts)
        online.push(byte)

    assert patchers[rule](document)[1].tolist() == foretold


@pytest.mark.parametrize("rule", RULES)
def test_copy_goes_its_own_way(made: Any, patchers: dict[str, Patcher], rule: RuleName) -> None:
    """A copy continues from the same place, and neither disturbs the other."""
    head, one, other = made.prose(300, "head"), made.prose(200, "one"), b"\xff\0" * 80
    first = patchers[rule].online()
    first.feed(head)
    second = first.copy()
    starts_one = first.feed(one)[1]
    starts_other = second.feed(other)[1]

    assert patchers[rule](head + one)[1][300:].tolist() == starts_one.tolist()
    assert patchers[rule](head + other)[1][300:].tolist() == starts_other.tolist()


def test_document_begins_with_a_start(patchers: dict[str, Patcher]) -> None:
    """Before its first byte a document is about to start a patch, by every rule."""
    assert [True] * len(RULES) == [patchers[rule].online().next_starts for rule in RULES]
