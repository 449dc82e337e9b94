"""The benchmark of video ingestion at a tiny size: every row has its figure, and each target of the issue its row."""

import math
from pathlib import Path

from bytropix.jobs.bench import BENCHES
from bytropix.jobs.bench.ingest_video import films_of
from bytropix.jobs.bench.rows import BenchSettings


def test_rows_have_figures_and_targets(tmp_path: Path) -> None:
    """One end to end, regions, the child process, two workers, four codecs, memory; each bound is the issue's."""
    rows = BENCHES["ingest-video"](BenchSettings(repeats=1, megabytes=0.5, data=None, folder=tmp_path))
    bounds = [(target.figure, target.sign, target.bound) for row in rows for target in row.targets]
    sizes = {row.name.rpartition(" ")[2]: row.value for row in rows if "size of frames" in row.name}

    assert all(row.name.startswith("ingest-video: ") for row in rows)
    assert all(row.value is not None and math.isfinite(row.value) and row.value > 0 for row in rows)
    assert bounds[:4] == [
        ("ratio", ">=", 0.8),
        ("value", "<=", 0.1),
        ("ratio", ">=", 0.85),
        ("ratio", ">=", 1.7),
    ]
    assert bounds[4] == ("value", "<=", 600)
    assert sizes["h264"] < sizes["jpeg"] < sizes["raw"]


def test_films_are_taken_from_a_folder(tmp_path: Path) -> None:
    """Those that can be read; made-up ones else, each of which is one file of its own."""
    (tmp_path / "work").mkdir()
    made = films_of(BenchSettings(repeats=1, megabytes=0.5, data=None, folder=tmp_path / "work"))
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "film.mp4").write_bytes(made[0].read_bytes())
    (tmp_path / "given" / "notes.txt").write_text("no film")
    (tmp_path / "more").mkdir()
    given = films_of(BenchSettings(repeats=1, megabytes=0.5, data=tmp_path / "given", folder=tmp_path / "more"))

    assert len({path.read_bytes() for path in made}) == len(made) >= 4
    assert given == [tmp_path / "given" / "film.mp4"]
