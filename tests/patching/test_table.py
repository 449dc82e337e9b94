"""The entropy table: integer logarithms, what is measured, storage, and the same bits everywhere."""

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.errors import ConfigError
from bytropix.patching import RULES, EntropyTable, PatchConfig, Patcher, fit_patcher
from bytropix.patching.fitting import fit_table
from bytropix.patching.table import BACK_OFF, LARGEST, SLOT_BITS, context_slot, log2_q16

GOLDEN = "70d8d12fc9ed32538f06293768b647249a312b42716c302aced674b9bfb94616"


def fitted(documents: list[bytes], measure: str = "byte") -> EntropyTable:
    """Return the table of some documents."""
    ends = np.cumsum([len(document) for document in documents])
    data = np.frombuffer(b"".join(documents), dtype=np.uint8)
    return fit_table(data, ends, "character" if measure == "character" else "byte")


@settings(deadline=None, max_examples=300, derandomize=True)
@given(value=st.integers(1, 2**32 - 1))
def test_log2_is_exact_to_its_last_bits(value: int) -> None:
    """The logarithm of integers is right to 2 / 65536 bit and never too large."""
    error = math.log2(value) * 65536 - int(log2_q16(value))

    assert -1e-6 <= error < 2


def test_log2_of_powers_is_exact() -> None:
    """A power of two has a whole logarithm."""
    assert [power << 16 for power in range(32)] == [int(log2_q16(1 << power)) for power in range(32)]


def test_entropy_of_fair_choices(made: Any) -> None:
    """Four equally likely bytes are 2 bits of entropy, whatever came before them."""
    table = fitted([bytes(b"acgt"[value % 4] for value in made.noise(200_000, "dna"))])
    slot = int(context_slot(ord("a"), ord("c"), ord("g")))

    assert [int(table.order0[0]), int(table.order1[ord("a")]), int(table.order3[slot])] == [64, 64, 64]


def test_certain_byte_has_no_entropy() -> None:
    """What always follows costs nothing, at every order that saw it often."""
    table = fitted([b"abcd" * 5000])

    assert table.order2[(ord("b") << 8) | ord("c")] == 0
    assert table.order3[int(context_slot(ord("b"), ord("c"), ord("d")))] == 0


def test_unseen_context_backs_off(made: Any) -> None:
    """An unseen context has the entropy of the longest part of it that was seen."""
    table = fitted([made.prose(5000, "seen")])

    assert table.order3[int(context_slot(250, 251, 252))] == BACK_OFF
    assert table.order1[ord("e")] == table.order2[(250 << 8) | ord("e")]
    assert table.order0[0] == table.order1[252]


def test_character_measure_counts_the_whole_character(made: Any) -> None:
    """One of 64 two-byte characters is 6 bits at its lead byte, though the lead byte itself is certain."""
    text = "".join(chr(0x400 + value % 64) for value in made.noise(100_000, "letters"))
    by_byte, by_character = (fitted([text.encode()], measure) for measure in ("byte", "character"))
    context = (0xD0 << 8) | 0x90  # the letter U+0410 was read, so a lead byte follows

    assert 6 <= int(by_byte.order2[context]) / 32 + 6 < 6.1
    assert 5.8 < int(by_character.order2[context]) / 32 <= 6.05


def test_measures_agree_on_ascii(made: Any) -> None:
    """Where every character is one byte, the character measure is the byte measure."""
    one, other = (fitted([made.prose(20_000, "ascii")], measure) for measure in ("byte", "character"))

    assert all(np.array_equal(one.arrays()[name], other.arrays()[name]) for name in one.arrays())


def test_entropies_stay_in_range(made: Any) -> None:
    """No order says more than 254; only order 3 may say "back off"."""
    table = fitted([made.noise(100_000, "binary"), *made.mixture()], "character")

    assert max(int(table.order0.max()), int(table.order1.max()), int(table.order2.max())) <= LARGEST


def test_slots_are_spread() -> None:
    """The contexts of a small alphabet have slots of their own, nearly all of them."""
    letters = range(ord("a"), ord("z") + 1)
    slots = {int(context_slot(a, b, c)) for a in letters for b in letters for c in letters}

    assert len(slots) > 0.98 * 26**3
    assert max(slots) < 1 << SLOT_BITS


def test_document_border_is_no_context() -> None:
    """What follows the end of a document is not counted as following it."""
    together, apart = fitted([b"ab" * 100]), fitted([b"a", b"b"] * 100)

    assert together.order1[ord("a")] < apart.order1[ord("a")]


def test_stored_patcher_patches_the_same(made: Any) -> None:
    """A patcher rebuilt from its settings and arrays gives the same entropies and starts."""
    for rule in RULES:
        patcher = fit_patcher(made.mixture(), PatchConfig(rule=rule, mean_patch=5))
        table = EntropyTable.from_arrays(patcher.table.arrays(), patcher.table.measure)
        again = Patcher.from_settings(patcher.settings(), table)
        document = made.prose(3000, "other") + made.noise(500, "other")

        assert all(np.array_equal(*pair) for pair in zip(patcher(document), again(document), strict=True))


def test_wrong_array_is_refused() -> None:
    """A missing array and one of another type are named."""
    arrays = fitted([b"abc"]).arrays()
    with pytest.raises(ConfigError, match="no array 'order2'"):
        EntropyTable.from_arrays({name: arrays[name] for name in arrays if name != "order2"}, "byte")
    with pytest.raises(ConfigError, match="order1 must be uint8"):
        EntropyTable.from_arrays(arrays | {"order1": arrays["order1"].astype(np.int64)}, "byte")


def test_rule_refuses_a_table_of_the_other_measure() -> None:
    """The entropy rule does not run on byte entropies."""
    patcher = fit_patcher([b"some words here"], PatchConfig())
    with pytest.raises(ConfigError, match="needs a table of character entropies, got one of byte"):
        Patcher.from_settings(patcher.settings(), fitted([b"some words here"], "byte"))


@pytest.mark.parametrize("damage", [{"config": {}}, {"calibration": {}}, {"config": {"rle": 1}, "calibration": {}}])
def test_incomplete_settings_are_refused(damage: dict[str, dict[str, int]]) -> None:
    """Settings without a part, or with an unknown key, are a ConfigError."""
    with pytest.raises(ConfigError, match="patcher settings are incomplete"):
        Patcher.from_settings(damage, fitted([b"abc"], "character"))


def test_fit_is_the_same_everywhere(made: Any) -> None:
    """Tables and starts of a fixed corpus have a fixed digest; a change here changes every store."""
    patcher = fit_patcher(made.mixture(), PatchConfig())
    digest = hashlib.sha256()
    for array in patcher.table.arrays().values():
        digest.update(array.tobytes())
    for document in made.mixture():
        entropy, starts = patcher(document)
        digest.update(entropy.tobytes() + starts.tobytes())

    assert digest.hexdigest() == GOLDEN
