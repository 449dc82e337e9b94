"""The ffmpeg program as the last decoder: a clear reason where there is none, the same frames and times otherwise."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bytropix.pipelines.decoders import DecoderProcess, Wanted
from tests.decoders.conftest import grey_film, make_film, moving, read


def test_a_machine_without_the_program_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names what is missing, and another decoder may read the file."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with DecoderProcess() as decoder:
        fault = read(decoder, grey_film(tmp_path / "film.mp4", [50]), Wanted(height=8, width=8, decoder="ffmpeg")).fault

    assert fault is not None
    assert fault.reason == "there is no ffmpeg program on the PATH"
    assert fault.retry


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg program")
def test_its_frames_and_times_are_those_of_pyav(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Of a film with a variable rate that is turned and in full range."""
    stamps = [0, 40, 80, 580, 600, 620, 1620, 1650, 1700, 1710]
    path = make_film(
        tmp_path / "film.mov",
        moving(10),
        codec="mjpeg",
        pix_fmt="yuvj444p",
        stamps=stamps,
        prepare=lambda stream: stream.set_display_rotation(-90),
    )
    ours, theirs = (
        read(decoder, path, Wanted(height=96, width=96, decoder=name))  # type: ignore[arg-type]
        for name in ("pyav", "ffmpeg")
    )

    assert (ours.fault, theirs.fault) == (None, None)
    np.testing.assert_allclose(theirs.times, ours.times, atol=2e-6)
    assert np.abs(theirs.images.astype(int) - ours.images).mean() < 1
