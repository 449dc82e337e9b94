"""Validation windows: every byte scored once, from as much context as is promised, and never from another document."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.datasets import ValidationBatch, ValidationWindows
from bytropix.datasets.store import Store
from bytropix.datasets.validation import windows_of
from bytropix.errors import ConfigError, StoreError
from bytropix.patching import PatchConfig, fit_patcher


@settings(deadline=None, max_examples=300)
@given(length=st.integers(0, 700), context=st.integers(1, 150), data=st.data())
def test_every_byte_is_scored_once(length: int, context: int, data: st.DataObject) -> None:
    """Windows of any document, context and stride score its bytes once, in order, and are never too long."""
    stride = data.draw(st.none() | st.integers(1, context))
    windows = windows_of(length, context, stride)
    scored = [place for _, stop, score_from in windows for place in range(score_from, stop)]

    assert list(range(length)) == scored
    assert all(0 <= start <= score_from < stop <= min(length, start + context) for start, stop, score_from in windows)


@settings(deadline=None, max_examples=300)
@given(length=st.integers(1, 700), context=st.integers(1, 150), data=st.data())
def test_every_byte_has_its_promised_context(length: int, context: int, data: st.DataObject) -> None:
    """Byte i is predicted from at least min(i, context - stride) bytes of its document."""
    stride = data.draw(st.integers(1, context))

    assert all(
        place - start >= min(place, context - stride)
        for start, stop, score_from in windows_of(length, context, stride)
        for place in range(score_from, stop)
    )


@settings(deadline=None, max_examples=200)
@given(length=st.integers(1, 700), more=st.integers(1, 300), context=st.integers(1, 150), data=st.data())
def test_a_longer_document_changes_no_context(length: int, more: int, context: int, data: st.DataObject) -> None:
    """A byte is predicted from the same bytes wherever its document ends."""
    stride = data.draw(st.integers(1, context))

    def begins(size: int) -> list[int]:
        windows = windows_of(size, context, stride)
        return [start for start, stop, scored in windows for place in range(scored, stop) if place < length]

    assert begins(length) == begins(length + more)


def test_half_the_context_is_the_stride() -> None:
    """Without a stride, a window moves on by half the context."""
    assert windows_of(100, 40) == [(0, 40, 0), (20, 60, 40), (40, 80, 60), (60, 100, 80)]
    assert windows_of(5, 1) == [(place, place + 1, place) for place in range(5)]


def scored_bytes(rows: ValidationBatch) -> list[bytes]:
    """Return what each row scores."""
    return [
        rows.bytes[row, begin:end].numpy().tobytes()
        for row, (begin, end) in enumerate(zip(rows.score_from.tolist(), rows.lengths.tolist(), strict=True))
    ]


@pytest.mark.parametrize(("context", "stride", "batch"), [(64, None, 7), (64, 64, 1), (33, 1, 50), (5000, 2500, 3)])
def test_a_stored_split_is_scored_once(
    store: Store, truth_of: Any, context: int, stride: int | None, batch: int
) -> None:
    """Over a real store, the scored bytes of all rows are the documents' bytes, as often as they are there."""
    expected: list[tuple[bytes, bytes]] = []
    for part in truth_of(store, "val"):
        begin = 0
        for end in part.doc_ends.tolist():
            text = part.bytes[begin:end].tobytes()
            expected += [
                (text[start:stop], text[scored:stop])
                for start, stop, scored in windows_of(end - begin, context, stride)
            ]
            begin = end
    rows = list(ValidationWindows(store, context=context, stride=stride, batch=batch))
    found = [
        (one.bytes[row, :length].numpy().tobytes(), scored)
        for one in rows
        for row, (length, scored) in enumerate(zip(one.lengths.tolist(), scored_bytes(one), strict=True))
    ]

    assert sorted(expected) == sorted(found)
    assert sum(len(scored) for _, scored in found) == ValidationWindows(store, context=context, batch=1).n_bytes
    assert max(len(one.lengths) for one in rows) <= batch


def test_starts_are_the_stored_ones(store: Store, truth_of: Any) -> None:
    """A row's starts are the store's, with its first byte set; behind its length there is nothing."""
    parts = truth_of(store, "val")
    text = b"".join(part.bytes.tobytes() for part in parts)
    flags = np.concatenate([part.starts for part in parts])
    seen = 0
    for rows in ValidationWindows(store, context=700, batch=9):
        assert int(rows.starts.sum(1).max()) == rows.patches
        for row, length in enumerate(rows.lengths.tolist()):
            place = text.find(rows.bytes[row, :length].numpy().tobytes())
            if length >= 32 and text.count(rows.bytes[row, :length].numpy().tobytes()) == 1:
                assert flags[place + 1 : place + length].tolist() == rows.starts[row, 1:length].tolist()
                seen += 1
            assert bool(rows.starts[row, 0])
            assert not rows.starts[row, length:].any()
            assert not rows.bytes[row, length:].any()
    assert seen > 20


def test_another_patcher_cuts_anew(store: Store) -> None:
    """The store's own patcher changes nothing; another one's starts are those of the documents it is given."""
    stored = list(ValidationWindows(store, context=90, stride=40, batch=5))
    again = list(ValidationWindows(store, context=90, stride=40, batch=5, patcher=store.patcher()))
    fixed = fit_patcher([b"any sample will do"], PatchConfig(rule="fixed", mean_patch=7))
    (part, *_) = store.parts("val")
    text = part.read("bytes", 0, part.n_bytes)
    begin, end = 0, int(part.doc_ends[0])
    first = next(iter(ValidationWindows(store, context=end - begin, batch=1 << 10, patcher=fixed)))
    row = next(row for row in range(len(first.lengths)) if first.bytes[row, :end].tolist() == text[:end].tolist())

    assert all(torch.equal(one.starts, other.starts) for one, other in zip(stored, again, strict=True))
    assert [one.patches for one in stored] == [other.patches for other in again]
    assert first.starts[row].tolist() == fixed(text[begin:end])[1].tolist()
    assert first.patches == int(first.starts.sum(1).max())


def test_each_iteration_yields_the_same(store: Store) -> None:
    """An evaluation can be repeated: types, shapes and rows are the same each time."""
    windows = ValidationWindows(store, context=64, batch=5)
    for one, other in zip(windows, windows, strict=True):
        assert one.bytes.dtype == torch.uint8
        assert one.bytes.shape == one.starts.shape == (len(one.lengths), 64)
        for name in ("bytes", "starts", "lengths", "score_from"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_batch_size_does_not_change_what_is_scored(store: Store) -> None:
    """Row alone equals row in a batch: the same rows with the same starts for every batch size."""

    def rows(batch: int) -> list[tuple[bytes, bytes, int]]:
        return sorted(
            (
                one.bytes[row, :length].numpy().tobytes(),
                one.starts[row, :length].numpy().tobytes(),
                int(one.score_from[row]),
            )
            for one in ValidationWindows(store, context=64, batch=batch)
            for row, length in enumerate(one.lengths.tolist())
        )

    assert rows(1) == rows(13)


@pytest.mark.parametrize(
    ("context", "stride", "batch", "message"),
    [
        (0, None, 1, "context must be at least 1 byte, got 0"),
        (64, 0, 1, r"stride must be in 1..context \(64\), got 0"),
        (64, 65, 1, r"stride must be in 1..context \(64\), got 65"),
        (64, None, 0, "batch must be at least 1 row, got 0"),
    ],
)
def test_unusable_settings_are_refused(store: Store, context: int, stride: int, batch: int, message: str) -> None:
    """Settings that would score a byte twice or never are named."""
    with pytest.raises(ConfigError, match=message):
        ValidationWindows(store, context=context, stride=stride, batch=batch)


def test_a_split_that_is_not_there_has_no_batch(store: Store) -> None:
    """Nothing to score is no error here: the caller sees 0 bytes."""
    windows = ValidationWindows(store, split="test", context=64, batch=4)

    assert (windows.n_bytes, list(windows)) == (0, [])


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_damage_is_an_error(tmp_path: Path, store_paths: dict[str, Path], codec: str) -> None:
    """A flipped bit ends the evaluation with a StoreError, not with a figure."""
    path = tmp_path / "damaged.bx"
    shutil.copytree(store_paths[codec], path)
    file = Path(Store.open(path).parts("val")[0].url) / "bytes" / "c" / "0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"'bytes', at byte .* is damaged"):
        list(ValidationWindows(Store.open(path), context=64, batch=8))
