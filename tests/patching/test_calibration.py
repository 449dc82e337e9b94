"""The wanted mean patch length is reached, fairly for every kind of data, or the miss is on record."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.errors import ConfigError
from bytropix.patching import RULES, SAMPLE_BYTES, PatchConfig, RuleName, fit_patcher
from bytropix.patching.calibration import SLICE_BYTES, SLICES
from bytropix.patching.patcher import gather_sample


@pytest.mark.parametrize("mean", [0, 0.5, 65, -6, math.nan, math.inf])
def test_mean_patch_out_of_range_is_named(mean: float) -> None:
    """The message names the field, the range and the value."""
    with pytest.raises(ConfigError, match=f"mean patch length must be between 1 and 64 bytes, got {mean}"):
        PatchConfig(mean_patch=mean)


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_patch", 0), ("max_patch", 1025), ("max_patch", 6.0), ("min_patch", True), ("peak_percent", 0)],
)
def test_limit_out_of_range_is_named(field: str, value: int) -> None:
    """A limit that cannot work is named with its value."""
    with pytest.raises(ConfigError, match=f"{field} must be a whole number from .* got {value}"):
        PatchConfig(**{field: value})  # type: ignore[arg-type]


def test_mean_outside_the_limits_is_refused() -> None:
    """A mean patch length that the limits exclude cannot be asked for."""
    with pytest.raises(ConfigError, match="between min_patch 1 and max_patch 4, got 6"):
        PatchConfig(max_patch=4)


def test_unknown_rule_is_refused() -> None:
    """The message lists the rules."""
    with pytest.raises(ConfigError, match="entropy, threshold, words, fixed, got 'shannon'"):
        PatchConfig(rule="shannon")  # type: ignore[arg-type]


@pytest.mark.parametrize("documents", [[], [b"", b""]])
def test_empty_sample_is_refused(documents: list[bytes]) -> None:
    """Nothing to fit on is an error with a remedy, not a patcher of nothing."""
    with pytest.raises(ConfigError, match="empty sample: give it documents"):
        fit_patcher(documents, PatchConfig())


def test_sample_is_bounded() -> None:
    """A fit reads as many bytes as it says and not one more; the last document is cut there."""
    data, ends = gather_sample([b"abc", np.zeros(SAMPLE_BYTES, dtype=np.uint8), b"never read"])

    assert ends.tolist() == [3, SAMPLE_BYTES]
    assert data.size == SAMPLE_BYTES


@pytest.mark.parametrize("mean", [2.0, 4.0, 6.0, 12.0, 40.0])
@pytest.mark.parametrize("rule", ["entropy", "fixed"])
def test_mean_is_reached(made: Any, rule: RuleName, mean: float) -> None:
    """On a mixture, the rules reach any mean patch length within five percent."""
    patcher = fit_patcher([made.prose(60_000, "p"), made.noise(5000, "n")], PatchConfig(rule=rule, mean_patch=mean))

    assert pytest.approx(mean, rel=0.05) == patcher.calibration.mean_patch


def test_slices_tell_the_mean_of_a_large_sample(made: Any) -> None:
    """A sample larger than the slices is calibrated on them, and its own mean is what is recorded."""
    parts = [
        made.prose(400_000, "a"),
        bytes(b"acgt"[value % 4] for value in made.noise(900_000, "b")),
        made.noise(400_000, "c"),
    ]
    documents = [part[begin : begin + 30_000] for part in parts for begin in range(0, len(part), 30_000)] * 2
    patcher = fit_patcher(documents, PatchConfig())
    patches = sum(int(patcher(document)[1].sum()) for document in documents)

    assert patcher.calibration.sample_bytes > SLICES * SLICE_BYTES
    assert patches == patcher.calibration.sample_patches
    assert pytest.approx(6, rel=0.05) == patcher.calibration.mean_patch


def test_unreachable_mean_is_on_record() -> None:
    """A threshold cannot cut text of one entropy at a mean of 6; the settings say what came of it."""
    patcher = fit_patcher([b"ab" * 5000], PatchConfig(rule="threshold"))
    recorded = patcher.settings()["calibration"]

    assert int(patcher(b"ab" * 5000)[1].sum()) == recorded["sample_patches"]
    assert recorded["sample_bytes"] == 10_000
    assert abs(patcher.calibration.mean_patch - 6) > 1


def test_prose_is_cut_at_the_wanted_mean(shared_data: Path) -> None:
    """Fitted on Shakespeare, the mean is 6 bytes within five percent, and starts are where the bits are."""
    document = (shared_data / "text" / "tinyshakespeare.txt").read_bytes()
    patcher = fit_patcher([document], PatchConfig())
    entropy, starts = patcher(document)
    lengths = np.diff(np.flatnonzero(starts))

    assert pytest.approx(6, rel=0.05) == patcher.calibration.mean_patch
    assert np.mean(lengths == 1) < 0.05
    assert np.mean(lengths >= patcher.config.max_patch) < 0.02
    assert entropy[starts].mean() / entropy[~starts].mean() > 1.5


def test_one_setting_is_fair_to_every_file(shared_data: Path) -> None:
    """Fitted on a third of the files, every file has a mean from 3 to 12 and at most 2 % at the cap."""
    paths = [path for kind in ("text", "dna") for path in (shared_data / kind).rglob("*") if path.is_file()]
    names = {path.relative_to(shared_data).as_posix(): path for path in paths}
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    documents = {name: names[name].read_bytes()[:2_000_000] for name in order if names[name].stat().st_size}
    patcher = fit_patcher(list(documents.values())[::3], PatchConfig(mean_patch=6))
    unfair = {}
    for name, document in documents.items():
        lengths = np.diff(np.append(np.flatnonzero(patcher(document)[1]), len(document)))
        at_cap = float(np.mean(lengths >= patcher.config.max_patch))
        if not (3 <= lengths.mean() <= 12 and at_cap <= 0.02):
            unfair[name] = (float(lengths.mean()), at_cap)

    assert unfair == {}


@pytest.mark.parametrize(
    "document",
    [
        bytes(50_000),
        b"\n" * 50_000,
        b"\xff" * 50_000,
        b"\x80" * 50_000,
        b"ab" * 25_000,
        "\u3042".encode() * 20_000,
        "\U0001f600".encode() * 12_500,
        b"noise",
    ],
    ids=["nul", "newline", "ff", "continuation", "pair", "kana", "emoji", "noise"],
)
def test_extreme_data_is_cut_fairly(made: Any, document: bytes) -> None:
    """Fitted on prose alone, one endless repetition and pure noise still have a mean from 3 to 12 bytes."""
    if document == b"noise":
        document = made.noise(50_000, "extreme")
    starts = fit_patcher([made.prose(60_000, "p")], PatchConfig())(document)[1]

    assert 3 <= len(document) / int(starts.sum()) <= 12


@pytest.mark.parametrize("rule", RULES)
def test_fit_twice_is_fit_once(made: Any, rule: RuleName) -> None:
    """The same sample gives the same settings and the same table."""
    one, other = (fit_patcher(made.mixture(), PatchConfig(rule=rule)) for _ in range(2))

    assert one.settings() == other.settings()
    assert all(np.array_equal(one.table.arrays()[name], other.table.arrays()[name]) for name in one.table.arrays())
