"""Loaders side by side: what the JSON holds, that a missing row is noticed, and what happens to one that fails."""

import importlib.util
import io
import json
import os
import shutil
from collections.abc import Generator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bytropix.errors import RunError
from bytropix.jobs.bench import stream
from bytropix.jobs.bench.loaders import LOADERS, loader_called
from bytropix.jobs.bench.loaders.field import Field, Run
from bytropix.jobs.bench.loaders.measure import watch
from bytropix.jobs.bench.loaders.rows import BATCH, ROW_BYTES, ROWS_FILE, Batches, Plan, Tally, tally_of, write_rows
from bytropix.jobs.bench.rows import BenchRow
from bytropix.jobs.cli import main
from bytropix.jobs.commands.bench import by_place

NUMBERS = ("samples_per_s", "cpu_us_per_sample", "first_batch_ms")
PEERS = {"webdataset": "webdataset", "MDS": "streaming", "litdata": "litdata"}
INSTALLED = [name for name in LOADERS if name not in PEERS or importlib.util.find_spec(PEERS[name])]


def some_rows(count: int) -> bytes:
    """Return random rows, so that no two are alike."""
    return np.random.default_rng(5).integers(0, 256, count * ROW_BYTES, dtype=np.uint8).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the command writes, at its smallest: `bench.json`, `bench.png`, `stdout`, `stderr`."""
    out = tmp_path_factory.mktemp("bench")
    data = out / "data"
    data.mkdir()
    (data / "text.txt").write_bytes(some_rows(BATCH))
    flags = ["--repeats", "1", "--megabytes", "0.5", "--data", str(data)]
    said, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(told):
        # One of each kind of the other runs: all of them take a minute.
        patch.setattr(stream, "_without_prefetch", lambda: [Run(loader="bytropix", plan=Plan(prefetch=False))])
        workers = Run(loader="bytropix", plan=Plan(workers=2))
        patch.setattr(stream, "_others", lambda *_: [workers, Run(loader="memmap", cold=True, first_epoch=True)])
        more = ["--json", "--out", str(out / "bench.json"), "--png", str(out / "bench.png")]
        assert main(["bench", "stream", *flags, *more]) == 0
    (out / "stdout").write_text(said.getvalue())
    (out / "stderr").write_text(told.getvalue())
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """What the command printed."""
    found: dict[str, Any] = json.loads((folder / "stdout").read_text())
    return found


def test_each_loader_has_one_row_warm_and_without_workers(report: dict[str, Any]) -> None:
    """Who reads `rows` by loader gets the published table, in its order; other ways to run one stand elsewhere."""
    rows = {row["loader"]: row for row in report["rows"]}

    assert [row["loader"] for row in report["rows"]] == INSTALLED
    assert {(row["cache"], row["workers"]) for row in rows.values()} == {("warm", 0)}
    assert {rows[name]["prefetch"] for name in stream.OURS} == {True}
    assert [(row["loader"], row["cache"], row["workers"]) for row in report["variants"]] == [
        ("bytropix", "warm", 0),
        ("bytropix", "warm", 2),
        ("memmap", "cold", 0),
    ]


def test_every_row_has_a_name_and_three_numbers(report: dict[str, Any]) -> None:
    """A script may read these four of any row without looking; other ways of running are told apart by fields."""
    rows = report["rows"] + report["variants"]
    ways = [(row["loader"], row["cache"], row["workers"], row["prefetch"], row["decoded_cache_mib"]) for row in rows]

    assert all(isinstance(row[name], float) and row[name] > 0 for row in rows for name in NUMBERS)
    assert len(ways) == len(set(ways)) == len(INSTALLED) + 3


def test_every_loader_delivers_every_row(report: dict[str, Any]) -> None:
    """All read the same bytes once an epoch, in the order that each of them likes."""
    told = {row["name"]: row["complete"] for row in report["rows"] + report["variants"] if row["cache"] == "warm"}

    assert told == dict.fromkeys(told, True)


def test_ratios_stand_by_themselves_with_their_targets(report: dict[str, Any]) -> None:
    """What is compared, and whether it is enough, has a key of its own; a missing peer has no row but a line."""
    ratios = {row["name"]: row for row in report["ratios"]}
    absent = [row["name"] for row in report.get("not_installed", [])]

    assert ratios["stream: bytropix against memmap-batched"]["targets"][0]["bound"] == 0.8
    assert ratios["stream: bytropix+crc against memmap"]["targets"][0]["bound"] == 1.4
    assert all("met" in target for row in ratios.values() for target in row["targets"])
    assert absent == [f"stream: {name}" for name in LOADERS if name not in INSTALLED]


def test_the_table_is_written_three_times(folder: Path, report: dict[str, Any]) -> None:
    """One object on stdout, the same in --out, lines for people on stderr."""
    assert json.loads((folder / "bench.json").read_text()) == report
    said = (folder / "stderr").read_text()
    assert "stream: bytropix+crc, warm, 0 workers" in said
    assert "stream: memmap, cold, 0 workers" in said


def test_the_picture_is_one(folder: Path) -> None:
    """--png draws a bar for each loader, dark for ours."""
    with Image.open(folder / "bench.png") as image:
        image.load()
        colors = {color for _, color in image.getcolors(1 << 20) or []}

        assert image.format == "PNG"
        assert image.width == 2400
        assert 600 < image.height < 1400
    assert {(0x2F, 0x6F, 0x73), (0xB9, 0xB4, 0xA8)} <= colors


def test_places_are_keys() -> None:
    """Rows of other benchmarks stay where they were; an empty report has rows too."""
    rows = [BenchRow(name="a: b", value=1.0, unit="MB/s", place="ratios"), BenchRow(name="c: d", value=2.0, unit="ms")]

    assert {place: [row["name"] for row in found] for place, found in by_place(rows).items()} == {
        "rows": ["c: d"],
        "ratios": ["a: b"],
    }
    assert by_place([]) == {"rows": []}


@pytest.mark.parametrize("fault", ["none", "order", "lost", "twice", "changed", "shifted"])
def test_a_tally_knows_every_row(fault: str, tmp_path: Path) -> None:
    """Rows in another order are the same rows; a lost, doubled or changed one is not, nor one that begins late."""
    write_rows(tmp_path / ROWS_FILE, some_rows(2 * BATCH))
    rows = np.fromfile(tmp_path / ROWS_FILE, dtype=np.uint8)
    if fault == "shifted":
        rows = np.roll(rows, 1)
    table = rows.reshape(-1, ROW_BYTES)
    match fault:
        case "order":
            table = table[::-1]
        case "lost":
            table = table[:-1]
        case "twice":
            table = np.concatenate((table[:-1], table[:1]))
        case "changed":
            table[3, 7] ^= 1
    tally = Tally()
    for first in range(0, len(table), 10):
        tally.add(table[first : first + 10])

    assert (tally.total == tally_of(tmp_path / ROWS_FILE)) is (fault in ("none", "order"))


@pytest.mark.parametrize("lost", [0, 1])
def test_a_loader_that_drops_a_row_is_noticed(lost: int, tmp_path: Path) -> None:
    """Fast and incomplete is not fast."""
    write_rows(tmp_path / ROWS_FILE, some_rows(2 * BATCH))
    whole = loader_called("memmap-batched")

    def open_short(folder: Path, plan: Plan) -> Batches:
        def run(epochs: int) -> Generator[torch.Tensor, None, None]:
            for number, batch in enumerate(whole.open(folder, plan)(epochs)):
                yield batch[lost:] if number == 1 else batch

        return run

    assert watch(replace(whole, open=open_short), tmp_path, Plan(), base=0)["complete"] is (lost == 0)


def test_a_peer_that_fails_leaves_the_field_and_ours_does_not(tmp_path: Path) -> None:
    """What another library cannot do is told beside the rows; what ours cannot do ends the benchmark."""
    write_rows(tmp_path / ROWS_FILE, some_rows(BATCH))
    runs = [Run(loader="memmap-batched"), Run(loader="webdataset")]
    with Field(tmp_path, ["memmap-batched", "webdataset"]) as field:
        shutil.rmtree(tmp_path / "webdataset")
        found = field.in_turns(runs, 1)

        assert list(found) == runs[:1]
        assert list(field.absent) == ["webdataset"]
        (tmp_path / ROWS_FILE).unlink()
        with pytest.raises(RunError, match="loader memmap-batched: FileNotFoundError"):
            field.watch(runs[0])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise OSError('undefined symbol: x')", "OSError: undefined symbol: x"),
        ("import os; os._exit(7)", "its process ended"),
        ("import nothing_of_this_name", "pip install webdataset"),
    ],
)
def test_a_peer_whose_import_fails_takes_no_part(
    fault: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library raises that does not fit this machine, even if its process ends, it is named and left out."""
    (tmp_path / "webdataset.py").write_text(fault)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    write_rows(tmp_path / ROWS_FILE, some_rows(BATCH))
    with Field(tmp_path, ["webdataset"]) as field:
        assert field.names == []
        assert reason in field.absent["webdataset"]


def test_our_own_import_that_fails_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to compare without ours."""
    (tmp_path / "numba.py").write_text("raise OSError('undefined symbol: x')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    write_rows(tmp_path / ROWS_FILE, some_rows(BATCH))
    with pytest.raises(RunError, match="loader bytropix: "), Field(tmp_path, ["bytropix"]):
        pass


def test_without_fork_processes_are_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower to start, and measured all the same."""
    (tmp_path / "sitecustomize.py").write_text("import os\nif hasattr(os, 'fork'):\n    del os.fork\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    write_rows(tmp_path / ROWS_FILE, some_rows(BATCH))
    with Field(tmp_path, ["memmap"]) as field:
        assert field.watch(Run(loader="memmap"))["complete"]


def test_a_picture_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found missing before the measuring, not after it."""
    assert main(["bench", "stream", "--png", str(tmp_path / "none" / "bench.png")]) == 2
    assert "--png" in capsys.readouterr().err
