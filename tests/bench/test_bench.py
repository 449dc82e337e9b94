"""Benchmarks at tiny sizes: their rows have figures, baselines and targets, and the command prints them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bytropix.byte_lm import ByteTransformerConfig, WuBuConfig
from bytropix.byte_lm.config import LocalConfig, MixerConfig, NgramConfig
from bytropix.errors import ConfigError, SourceError
from bytropix.jobs.bench import BENCHES, generate, train
from bytropix.jobs.bench.corpus import corpus_files, some_text
from bytropix.jobs.bench.original_patcher import OriginalPatcher
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, table
from bytropix.jobs.cli import main

TINY_WUBU = WuBuConfig(
    encoder=LocalConfig(width=16, heads=2),
    decoder=LocalConfig(width=16, heads=2),
    ngram=NgramConfig(rows=64),
    mixer=MixerConfig(width=16, layers=1, heads=2),
)
TINY_TRANSFORMER = ByteTransformerConfig(width=16, layers=1, heads=2)


@pytest.fixture
def settings(tmp_path: Path) -> BenchSettings:
    """One turn over half a megabyte of made-up files."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(12):
        words = (f"{word * (number + 3) % 997} sails " for word in range(2000))
        (data / f"{number}.txt").write_text("".join(words))
    folder = tmp_path / "work"
    folder.mkdir()
    return BenchSettings(repeats=1, megabytes=0.5, data=data, folder=folder)


@pytest.mark.parametrize("name", ["patching", "fairness", "ingest", "remote"])
def test_rows_have_figures_and_targets(settings: BenchSettings, name: Any) -> None:
    """Each benchmark reports positive figures, one row at least with a target, all under its own name."""
    rows = BENCHES[name](settings)

    assert all(row.name.startswith(f"{name}: ") for row in rows)
    assert all("not measured: No module named" in row.note for row in rows if row.value is None)
    assert all(math.isfinite(row.value) and row.value >= 0 for row in rows if row.value is not None)
    assert any(row.targets for row in rows)
    assert all(row.against and row.ratio for row in rows if row.baseline is not None)


def test_geometry_stands_beside_geoopt(settings: BenchSettings) -> None:
    """Three speeds and an error for every curvature and norm, or one row that says what is missing."""
    rows = BENCHES["geometry"](settings)
    if len(rows) == 1:
        assert "geoopt is not installed" in rows[0].note
        return
    assert len(rows) == 3 + 3 * 6
    assert all(row.baseline is not None for row in rows)


def test_models_are_compared(settings: BenchSettings) -> None:
    """Training and generation time both models on the same text."""
    rows = [
        train.compare(settings, TINY_WUBU, TINY_TRANSFORMER, batch=2),
        generate.compare(settings, TINY_WUBU, TINY_TRANSFORMER, n_bytes=4),
    ]

    assert [row.unit for row in rows] == ["kB/s", "bytes/s"]
    assert all(row.value and row.baseline and row.ratio for row in rows)


def test_every_file_has_a_row_of_fairness(settings: BenchSettings) -> None:
    """Three summaries, then each file; the table shows the five at each end."""
    rows = BENCHES["fairness"](settings)

    assert len(rows) == 3 + 12
    assert sum(not row.detail for row in rows[3:]) == 10
    assert rows[0].value == min(row.value or 0 for row in rows[3:])


def test_the_ratio_is_taken_turn_by_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything is three times slower in one turn, the ratio does not move."""
    times = iter([1.0, 2.0, 3.0, 6.0, 1.0, 2.0])
    monkeypatch.setattr("bytropix.jobs.bench.rows.seconds", lambda work, clock: next(times))
    thing = Contender(work=lambda: None, amount=6)
    row = against("x: y", "MB/s", thing, thing, 3, called="itself")

    assert (row.value, row.baseline, row.ratio) == (6.0, 3.0, 2.0)


@pytest.mark.parametrize(
    ("value", "ratio", "target", "met"),
    [
        (5.0, None, Target("value", ">=", 5), True),
        (4.9, None, Target("value", ">=", 5), False),
        (5.1, None, Target("value", "<=", 5), False),
        (5.0, 0.8, Target("ratio", ">=", 0.8), True),
        (5.0, None, Target("ratio", ">=", 0.8), False),
        (None, None, Target("value", "<=", 5), False),
    ],
)
def test_a_target_is_met_or_not(value: float | None, ratio: float | None, target: Target, met: bool) -> None:
    """Bounds include their ends, and what was not measured is not met; the table says so in words."""
    row = BenchRow(name="x: y", value=value, unit="MB/s", ratio=ratio, targets=(target,))

    assert row.met(target) is met
    assert ("NOT MET" in table(row)) is not met


def test_text_is_repeated_to_size(settings: BenchSettings) -> None:
    """Any size can be asked for; the text starts again where the files end."""
    whole = sum(path.stat().st_size for path in corpus_files(settings.data))
    text = some_text(settings.data, 2 * whole + 10)

    assert len(text) == 2 * whole + 10
    assert text[:whole] == text[whole : 2 * whole]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """Nothing to measure on is one line with a remedy."""
    with pytest.raises(SourceError, match="no files to measure on"):
        corpus_files(tmp_path)


def test_the_original_cuts_words_and_delimiters() -> None:
    """The baseline does what the original did: words, single delimiters, the entropy of each, NULs between int64."""
    window = torch.tensor(list(b"aab, ab"))
    patches = OriginalPatcher()(window.to(torch.uint8))

    assert [bytes(patch.tolist()) for patch, _ in patches] == [b"aab", b",", b" ", b"ab"]
    assert patches[3][1] == pytest.approx(1.0, abs=1e-5)
    assert patches[1][1] == pytest.approx(0.0, abs=1e-5)
    assert sum(len(patch) for patch, _ in OriginalPatcher()(window)) == 8 * 7


def test_the_command_prints_one_object(
    settings: BenchSettings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """--json prints the rows on stdout, the table goes to stderr, and --out keeps a copy."""
    out = tmp_path / "bench.json"
    flags = ["patching", "--repeats", "1", "--megabytes", "0.5", "--data", str(settings.data)]
    code = main(["bench", *flags, "--json", "--out", str(out)])
    printed = capsys.readouterr()
    report = json.loads(printed.out)

    assert code == 0
    assert json.loads(out.read_text()) == report
    assert ["met" in target for target in report["rows"][0]["targets"]] == [True, True]
    assert "patching: score and cut" in printed.err


@pytest.mark.parametrize(
    ("flags", "message"), [(["--repeats", "0"], "--repeats must be"), (["--megabytes", "0"], "--megabytes must lie")]
)
def test_unusable_flags_end_in_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the rule."""
    assert main(["bench", *flags]) == 2
    assert message in capsys.readouterr().err


def test_settings_need_a_folder_for_their_output(tmp_path: Path) -> None:
    """A missing folder is found before an hour of work, not after it."""
    from bytropix.jobs.commands.bench import Bench

    with pytest.raises(ConfigError, match="make it first"):
        Bench(out=tmp_path / "none" / "bench.json")
