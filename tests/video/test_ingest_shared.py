"""Real films of many kinds in one command: a right summary, and each file accounted for."""

import json
from pathlib import Path

import pytest

from bytropix.datasets.store import Store
from bytropix.jobs.cli import main

LONG = ["movie_300.mp4", "bottle-detection.mp4", "portrait_4k60.mp4", "smpte-2997.mp4"]  # half of the time


def test_all_real_films(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Films of every container and codec end in one store; the file without a film is the one that is refused."""
    words = ["ingest", "video", str(shared_data / "video"), "--out", str(tmp_path / "s.bx"), "--json", "--fps", "5"]
    words += [word for name in LONG for word in ("--exclude", name)]
    code = main([*words, "--size", "64", "96"])
    report = json.loads(capsys.readouterr().out)
    store = Store.open(tmp_path / "s.bx")
    codecs = {row["codec"] for split in store.splits for part in store.video_parts(split) for row in part.video_meta()}
    rows = {row["path"].rpartition("/")[2]: row["reason"] for row in store.quarantine()}

    assert code == 0
    assert rows["sample_audio_only.mp4"] == "no video stream"
    assert report["videos"] + report["quarantined"] == report["files_in"] == 74 - len(LONG)
    assert report["quarantined"] <= 4
    assert codecs >= {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "theora", "gif", "h263"}
    assert report["film_seconds"] > 150
