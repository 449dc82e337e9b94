"""The entropy rule against a plain statement of it, and its ties."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.patching import RULES, EntropyTable, PatchConfig, Patcher
from bytropix.patching.limits import fresh_state


def plain_starts(document: bytes, entropy: list[int], budget: int, config: PatchConfig) -> list[bool]:
    """State the rule a second time, slowly: budget, peak over the running mean, whole characters, limits."""
    starts: list[bool] = []
    patch = promised = spent = 0
    mean_128 = 2 * 32 * 128
    for place, byte in enumerate(document):
        begins_character = promised == 0
        price = 32 * config.toll_bits + (entropy[place] if begins_character else 0)
        full = spent + price > budget
        surprising = 100 * 128 * entropy[place] > config.peak_percent * mean_128
        ripe = spent > budget * config.share_percent // 100
        if place == 0:
            start = True
        elif not begins_character:
            start = patch >= config.max_patch + 3
        elif patch >= config.max_patch:
            start = True
        else:
            start = patch >= config.min_patch and (full or (surprising and ripe))
        starts.append(start)
        patch, spent = (1, price) if start else (patch + 1, spent + price)
        if begins_character:
            mean_128 += entropy[place] - mean_128 // 128
        if promised and 0x80 <= byte <= 0xBF:
            promised -= 1
        else:
            promised = 1 * (0xC2 <= byte <= 0xDF) + 2 * (0xE0 <= byte <= 0xEF) + 3 * (0xF0 <= byte <= 0xF4)
    return starts


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    document=st.one_of(st.binary(max_size=300), st.text(max_size=150).map(str.encode)),
    level=st.integers(-1, 4000),
    limits=st.sampled_from([(1, 64), (2, 9), (1, 1)]),
)
def test_kernel_is_the_plain_rule(
    patchers: dict[str, Patcher], document: bytes, level: int, limits: tuple[int, int]
) -> None:
    """The compiled rule decides as its plain statement, byte for byte, at any budget."""
    least, greatest = limits
    config = PatchConfig(mean_patch=min(6, greatest), min_patch=least, max_patch=greatest)
    data = np.frombuffer(document, dtype=np.uint8)
    entropy = patchers["entropy"](document)[0]
    starts = RULES["entropy"].mark(
        data, entropy, np.array([data.size]), level=level, config=config, state=fresh_state()
    )

    assert plain_starts(document, entropy.tolist(), level, config) == starts.tolist()


def test_kernel_is_the_plain_rule_on_long_data(made: Any, patchers: dict[str, Patcher]) -> None:
    """The same on prose, other scripts and noise, where the running mean has settled."""
    document = b"".join(made.mixture()[:4]) + made.noise(3000, "more")
    patcher = patchers["entropy"]
    entropy, starts = patcher(document)

    assert plain_starts(document, entropy.tolist(), patcher.calibration.level, patcher.config) == starts.tolist()


def flat_table(value: int, measure: str = "character") -> EntropyTable:
    """Return a table that says `value` everywhere."""
    sizes = {"order0": 1, "order1": 256, "order2": 1 << 16, "order3": 1 << 20}
    arrays = {name: np.full(size, value, dtype=np.uint8) for name, size in sizes.items()}
    return EntropyTable.from_arrays(arrays, "character" if measure == "character" else "byte")


def patcher_of(rule: str, level: int, value: int) -> Patcher:
    """Return a patcher of one level over a flat table."""
    measure = RULES[rule].measure
    calibration = {"level": level, "sample_bytes": 1, "sample_patches": 1}
    return Patcher.from_settings(
        {"config": {"rule": rule, "toll_bits": 0}, "calibration": calibration}, flat_table(value, measure)
    )


@pytest.mark.parametrize(("budget", "length"), [(640, 10), (639, 9), (641, 10)])
def test_full_budget_is_not_yet_over_it(budget: int, length: int) -> None:
    """A patch whose entropies sum to the budget exactly stays one patch; one quantum less makes it two."""
    starts = patcher_of("entropy", budget, 64)(b"a" * 60)[1]

    assert length == int(np.flatnonzero(starts)[1])


def test_entropy_equal_to_the_peak_is_no_peak() -> None:
    """At 1.4 times the mean exactly there is no peak; one quantum above it there is."""
    # 60 quanta after a mean brought to 50 * 1.2; the mean is held by a peak_percent that meets it exactly.
    config = PatchConfig(toll_bits=0, share_percent=0, peak_percent=100)
    data = np.zeros(2, dtype=np.uint8)
    tie = np.array([64, 64], dtype=np.uint8)
    above = np.array([64, 65], dtype=np.uint8)
    marked = [
        RULES["entropy"].mark(data, entropy, np.array([2]), level=10_000, config=config, state=fresh_state()).tolist()
        for entropy in (tie, above)
    ]

    assert marked == [[True, False], [True, True]]


@pytest.mark.parametrize(("value", "expected"), [(99, 1), (100, 1), (101, 20)])
def test_entropy_equal_to_the_threshold_starts_nothing(value: int, expected: int) -> None:
    """The threshold is strict: the stored u8 entropy must exceed it."""
    assert expected == int(patcher_of("threshold", 100, value)(b"a" * 20)[1].sum())
