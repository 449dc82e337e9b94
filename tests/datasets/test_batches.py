"""Which positions make up a batch, for every rank and from every place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.datasets.batches import LAST, Batches, LastBatch
from bytropix.errors import ConfigError


def listed(batches: Batches, start: int, count: int) -> list[list[int]]:
    """Return the positions of `count` batches from a place on, by the definition and one at a time."""
    found: list[list[int]] = []
    place = start
    while len(found) < count:
        end = batches.windows * (place // batches.windows + 1)
        last = np.inf if batches.epochs is None else batches.epochs * batches.windows
        if place >= last:
            break
        if batches.last == "fill":
            found.append([position for position in range(place, place + batches.batch) if position < last])
            place += batches.batch
        elif batches.last == "drop" and place + batches.batch > end:
            place = end
        else:
            found.append(list(range(place, min(end, place + batches.batch))))
            place = found[-1][-1] + 1
    return found


@settings(deadline=None)
@given(
    windows=st.integers(1, 40),
    batch=st.integers(1, 12),
    last=st.sampled_from(LAST),
    epochs=st.none() | st.integers(1, 3),
    start=st.integers(0, 130),
)
def test_batches_are_the_plain_list(windows: int, batch: int, last: LastBatch, epochs: int | None, start: int) -> None:
    """Any batch is found by its number alone, from any start, in any chunk."""
    if last == "drop" and windows < batch:
        return
    batches = Batches(windows=windows, batch=batch, last=last, epochs=epochs)
    firsts, sizes = batches.at(start, np.arange(20))
    found = [list(range(first, first + size)) for first, size in zip(firsts.tolist(), sizes.tolist(), strict=True)]

    assert listed(batches, start, 20) == [positions for positions in found if positions]
    assert [] not in found[: len(listed(batches, start, 20))]


@settings(deadline=None)
@given(
    windows=st.integers(1, 40),
    ranks=st.sampled_from([1, 2, 3, 4, 6]),
    last=st.sampled_from(LAST),
    start=st.integers(0, 90),
)
def test_ranks_deal_out_a_batch(windows: int, ranks: int, last: LastBatch, start: int) -> None:
    """Row i of a batch goes to rank i % ranks, short batches included."""
    if last == "drop" and windows < 12:
        return
    shares: list[list[list[int]]] = []
    for rank in range(ranks):
        batches = Batches(windows=windows, batch=12, last=last, rank=rank, ranks=ranks)
        firsts, sizes = batches.at(start, np.arange(6))
        positions, counts = batches.rows_of(firsts, sizes)
        shares.append([share.tolist() for share in np.split(positions, np.cumsum(counts)[:-1])])
    for number, whole in enumerate(listed(batches, start, 6)):
        assert [whole[rank::ranks] for rank in range(ranks)] == [share[number] for share in shares]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch must be at least 1 window, got 0"),
        ({"batch": 12.0}, "batch must be a whole number, got 12.0"),
        ({"rank": True}, "rank must be a whole number, got True"),
        ({"last": "loop"}, "last must be one of fill, drop, short, pad, got 'loop'"),
        ({"epochs": 0}, "epochs must be at least 1, or None for no end, got 0"),
        ({"rank": 2, "ranks": 2}, "rank must lie in 0..ranks - 1, got rank 2 of 2"),
        ({"ranks": 5}, "5 ranks do not divide a batch of 12 windows: take 1, 2, 3, 4, 6, 12 ranks, or a batch of 15"),
        ({"windows": 0, "last": "short"}, "a mixture has no epochs of its own"),
        ({"windows": 0, "epochs": 1}, "a mixture has no epochs of its own"),
        ({"windows": 11, "last": "drop"}, "an epoch has 11 windows, less than a batch of 12, and last='drop'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    """Each says what was asked and what would work."""
    with pytest.raises(ConfigError, match=message):
        Batches(**({"windows": 100, "batch": 12} | settings))  # type: ignore[arg-type]
