"""A stream of packed documents: each comes whole or in full rows, numbered, opening a patch, once an epoch."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.store import Store
from bytropix.datasets.stream import ByteStream
from bytropix.errors import StoreError

CONTEXT = 64


def epoch(store: Store, **changes: Any) -> list[ByteBatch]:
    """Return the batches of an epoch."""
    arguments = {"split": "train", "context": CONTEXT, "batch": 12, "last": "short", "epochs": 1, "pack": "documents"}
    return list(ByteStream(store, **(arguments | changes)))


def test_an_epoch_is_all_documents(store: Store, truth_of: Any) -> None:
    """Rows taken apart by the numbers of documents give every document whole or in pieces of a row, and its starts."""
    expected: Counter[tuple[bytes, bytes]] = Counter()
    for part in truth_of(store, "train"):
        begin = 0
        for end in part.doc_ends.tolist():
            for first in range(begin, end, CONTEXT + 1):
                piece = slice(first, min(end, first + CONTEXT + 1))
                starts = part.starts[piece].copy()
                starts[0] = True
                expected[part.bytes[piece].tobytes(), starts.tobytes()] += 1
            begin = end
    found: Counter[tuple[bytes, bytes]] = Counter()
    for batch in epoch(store):
        assert batch.documents is not None
        for values, starts, numbers in zip(
            batch.bytes.numpy(), batch.starts.numpy(), batch.documents.numpy(), strict=True
        ):
            for number in range(1, numbers.max() + 1):
                own = numbers == number
                found[values[own].tobytes(), starts[own].tobytes()] += 1

    assert found == expected


def test_documents_lie_side_by_side_and_padding_behind(store: Store) -> None:
    """Numbers ascend from 1 without a gap up to the row's length; behind it all is zero."""
    for batch in epoch(store):
        assert batch.documents is not None
        numbers, lengths = batch.documents.numpy(), batch.lengths.numpy()
        data = np.arange(CONTEXT + 1) < lengths[:, None]

        assert ((numbers > 0) == data).all()
        assert (numbers[:, 0] == 1).all()
        assert np.isin(np.diff(numbers.astype(int), axis=1)[data[:, 1:]], (0, 1)).all()
        assert not batch.bytes.numpy()[~data].any()
        assert not batch.starts.numpy()[~data].any()
        assert batch.n_bytes == lengths.sum()


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_rows_of_the_same_batches(store: Store, ranks: int) -> None:
    """Rank r has rows r, r + R, ... of what one process alone has, numbers of documents too."""
    whole = epoch(store, last="drop")
    for rank in range(ranks):
        own = epoch(store, last="drop", rank=rank, ranks=ranks)

        assert len(own) == len(whole) > 0
        for few, all_rows in zip(own, whole, strict=True):
            assert few.documents is not None
            assert all_rows.documents is not None
            assert few.documents.equal(all_rows.documents[rank::ranks])
            assert few.bytes.equal(all_rows.bytes[rank::ranks])


def test_a_state_goes_on_within_its_packing(store: Store) -> None:
    """A stream continues another's state at the next batch, and refuses that of rows cut another way."""
    stream = ByteStream(store, split="train", context=CONTEXT, batch=12, pack="documents")
    batches = iter(stream)
    next(batches)
    state, following = stream.state_dict(), next(batches)
    again = ByteStream(store, split="train", context=CONTEXT, batch=12, pack="documents")
    again.load_state_dict(state)

    assert next(iter(again)).bytes.equal(following.bytes)
    with pytest.raises(StoreError, match="pack"):
        ByteStream(store, split="train", context=CONTEXT, batch=12).load_state_dict(state)


def test_damaged_ends_of_documents_are_refused_under_every_policy(store_paths: dict[str, Path], tmp_path: Path) -> None:
    """Without them nobody knows the rows, so there is nothing to leave out: the error names the part at once."""
    path = Path(shutil.copytree(store_paths["none"], tmp_path / "spoilt.bx"))
    ends = min(path.glob("parts/train/*/doc_ends/c/0"))
    spoilt = bytearray(ends.read_bytes())
    spoilt[3] ^= 1
    ends.write_bytes(spoilt)

    with pytest.raises(StoreError, match=f"{ends.parents[2].name}.*doc_ends"):
        ByteStream(
            Store.open(path), split="train", context=64, batch=4, pack="documents", checks="quarantine", budget=99
        )
