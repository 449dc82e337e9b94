"""Times: missing, doubled and jumping stamps; which frame is seen at a target time."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytropix.pipelines.decoders.clock import Clock, Picker

FPS = st.sampled_from([1.0, 10.0, 12.5, 23.976, 25.0, 29.97, 30.0, 60.0])


def picked(begins: list[float], end: float, fps: float) -> list[tuple[float, int]]:
    """Return (time, frame number) of everything that is given out."""
    picker = Picker(fps)
    ends = [*begins[1:], end]
    return [
        (time, number)
        for number, (begin, until) in enumerate(zip(begins, ends, strict=True))
        for time in picker.until(begin, until)
    ]


def test_the_first_frame_is_at_zero() -> None:
    """Whatever the file's first stamp is, also where it is negative or missing."""
    for first in (7.5, -0.08, 0.0):
        clock = Clock(0.04)
        assert [clock.seconds(first), clock.seconds(first + 0.5)] == [0.0, 0.5]
    clock = Clock(0.04)
    assert [clock.seconds(None), clock.seconds(None)] == [0.0, 0.04]


def test_a_missing_stamp_follows_at_the_frame_rate() -> None:
    """As in AVI files with packed B-frames."""
    clock = Clock(0.1)

    assert np.allclose([clock.seconds(stamp) for stamp in (1.0, None, 1.2, None)], [0.0, 0.1, 0.2, 0.3])


def test_joined_streams_go_on_where_the_stamps_start_anew() -> None:
    """A file may be two recordings in one: the second follows the first, however short the first was."""
    clock = Clock(0.04)

    times = [clock.seconds(stamp) for stamp in (90000.0, 90000.04, 1.4, 1.44, 5000.0)]

    np.testing.assert_allclose(times, [0.0, 0.04, 0.08, 0.12, 0.16], atol=1e-9)
    clock = Clock(0.04)
    twice = [k / 25 for k in range(15)] * 2
    np.testing.assert_allclose([clock.seconds(stamp) for stamp in twice], np.arange(30) / 25, atol=1e-9)


def test_a_small_step_back_starts_nothing() -> None:
    """Stamps that go back by a few frames keep their order, and what follows is shown when it says."""
    for step, back in ((0.04, 0.5), (0.5, 4.0)):
        clock = Clock(step)

        times = [clock.seconds(stamp) for stamp in (0.0, 5.0, 5.0 - back, 6.0)]

        np.testing.assert_allclose(times, [0.0, 5.0, 5.0, 6.0], atol=1e-5)


def test_a_long_still_is_kept_and_an_absurd_gap_is_not() -> None:
    """A minute without a frame is a still; a year is a broken stamp."""
    clock = Clock(0.04)

    times = [clock.seconds(stamp) for stamp in (0.0, 60.0, 3e7, 3e7 + 0.04)]

    np.testing.assert_allclose(times, [0.0, 60.0, 60.04, 60.08], atol=1e-6)
    assert clock.end(700.0) == pytest.approx(660.08)


def test_a_gap_that_the_header_covers_is_kept() -> None:
    """A recording that paused for an hour is as long as its header says; nothing beyond that is believed."""
    clock = Clock(0.04, length=4000.0)

    assert [clock.seconds(stamp) for stamp in (0.0, 3000.0)] == [0.0, 3000.0]
    assert clock.end(1000.0) == 4000.0
    assert clock.seconds(3e7) == pytest.approx(3000.04)
    clock = Clock(0.04, length=4000.0)
    assert [clock.seconds(stamp) for stamp in (0.0, 3999.0)] == [0.0, 3999.0]
    assert clock.end(1000.0) == pytest.approx(4599.0)


@given(st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), min_size=1, max_size=40), st.floats(0, 1e9))
def test_times_always_rise(stamps: list[float | None], length: float) -> None:
    """Whatever the stamps are."""
    clock = Clock(0.04, length)

    times = [clock.seconds(stamp) for stamp in stamps]

    assert times[0] == 0.0
    assert all(before < after for before, after in itertools.pairwise(times))


def test_frames_are_picked_by_time_not_by_number() -> None:
    """Of a film that holds its second frame for a second, a quarter of the picks show it."""
    begins = [0.0, 0.5, 1.5, 1.6, 1.7, 1.8, 1.9]

    assert picked(begins, 2.0, 2.0) == [(0.0, 0), (0.5, 1), (1.0, 1), (1.5, 2)]


def test_a_slower_film_repeats_and_a_faster_one_skips() -> None:
    """Every target time is given out once."""
    assert picked([0.0, 0.1], 0.2, 20.0) == [(0.0, 0), (0.05, 0), (0.1, 1), (3 / 20, 1)]
    fast = picked([k / 60 for k in range(60)], 1.0, 10.0)
    assert [number for _, number in fast] == list(range(0, 60, 6))


def test_milliseconds_as_matroska_rounds_them_lose_no_frame() -> None:
    """At the film's own rate every frame is given out once, though its stamp is up to half a millisecond off."""
    for rate in (24.0, 25.0, 30.0, 60.0, 24000 / 1001, 30000 / 1001):
        begins = [round(k / rate, 3) for k in range(200)]

        assert [number for _, number in picked(begins, 200 / rate, rate)] == list(range(200))


@given(st.lists(st.floats(0.001, 0.7), min_size=1, max_size=60), FPS)
def test_the_frame_that_is_shown_is_the_one_picked(gaps: list[float], fps: float) -> None:
    """For any times: the last frame that begins no more than a millisecond after the target."""
    begins = np.concatenate([[0.0], np.cumsum(gaps)])
    end = float(begins[-1] + 0.04)

    found = picked(begins.tolist(), end, fps)

    times = np.array([time for time, _ in found])
    np.testing.assert_array_equal(times, np.arange(len(found)) / fps)
    assert len(found) == pytest.approx(end * fps, abs=1.01)
    early = min(1e-3, 0.25 / fps)
    assert [number for _, number in found] == (np.searchsorted(begins, times + early, side="right") - 1).tolist()


def test_no_rate_keeps_every_frame_at_its_time() -> None:
    """Also frames that are shown for no time at all."""
    assert picked([0.0, 0.1, 0.1 + 1e-6], 0.3, 0.0) == [(0.0, 0), (0.1, 1), (0.1 + 1e-6, 2)]
