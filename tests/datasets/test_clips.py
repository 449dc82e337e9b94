"""Which clips a split has, in which order, and what chance decides of each: against lists made frame by frame."""

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.datasets.clip_order import ClipOrder, Clips
from bytropix.datasets.clip_reader import flip_boxes, flip_rows
from bytropix.datasets.clips import ClipRule, ClipTable, Scenes
from bytropix.errors import ConfigError

FRAME_BYTES = 40_000  # a block of the order has three clips of 16 frames


def scenes_of(lengths: list[int]) -> Scenes:
    """Return scenes of such lengths, in one part and one video."""
    sizes = np.array(lengths, np.int64)
    begins, nothing = np.cumsum(sizes) - sizes, np.zeros_like(sizes)
    return Scenes(nothing, begins, sizes, nothing, begins)


def order_of(lengths: list[int], *, seed: int = 0, flip: float = 0.0, **rule: Any) -> ClipOrder:
    """Return the order of the clips of scenes."""
    table = ClipTable(scenes_of(lengths), ClipRule(**rule))
    return ClipOrder(table, frame_bytes=FRAME_BYTES, seed=seed, flip=flip)


def epoch_of(order: ClipOrder, clips: int, epoch: int = 0) -> Clips:
    """Return the clips of an epoch."""
    return order.clips(epoch * clips + np.arange(clips))


def grid(lengths: list[int], frames: int, hop: int, step: int) -> list[tuple[int, ...]]:
    """Return the frames of every clip of scenes, found one by one."""
    span = (frames - 1) * step + 1
    found, begin = [], 0
    for length in lengths:
        start, last = 0, -1
        while length >= span and last < length - span:
            last = min(start, length - span)
            found.append(tuple(range(begin + last, begin + last + span, step)))
            start += hop
        begin += length
    return found


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=12),
    frames=st.integers(1, 20),
    hop=st.integers(1, 25),
    step=st.integers(1, 4),
    seed=st.integers(0, 2**64 - 1),
)
def test_an_epoch_has_each_clip_once(lengths: list[int], frames: int, hop: int, step: int, seed: int) -> None:
    """The clips of an epoch are those that a walk over the scenes finds, in another order, none twice."""
    expected = grid(lengths, frames, hop, step)
    rule = ClipRule(frames=frames, hop=hop, steps=(step,))
    table = ClipTable(scenes_of(lengths), rule)
    span = (frames - 1) * step + 1

    assert table.clips == len(expected)
    assert (table.left_out.scenes, table.left_out.frames) == (
        sum(length < span for length in lengths),
        sum(length for length in lengths if length < span),
    )
    if expected:
        order = ClipOrder(table, frame_bytes=FRAME_BYTES, seed=seed, flip=0.5)
        for epoch in (0, 3):
            clips = epoch_of(order, table.clips, epoch)
            found = [tuple(range(start, start + span, step)) for start in clips.starts.tolist()]

            assert sorted(found) == expected


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=12), frames=st.integers(1, 20), hop=st.integers(1, 20))
def test_every_frame_of_a_long_enough_scene_is_delivered(lengths: list[int], frames: int, hop: int) -> None:
    """With a step of 1 and a hop of at most a clip, frames outside all clips are those counted as left out."""
    table = ClipTable(scenes_of(lengths), ClipRule(frames=frames, hop=min(hop, frames)))
    seen: set[int] = set()
    if table.clips:
        clips = epoch_of(ClipOrder(table, frame_bytes=FRAME_BYTES, seed=1, flip=0), table.clips)
        seen.update(frame for start in clips.starts.tolist() for frame in range(start, start + frames))

    assert len(seen) + table.left_out.frames == sum(lengths)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(8, 90), min_size=1, max_size=9),
    steps=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
)
def test_steps_are_chosen_among_those_that_fit(lengths: list[int], steps: list[int], seed: int) -> None:
    """Whatever step a clip takes, all of it lies in its scene, and it begins where it should or is moved back."""
    rule = ClipRule(frames=8, hop=8, steps=tuple(steps))
    table = ClipTable(scenes_of(lengths), rule)
    if not table.clips:
        return
    clips = epoch_of(ClipOrder(table, frame_bytes=FRAME_BYTES, seed=seed, flip=0), table.clips)
    ends = np.cumsum(lengths)
    for start, step in zip(clips.starts.tolist(), clips.steps.tolist(), strict=True):
        scene = int(np.searchsorted(ends, start, side="right"))
        stop = start + 7 * step + 1

        assert step in steps
        assert stop <= ends[scene]
        assert (start - (ends[scene] - lengths[scene])) % 8 == 0 or stop == ends[scene]


def test_choices_have_their_shares_and_change_with_the_epoch() -> None:
    """Steps come evenly, one named twice twice as often, the asked share is flipped, and the next epoch differs."""
    order = order_of([40] * 2000, frames=8, hop=8, steps=(1, 2, 2), flip=0.3, seed=5)
    first, second = (epoch_of(order, 10_000, epoch) for epoch in (0, 1))

    assert first.steps.size == 10_000
    assert abs((first.steps == 2).mean() - 2 / 3) < 0.02
    assert abs(first.flipped.mean() - 0.3) < 0.02
    assert abs(first.flipped[first.steps == 1].mean() - 0.3) < 0.03
    numbers = [np.argsort(order.numbers(epoch * 10_000 + np.arange(10_000))) for epoch in (0, 1)]
    same = first.flipped[numbers[0]] == second.flipped[numbers[1]]

    assert abs(same.mean() - (0.3**2 + 0.7**2)) < 0.03


@pytest.mark.parametrize(("flip", "share"), [(0.0, 0), (1.0, 1)])
def test_all_or_none_are_flipped(flip: float, share: int) -> None:
    """At the ends of the range there is no chance in it."""
    assert epoch_of(order_of([640], frames=8, hop=1, flip=flip), 633).flipped.mean() == share


def test_the_order_depends_on_the_seed_and_epoch() -> None:
    """Another seed or epoch, another order, of the same clips."""
    lengths = [33] * 200
    orders = [order_of(lengths, frames=16, hop=8, seed=seed) for seed in (0, 1)]
    found = [epoch_of(order, 800, epoch).starts.tolist() for order in orders for epoch in (0, 1)]

    assert len({tuple(starts) for starts in found}) == 4
    assert len({tuple(sorted(starts)) for starts in found}) == 1


def test_what_is_asked_for_ahead_holds_the_clips() -> None:
    """The frames that a round is said to need are all that its clips read, whatever steps they take."""
    lengths = [50, 120, 37, 500, 61] * 20
    table = ClipTable(scenes_of(lengths), ClipRule(frames=16, hop=16, steps=(1, 3)))
    order = ClipOrder(table, frame_bytes=FRAME_BYTES, seed=2, flip=0)
    clips = order.clips(np.arange(48 * 3))
    stretches = order.at_hand(0, residue=0, ranks=1)
    needed = {
        frame
        for start, step in zip(clips.starts, clips.steps, strict=True)
        for frame in range(start, start + 15 * step + 1, step)
    }
    told = {frame for _, start, stop in stretches.tolist() for frame in range(start, stop)}

    assert table.clips > 48 * 3
    assert needed <= told


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"frames": 0}, "clip_frames must be in 1..9999, got 0"),
        ({"hop": 0}, "hop must be in 1..999999 frames, got 0"),
        ({"steps": ()}, r"steps must be 1 to 8 whole numbers in 1..999, got \(\)"),
        ({"steps": (1, 0)}, r"steps must be 1 to 8 whole numbers in 1..999, got \(1, 0\)"),
        ({"steps": (1,) * 9}, "steps must be 1 to 8 whole numbers"),
    ],
)
def test_unusable_rules_are_refused(rule: dict[str, Any], message: str) -> None:
    """A clip of nothing, a hop or step that stands still: each says what would work."""
    with pytest.raises(ConfigError, match=message):
        ClipRule(**{"frames": 16, "hop": 16, **rule})


def test_mirrored_frames_and_boxes() -> None:
    """Pixels trade places left for right, boxes with them; padding stays, and twice is as before."""
    generator = np.random.default_rng(0)
    for width in (1, 6, 7):
        frames = generator.integers(0, 256, (3, 5, width, 3), np.uint8)
        mirrored = frames.copy()
        flip_rows(mirrored.reshape(15, 3 * width))

        assert np.array_equal(mirrored, frames[:, :, ::-1])
    boxes = np.array([[[1, 2, 3, 4], [0, 0, 0, 0], [0, 0, 7, 5]]], np.float32)
    mirrored_boxes = boxes.copy()
    flip_boxes(mirrored_boxes, 7)

    assert mirrored_boxes.tolist() == [[[4, 2, 6, 4], [0, 0, 0, 0], [0, 0, 7, 5]]]
    flip_boxes(mirrored_boxes, 7)
    assert np.array_equal(mirrored_boxes, boxes)


def test_some_of_the_clips() -> None:
    """A slice of clips is a slice of each field."""
    clips = epoch_of(order_of([64], frames=16, hop=16, flip=0.5), 4)

    assert [field[1:3].tolist() for field in astuple(clips)] == [field.tolist() for field in astuple(clips[1:3])]
