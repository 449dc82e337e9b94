"""The stream over real stores: every window once an epoch, exact resume, damage reported, the same by any road."""

import pickle
import shutil
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from bytropix.datasets import ByteBatch, ByteStream
from bytropix.datasets.order import WindowOrder
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, StoreError

CONTEXT, BATCH = 64, 48


def stream_of(store: Store, *, context: int = CONTEXT, batch: int = BATCH, seed: int = 3) -> ByteStream:
    """Return a stream of the train split."""
    return ByteStream(store, context=context, batch=batch, seed=seed)


def plain(batches: Any) -> list[tuple[list[list[int]], list[list[bool]], int]]:
    """Return batches as values that compare."""
    return [(batch.bytes.tolist(), batch.starts.tolist(), batch.patches) for batch in batches]


def loader_of(stream: ByteStream, workers: int) -> DataLoader[ByteBatch]:
    """Return a loader that deals the batches of a stream."""
    context = "spawn" if workers else None
    return DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context)


def test_batches_are_the_windows_of_the_order(store: Store, truth_of: Any) -> None:
    """Bytes and starts are what plain zarr reads at the places of the order; a window opens with a patch."""
    truth = truth_of(store, "train")
    stream = stream_of(store)
    order = WindowOrder([part.bytes.size for part in truth], context=CONTEXT, seed=3)
    batches = list(islice(stream, 3 * order.windows // BATCH))
    places = order.places(np.arange(len(batches) * BATCH))
    assert len(truth) > 1
    for row, (part, offset) in enumerate(zip(places.parts.tolist(), places.offsets.tolist(), strict=True)):
        batch = batches[row // BATCH]
        starts = truth[part].starts[offset : offset + CONTEXT + 1].copy()
        starts[0] = True

        assert np.array_equal(truth[part].bytes[offset : offset + CONTEXT + 1], batch.bytes[row % BATCH])
        assert np.array_equal(starts, batch.starts[row % BATCH])


def test_an_epoch_delivers_every_window_once(store: Store) -> None:
    """The rows of two epochs are those of one epoch twice, in another order, whatever the batch size."""
    stream = stream_of(store, batch=1)
    rows = [row.bytes.numpy().tobytes() for row in islice(stream, 2 * stream.windows)]
    first, second = rows[: stream.windows], rows[stream.windows :]

    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("context", [6, 7, 62, 63, 64, 127, 300])
def test_types_and_patch_count(store: Store, context: int) -> None:
    """Bytes are uint8, starts are flags kept as bits, and `patches` is the most that open in the context."""
    batch = next(iter(stream_of(store, context=context)))
    bits = np.unpackbits(batch.bits.numpy(), axis=1, bitorder="little")

    assert (batch.bytes.dtype, batch.bits.dtype, batch.starts.dtype) == (torch.uint8, torch.uint8, torch.bool)
    assert batch.bytes.shape == batch.starts.shape == (BATCH, context + 1)
    assert batch.bits.shape == (BATCH, 8 * (context // 64 + 1))
    assert bits[:, : context + 1].tolist() == batch.starts.int().tolist()
    assert not bits[:, context + 1 :].any()
    assert int(batch.starts[:, :context].sum(1).max()) == batch.patches


@settings(deadline=None)
@given(rows=st.lists(st.binary(min_size=24, max_size=24), min_size=1, max_size=4), width=st.integers(1, 192))
def test_bits_unpack_lowest_first(rows: list[bytes], width: int) -> None:
    """Any bits, any width: flag j of a row is bit j, and a flag is 0 or 1 in memory, as compiled code expects."""
    bits = torch.tensor([list(row) for row in rows], dtype=torch.uint8)
    starts = ByteBatch(torch.zeros(len(rows), width, dtype=torch.uint8), bits, 1).starts

    assert [[row[j // 8] >> j % 8 & 1 for j in range(width)] for row in rows] == starts.view(torch.uint8).tolist()


def test_a_batch_moves_as_a_whole(store: Store) -> None:
    """`to` moves bytes and bits, and the starts are unpacked where they are."""
    batch = next(iter(stream_of(store)))
    there = batch.to("meta")

    assert {there.bytes.device.type, there.bits.device.type, there.starts.device.type} == {"meta"}
    assert (there.starts.shape, there.patches) == (batch.starts.shape, batch.patches)
    assert plain([batch.to(torch.device("cpu"))]) == plain([batch])


def test_a_pickled_batch_is_as_large_as_the_batch(store: Store) -> None:
    """A batch is saved without the others that were gathered with it."""
    batch = list(islice(stream_of(store), 3))[-1]
    saved = pickle.dumps(batch)

    assert plain([pickle.loads(saved)]) == plain([batch])
    assert len(saved) < batch.bytes.numel() + batch.bits.numel() + 2000


def test_row_alone_is_the_row_in_a_batch(store: Store) -> None:
    """Batches of one hold the rows of a larger batch, in order."""
    large = next(iter(stream_of(store, batch=40)))
    small = list(islice(stream_of(store, batch=1), 40))

    assert large.bytes.tolist() == [one.bytes[0].tolist() for one in small]
    assert large.starts.tolist() == [one.starts[0].tolist() for one in small]


def test_both_codecs_stream_the_same(store_paths: dict[str, Path]) -> None:
    """How a store is compressed does not show in its batches."""
    raw, packed = (plain(islice(stream_of(Store.open(path)), 30)) for path in store_paths.values())

    assert raw == packed


def test_a_small_cache_changes_no_batch(store_paths: dict[str, Path]) -> None:
    """Blocks that are dropped and decoded again are the same; the size of the cache travels with the stream."""
    zstd = Store.open(store_paths["zstd"])
    small = ByteStream(zstd, context=CONTEXT, batch=BATCH, seed=3, cache_bytes=0)
    travelled = pickle.loads(pickle.dumps(small))

    assert plain(islice(small, 30)) == plain(islice(stream_of(zstd), 30)) == plain(islice(travelled, 30))
    assert travelled.cache_bytes == 0


@pytest.mark.parametrize("cut", range(26))
def test_restored_stream_continues(store: Store, cut: int) -> None:
    """After a restore come the batches that would have come next; 26 cuts go across the ends of two epochs."""
    stream = stream_of(store)
    batches = iter(stream)
    for _ in range(cut):
        next(batches)
    restored = stream_of(store, seed=99)
    restored.load_state_dict(stream.state_dict())

    assert stream.windows * 2 < 26 * BATCH
    assert plain(islice(batches, 6)) == plain(islice(restored, 6))


def test_restore_may_change_the_batch_size(store: Store) -> None:
    """The position counts windows: a stream of batches of 10 goes on where one of batches of 48 stood."""
    stream = stream_of(store)
    batches = iter(stream)
    next(batches)
    restored = stream_of(store, batch=16)
    restored.load_state_dict(stream.state_dict())
    following = torch.cat([batch.bytes for batch in islice(restored, 3)])

    assert next(batches).bytes.tolist() == following.tolist()


def test_prefetch_does_not_move_the_state(store: Store) -> None:
    """The state counts what was delivered, not what threads have gathered ahead; it is small plain data."""
    stream = stream_of(store)
    batches = iter(stream)
    states = [stream.state_dict()["position"]]
    for _ in range(3):
        next(batches)
        states.append(stream.state_dict()["position"])

    assert states == [0, BATCH, 2 * BATCH, 3 * BATCH]
    assert {int, str} == {type(value) for value in stream.state_dict().values()}


def test_loader_without_workers_is_the_bare_stream(store: Store) -> None:
    """A torch DataLoader in this process delivers the same batches, and the stream's state moves along."""
    stream = stream_of(store)
    found = plain(islice(loader_of(stream, 0), 30))
    bare = stream_of(store)

    assert plain(islice(bare, 30)) == found
    assert bare.state_dict() == stream.state_dict()


def test_two_spawned_workers_are_the_bare_stream(store_paths: dict[str, Path]) -> None:
    """Two workers deal out the same sequence; `skip` then brings the stream to where they stood, an epoch later."""
    stream = stream_of(Store.open(store_paths["none"]))
    expected = plain(islice(stream_of(stream._store), 24))
    taken = plain(islice(loader_of(stream, 2), 18))
    stream.skip(len(taken))
    state = stream.state_dict()
    restored = stream_of(stream._store)
    restored.load_state_dict(state)

    assert state["epoch"] == 1
    assert expected[:18] == taken
    assert expected[18:] == plain(islice(loader_of(restored, 2), 6))


def test_dropped_iterator_ends_its_threads(store: Store) -> None:
    """Neither a finished loop, a closed nor a forgotten iterator leaves a thread behind."""
    for _ in range(3):
        batches = iter(stream_of(store))
        next(batches)
        assert any("bytropix-prefetch" in thread.name for thread in threading.enumerate())
        del batches
    for _ in stream_of(store):
        break

    assert [thread.name for thread in threading.enumerate() if "bytropix-prefetch" in thread.name] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "0" * 64}, "the fingerprint of this stream is .* resume from has 0000"),
        ({"split": "val"}, "the split of this stream is train, the state to resume from has val"),
        ({"context": 32}, "the context of this stream is 64, the state to resume from has 32"),
        ({"position": 10**9}, "damaged: position 1000000000 of epoch 0"),
        ({"position": -1}, "damaged: position -1"),
        ({"epoch": -1}, "damaged: position 0 of epoch -1"),
        ({"seed": "many"}, "not the state of a byte stream"),
    ],
)
def test_foreign_state_is_refused(store_paths: dict[str, Path], change: dict[str, Any], message: str) -> None:
    """A state of another store, split or context, or a damaged one, names what differs and moves nothing."""
    stream = stream_of(Store.open(store_paths["none"]))
    before = stream.state_dict()
    with pytest.raises(StoreError, match=message) as caught:
        stream.load_state_dict(before | change)

    assert before == stream.state_dict()
    assert "\n" not in str(caught.value)


def test_state_without_a_key_is_refused(store: Store) -> None:
    """Every key is needed."""
    state = stream_of(store).state_dict()
    for name in state:
        with pytest.raises(StoreError, match="not the state of a byte stream"):
            stream_of(store).load_state_dict({key: value for key, value in state.items() if key != name})


def test_unusable_settings_are_refused(store: Store) -> None:
    """A batch of none, a context longer than every part, a split that is not there: each says what would work."""
    with pytest.raises(ConfigError, match="batch must be at least 1 window, got 0"):
        stream_of(store, batch=0)
    with pytest.raises(ConfigError, match=r"context 1000000 is longer than split 'train'.* at most or ingest more"):
        stream_of(store, context=1_000_000)
    with pytest.raises(StoreError, match=r"split 'test' holds no bytes \(splits: train, val\)"):
        ByteStream(store, split="test", context=CONTEXT, batch=BATCH)


@pytest.mark.parametrize(
    ("codec", "array", "workers"),
    [("zstd", "bytes", 0), ("zstd", "starts", 0), ("none", "bytes", 0), ("none", "starts", 0), ("zstd", "bytes", 1)],
)
def test_damage_is_an_error_and_never_data(
    tmp_path: Path, store_paths: dict[str, Path], codec: str, array: str, workers: int
) -> None:
    """One flipped bit in a stored array stops the epoch with a StoreError that names the array, workers or none."""
    path = tmp_path / "damaged.bx"
    shutil.copytree(store_paths[codec], path)
    part = Store.open(path).parts("train")[-1]
    file = Path(part.url) / array / "c" / "0"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)
    stream = stream_of(Store.open(path))
    right = plain(islice(stream_of(Store.open(store_paths[codec])), stream.windows // BATCH + 1))
    delivered = []
    with pytest.raises(StoreError, match=rf"'{array}', at byte .* is damaged"):
        delivered.extend(plain([batch]) for batch in islice(loader_of(stream, workers), len(right)))

    assert [[batch] for batch in right[: len(delivered)]] == delivered


def test_truncated_file_is_refused_at_opening(tmp_path: Path, store_paths: dict[str, Path]) -> None:
    """A file cut short is found before anything is mapped."""
    path = tmp_path / "short.bx"
    shutil.copytree(store_paths["none"], path)
    file = Path(Store.open(path).parts("train")[0].url) / "bytes" / "c" / "0"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match="damaged"):
        stream_of(Store.open(path))


def test_package_does_not_import_torch() -> None:
    """Ingestion workers import the package for its store: torch comes with the first stream only."""
    code = (
        "import sys, bytropix.datasets, bytropix.datasets.store\n"
        "assert 'torch' not in sys.modules\n"
        "assert bytropix.datasets.ByteStream.__name__ == 'ByteStream' and 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
