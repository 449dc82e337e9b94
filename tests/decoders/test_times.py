"""Times of films made here whose stamps pause, start anew or come in the wrong order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.pipelines.decoders import DecoderProcess, Wanted
from tests.decoders.conftest import grey_film, read

LEVELS = [20, 230, 60, 200, 100, 170, 140, 40, 250, 80, 190, 120]
SMALL = Wanted(height=48, width=64)
NO_REORDERING = {"bf": "0"}


@pytest.mark.parametrize(("name", "pause"), [("film.mp4", 700), ("film.mkv", 700), ("film.ts", 15), ("film.ts", 300)])
def test_a_pause_is_kept(name: str, pause: int, decoder: DecoderProcess, tmp_path: Path) -> None:
    """A recording that paused is whole, and shows one frame all the while."""
    stamps = [k * 40 + pause * 1000 * (k >= 6) for k in range(len(LEVELS))]

    found = read(decoder, grey_film(tmp_path / name, LEVELS, stamps=stamps, options=NO_REORDERING), SMALL)

    assert found.fault is None
    np.testing.assert_allclose(found.times, np.array(stamps) / 1000, atol=1e-6)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_last_frame_of_more_than_ten_minutes_is_whole(name: str, decoder: DecoderProcess, tmp_path: Path) -> None:
    """A film that ends on a long still ends where its header says."""
    stamps = [0, 700_000]

    found = read(decoder, grey_film(tmp_path / name, LEVELS[:2], stamps=stamps, options=NO_REORDERING), SMALL)

    assert found.fault is None
    np.testing.assert_allclose(found.times, [0.0, 700.0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "how"),
    [("film.mkv", {"codec": "ffv1"}), ("film.mpg", {"codec": "mpeg2video"}), ("film.ts", {"codec": "mpeg2video"})],
)
def test_two_recordings_in_one_file_follow_each_other(
    name: str, how: dict[str, Any], decoder: DecoderProcess, tmp_path: Path
) -> None:
    """Files laid end to end: the stamps start anew in the middle, the times go on at the same pace."""
    one = grey_film(tmp_path / name, LEVELS * 3, **how)
    two = tmp_path / f"two_{name}"
    two.write_bytes(one.read_bytes() * 2)

    single = read(decoder, one, SMALL).times
    found = read(decoder, two, SMALL)

    assert len(single) == 3 * len(LEVELS)
    np.testing.assert_allclose(found.times, [*single, *(single + single[-1] + 1 / 25)], atol=1.001e-3)
