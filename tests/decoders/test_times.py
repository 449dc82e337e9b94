"""Times of films made here whose stamps pause, start anew or come in the wrong order."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytropix.pipelines.decoders import DecoderProcess, Wanted
from bytropix.pipelines.decoders.source import DEEPEST, in_stamp_order
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


def test_a_last_frame_of_more_than_ten_minutes_is_whole(decoder: DecoderProcess, tmp_path: Path) -> None:
    """A film that ends on a long still ends where its header says, and is not cut off."""
    short, path = grey_film(tmp_path / "short.mp4", LEVELS, options=NO_REORDERING), tmp_path / "long.mp4"
    with av.open(str(short)) as source, av.open(str(path), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream = copy
            if number == len(LEVELS) - 1 and packet.time_base is not None:
                packet.duration = int(700 / packet.time_base)
            target.mux(packet)

    found = read(decoder, path, SMALL)
    slow = read(decoder, path, Wanted(height=48, width=64, fps=0.01))

    assert found.fault is None
    np.testing.assert_allclose(found.times, np.arange(len(LEVELS)) / 25, atol=1e-6)
    np.testing.assert_allclose(slow.times, np.arange(8) * 100.0)


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


@pytest.mark.parametrize("bframes", [0, 3, 16])
def test_reordered_frames_in_avi_are_shown_at_an_even_pace(
    bframes: int, decoder: DecoderProcess, tmp_path: Path
) -> None:
    """AVI numbers frames in the order in which they are decoded; each is shown at its own place, and picked there."""
    options = {"bf": str(bframes), "x264-params": "b-adapt=0:scenecut=0"}
    path = grey_film(tmp_path / "film.avi", LEVELS * 5, options=options)

    found = read(decoder, path, SMALL)
    picked = read(decoder, path, Wanted(height=48, width=64, fps=25))

    assert found.fault is None
    np.testing.assert_allclose(found.times, np.arange(5 * len(LEVELS)) / 25, atol=1e-6)
    means = found.images.reshape(len(found.images), -1).mean(1)
    np.testing.assert_allclose(means, LEVELS * 5, atol=6)
    np.testing.assert_array_equal(picked.images, found.images)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(0, 5), st.data())
def test_stamps_are_sorted_within_the_deepest_reordering(gaps: list[int], missing: int, data: st.DataObject) -> None:
    """Uneven stamps keep their distances, frames their order, and one without a stamp has none afterwards."""
    stamps: list[int | None] = np.cumsum(gaps).tolist()
    mixed: list[int | None] = []
    size = DEEPEST - missing  # those without a stamp take up places too
    for begin in range(0, len(stamps), size):
        mixed += data.draw(st.permutations(stamps[begin : begin + size]))
    for _ in range(missing):
        place = data.draw(st.integers(0, len(mixed)))
        mixed.insert(place, None)
    frames = [av.VideoFrame(16, 16, "gray") for _ in mixed]
    for frame, stamp in zip(frames, mixed, strict=True):
        frame.pts = stamp

    found = list(in_stamp_order(iter(frames)))

    assert all(a is b for a, b in zip(found, frames, strict=True))
    assert [frame.pts is None for frame in found] == [stamp is None for stamp in mixed]
    assert [frame.pts for frame in found if frame.pts is not None] == stamps
