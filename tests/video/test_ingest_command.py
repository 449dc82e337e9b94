"""`bytropix ingest video` as a user calls it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bytropix.datasets.store import Store
from bytropix.jobs.cli import main

Tree = Callable[[Path], dict[str, bytes]]
FLAGS = ["--size", "32", "48", "--clip-frames", "8", "--workers", "1"]


def test_report_on_stderr(film_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress and summary go to stderr, and say what is in the store and what is not."""
    words = ["ingest", "video", str(film_folder), "--out", str(tmp_path / "s.bx"), "--max-bad", "0.5", *FLAGS]
    code = main([*words, "--val-fraction", "0"])
    out, err = capsys.readouterr()
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in err.splitlines() if line.strip()}

    assert (code, out) == (0, "")
    assert lines["files"] == "6, 2 quarantined"
    assert lines["videos"] == "4 (0 in val), 14.4 s of film"
    assert lines["frames"] == "351 (0 in val) of 32 x 48"
    assert lines["scenes"].startswith("7, with ")
    assert "quarantined  1 no video but text" in err
    assert all(stage in err for stage in ("scan ", "decode"))
    assert "frames/s" in lines["time"]


def test_json_is_one_object(film_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json stdout is one object, of the numbers that the store itself gives, at a rerun too."""
    words = ["ingest", "video", str(film_folder), "--out", str(tmp_path / "s.bx"), "--json", *FLAGS, "--max-bad", "1"]
    words += ["--frame-codec", "h264", "--fps", "10", "--stride", "4", "--regions", "5", "--motion-regions", "2"]
    codes = [main([*words, "--exclude", "zoom.*"]), main([*words, "--exclude", "zoom.*", "--resume"])]
    first, again = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    store = Store.open(tmp_path / "s.bx")
    config = store.manifest.config

    assert codes == [0, 0]
    assert first["fingerprint"] == store.fingerprint
    assert first["frames"] == sum(part.frames for part in store.manifest.parts) == 50 + 40 + 24
    assert sum(row["clips"] for row in first["splits"].values()) == first["clips"] > 3
    assert (first["parts_skipped"], again["parts_skipped"]) == (0, first["parts"])
    changing = ("seconds", "frames_per_second", "parts_skipped")
    assert {key: value for key, value in first.items() if key not in changing} == {
        key: value for key, value in again.items() if key not in changing
    }
    assert (config["layout"]["frame_codec"], config["fps"], config["stride"]) == ("h264", 10.0, 4)
    assert (config["regions"]["regions"], config["regions"]["motion_regions"]) == (5, 2)


@pytest.mark.parametrize(("format", "own", "other"), [("zarr", "raw", "webdataset"), ("webdataset", "jpeg", "zarr")])
def test_a_default_that_is_named_is_the_default(
    film_folder: Path, tmp_path: Path, tree: Tree, format: str, own: str, other: str
) -> None:
    """A store made with its format's own codec by name is the one made without, and so is the one there and back."""
    named, plain, between, back = (str(tmp_path / f"{name}.bx") for name in ("named", "plain", "between", "back"))
    words = ["ingest", "video", str(film_folder / "shapes.mp4"), *FLAGS, "--format", format]
    for more in (["--out", plain], ["--out", named, "--frame-codec", own]):
        assert main([*words, *more]) == 0
    assert main(["convert", named, between, "--format", other, "--workers", "1"]) == 0
    assert main(["convert", between, back, "--format", format, "--workers", "1"]) == 0

    assert tree(Path(named)) == tree(Path(plain)) == tree(Path(back))
    assert Store.open(between).manifest.parts[0].codec == own


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "4", "4"], "size must be a height and a width from 16"),
        (["--clip-frames", "0"], "clip_frames must lie in 1"),
        (["--workers", "0"], "workers must be at least 1"),
        (["--max-bad", "2"], "max_bad must lie in [0, 1]"),
        (["--format", "webdataset", "--frame-codec", "zstd"], "frame_codec of format webdataset"),
        (["--regions", "0"], "regions must"),
        (["--resume", "--overwrite"], "give one of them"),
    ],
)
def test_bad_settings_end_in_one_line(
    film_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    """Exit code 2, one line, no trace, and nothing on disk."""
    code = main(["ingest", "video", str(film_folder), "--out", str(tmp_path / "s.bx"), *flags])
    out, err = capsys.readouterr()

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "s.bx").exists()


def test_too_much_that_is_bad_is_exit_code_3(
    film_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says how much, why, where the list is and what to do."""
    code = main(["ingest", "video", str(film_folder), "--out", str(tmp_path / "s.bx"), *FLAGS])
    line = capsys.readouterr().err.splitlines()[-1]

    assert code == 3
    assert "of 6 files are bad, more than --max-bad 0.05 allows" in line
    assert "quarantine.jsonl" in line
