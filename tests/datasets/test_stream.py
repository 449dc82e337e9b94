"""The stream over real stores: every window once an epoch, exact resume, damage reported, the same by any road."""

import json
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from bytropix.datasets import ByteBatch, ByteStream, StreamWarning, blocks
from bytropix.datasets.batch import unpack_starts
from bytropix.datasets.batches import LAST, LastBatch
from bytropix.datasets.lanes import LaneOrder
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
    """Bytes and starts are what plain zarr reads in the windows of the order; a window opens with a patch."""
    truth = truth_of(store, "train")
    text = np.concatenate([part.bytes for part in truth])
    flags = np.concatenate([part.starts for part in truth])
    stream = stream_of(store)
    batches = list(islice(stream, 3 * stream.windows // BATCH))
    windows = LaneOrder(stream.windows, CONTEXT + 1, 3)(np.arange(len(batches) * BATCH)).tolist()
    assert len(truth) > 1
    for row, window in enumerate(windows):
        batch = batches[row // BATCH]
        there = slice(window * (CONTEXT + 1), (window + 1) * (CONTEXT + 1))
        length = int(batch.lengths[row % BATCH])
        starts = flags[there].copy()
        starts[0] = True

        assert text[there].tolist() == batch.bytes[row % BATCH, :length].tolist()
        assert starts.tolist() == batch.starts[row % BATCH, :length].tolist()
        assert not batch.bytes[row % BATCH, length:].any()


@pytest.mark.parametrize("last", ["fill", "short", "pad"])
@pytest.mark.parametrize("batch", [1, 7, 48])
def test_two_epochs_deliver_every_byte_twice(store: Store, truth_of: Any, batch: int, last: LastBatch) -> None:
    """The data of all rows, laid in the order of their windows, is the split; the loop ends by itself."""
    text = np.concatenate([part.bytes for part in truth_of(store, "train")]).tobytes()
    stream = ByteStream(store, context=CONTEXT, batch=batch, seed=1, epochs=2, last=last)
    rows = [
        row[:length].numpy().tobytes()
        for one in stream
        for row, length in zip(one.bytes, one.lengths.tolist(), strict=True)
        if length
    ]
    width = CONTEXT + 1
    expected = sorted(text[begin : begin + width] for begin in range(0, len(text), width))

    assert expected == sorted(rows[: stream.windows]) == sorted(rows[stream.windows :])
    assert rows[: stream.windows] != rows[stream.windows :]
    assert stream.state_dict()["epoch"] == 2


def test_the_short_last_batch_is_as_asked(store: Store) -> None:
    """Filled from the next epoch, dropped, short, or padded with empty rows; positions tell where a batch begins."""
    windows = stream_of(store).windows
    whole, rest = divmod(windows, BATCH)
    assert rest
    shapes = {}
    for last in LAST:
        batches = list(islice(ByteStream(store, context=CONTEXT, batch=BATCH, last=last), whole + 2))
        shapes[last] = [(len(one.bytes), int((one.lengths > 0).sum()), one.position) for one in batches[whole:]]

    assert shapes == {
        "fill": [(BATCH, BATCH, whole * BATCH), (BATCH, BATCH, (whole + 1) * BATCH)],
        "drop": [(BATCH, BATCH, windows), (BATCH, BATCH, windows + BATCH)],
        "short": [(rest, rest, whole * BATCH), (BATCH, BATCH, windows)],
        "pad": [(BATCH, rest, whole * BATCH), (BATCH, BATCH, windows)],
    }


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("ranks", [2, 3, 16])
def test_ranks_share_the_batches_of_one(store: Store, ranks: int, last: LastBatch) -> None:
    """Rank r of R delivers rows r, r + R, ... of every batch, in all epochs, and all ranks have the same state."""

    def stream(rank: int, count: int) -> ByteStream:
        return ByteStream(store, context=CONTEXT, batch=BATCH, rank=rank, ranks=count, last=last, epochs=2)

    alone = stream(0, 1)
    shares = [stream(rank, ranks) for rank in range(ranks)]
    delivered = 0
    for whole, *parts in zip(alone, *shares, strict=True):
        delivered += 1
        assert whole.n_bytes == sum(part.n_bytes for part in parts)
        for rank, part in enumerate(parts):
            assert whole.bytes[rank::ranks].tolist() == part.bytes.tolist()
            assert whole.bits[rank::ranks].tolist() == part.bits.tolist()
            assert whole.lengths[rank::ranks].tolist() == part.lengths.tolist()
            assert shares[rank].state_dict() == alone.state_dict()
    assert delivered > 2 * alone.windows // BATCH - 1


def test_prefetch_changes_nothing(store: Store) -> None:
    """Batches made when they are asked for are those that threads make ahead."""
    lazy = ByteStream(store, context=CONTEXT, batch=BATCH, seed=3, prefetch=False)

    assert plain(islice(lazy, 40)) == plain(islice(stream_of(store), 40))
    assert not any("bytropix-prefetch" in thread.name for thread in threading.enumerate())


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
    starts = unpack_starts(bits, width)

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
    assert json.loads(json.dumps(stream.state_dict())) == stream.state_dict()
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
    expected = plain(islice(stream_of(stream._source), 24))
    taken = plain(islice(loader_of(stream, 2), 18))
    stream.skip(len(taken))
    state = stream.state_dict()
    restored = stream_of(stream._source)
    restored.load_state_dict(state)

    assert state["epoch"] == 1
    assert expected[:18] == taken
    assert expected[18:] == plain(islice(loader_of(restored, 2), 6))


def test_a_stream_that_was_read_can_be_given_to_forked_workers(store_paths: dict[str, Path]) -> None:
    """Workers that are copies of this process begin where it stands, each in its own place, as spawned ones do."""
    stream = stream_of(Store.open(store_paths["none"]))
    expected = plain(islice(stream_of(stream._source), 12))
    batches = iter(stream)
    taken = plain(islice(batches, 3))  # threads of this process are at work while it forks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that forking with threads is no good idea
        loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
        found = plain(islice(loader, 9))

    assert expected == taken + found


def test_persistent_workers_are_refused_a_second_pass(store_paths: dict[str, Path]) -> None:
    """They have read further than what was delivered: going on from there would lose batches in silence."""
    stream = stream_of(Store.open(store_paths["none"]))
    loader = DataLoader(
        stream, batch_size=None, num_workers=1, persistent_workers=True, multiprocessing_context="spawn"
    )
    list(islice(loader, 2))
    with pytest.raises(ConfigError, match="persistent_workers"):
        list(islice(loader, 2))


def test_a_stream_goes_forward_only(store: Store) -> None:
    """Skipping fewer than none is refused."""
    with pytest.raises(ConfigError, match="cannot go back: skip -5 batches"):
        stream_of(store).skip(-5)


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
        ({"pack": "documents"}, "the pack of this stream is bytes, the state to resume from has documents"),
        ({"order": 1}, "counts windows in order 1, this version reads in order 2"),
        ({"position": 10**9}, "damaged: position 1000000000 of epoch 0"),
        ({"epoch": 10**20}, "damaged: position 0 of epoch 100000000000000000000"),
        ({"position": 1.5}, "not the state of a byte stream"),
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
    """A state of an older version, or one that something has been cut from, is never guessed at."""
    state = stream_of(store).state_dict()
    for name in state.keys() - {"pack"}:
        with pytest.raises(StoreError, match=r"not the state of a byte stream|counts windows in order 1"):
            stream_of(store).load_state_dict({key: value for key, value in state.items() if key != name})


def test_a_state_is_small(store: Store) -> None:
    """At most 256 bytes as JSON, also far into a long training."""
    stream = ByteStream(store, context=1 << 20, batch=BATCH, seed=-(2**40))
    stream.skip(10**12)

    assert stream.state_dict()["epoch"] > 10**9
    assert len(json.dumps(stream.state_dict())) <= 256


def test_another_context_goes_on_and_says_how(store: Store) -> None:
    """Windows of another length are other windows: as many bytes of the epoch count as delivered, with a warning."""
    stream = stream_of(store)
    batches = iter(stream)
    for _ in range(4):
        next(batches)
    longer = stream_of(store, context=2 * CONTEXT + 1)
    with pytest.warns(StreamWarning, match="the context was 64 and is 129 now.* Of epoch 0, about 12480 bytes"):
        longer.load_state_dict(stream.state_dict())

    assert longer.state_dict()["position"] == 4 * BATCH // 2
    assert longer.state_dict() == longer.state_dict() | {"context": 129, "epoch": 0, "seed": 3}


def test_another_context_at_an_epochs_start_is_exact(store: Store) -> None:
    """Where no window of the epoch was delivered there is nothing to warn of."""
    longer = stream_of(store, context=100, seed=8)
    longer.load_state_dict(stream_of(store).state_dict())

    assert plain(islice(longer, 5)) == plain(islice(stream_of(store, context=100), 5))


def test_unusable_settings_are_refused(store: Store) -> None:
    """A batch of none, a context longer than every part, a split that is not there: each says what would work."""
    with pytest.raises(ConfigError, match="batch must be at least 1 window, got 0"):
        stream_of(store, batch=0)
    with pytest.raises(ConfigError, match=r"batch must be a whole number, got 2.5"):
        ByteStream(store, context=CONTEXT, batch=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"seed must be a whole number, got 1.5"):
        ByteStream(store, context=CONTEXT, batch=BATCH, seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="context must be at least 1 byte, got 0"):
        stream_of(store, context=0)
    with pytest.raises(ConfigError, match=r"pack must be one of .*, got 'words'"):
        ByteStream(store, context=CONTEXT, batch=BATCH, pack="words")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"checks must be one of raise, quarantine, off, got 'never'"):
        ByteStream(store, context=CONTEXT, batch=BATCH, checks="never")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="budget of damaged blocks must not be negative, got -1"):
        ByteStream(store, context=CONTEXT, batch=BATCH, checks="quarantine", budget=-1)
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


def damaged_copy(source: Path, target: Path, array: str) -> Path:
    """Copy a store and flip a bit in the middle of an array of its last train part."""
    shutil.copytree(source, target)
    file = Path(Store.open(target).parts("train")[-1].url) / array / "c" / "0"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)
    return target


@pytest.mark.parametrize("codec", ["zstd", "none"])
@pytest.mark.parametrize("array", ["bytes", "starts"])
def test_quarantine_leaves_rows_out_and_counts_blocks(
    tmp_path: Path, store_paths: dict[str, Path], codec: str, array: str
) -> None:
    """Rows over a damaged block come empty, all others as they are; the loop goes on to its end, the block is named."""
    path = damaged_copy(store_paths[codec], tmp_path / "damaged.bx", array)
    right = list(ByteStream(Store.open(store_paths[codec]), context=CONTEXT, batch=BATCH, epochs=2))
    stream = ByteStream(Store.open(path), context=CONTEXT, batch=BATCH, epochs=2, checks="quarantine", budget=1)
    empty = 0
    for whole, found in zip(right, stream, strict=True):
        lost = found.lengths == 0
        empty += int(lost.sum())
        assert found.bytes[~lost].tolist() == whole.bytes[~lost].tolist()
        assert found.bits[~lost].tolist() == whole.bits[~lost].tolist()
        assert not found.bytes[lost].any()
    assert 0 < empty < 2 * stream.windows
    assert [(damage.array, damage.block) for damage in stream.quarantined] == [(array, 0)]
    strict = ByteStream(Store.open(path), context=CONTEXT, batch=BATCH, checks="quarantine", budget=0)
    with pytest.raises(StoreError, match=r"is damaged.*that makes 1 damaged blocks, more than the 0"):
        list(islice(strict, len(right)))


def test_without_checks_the_bytes_come_as_they_lie(
    tmp_path: Path, store_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who switches checks off gets what the disk gives, of parts large enough to be mapped: one wrong bit, no error."""
    monkeypatch.setattr(blocks, "LEAST_MAPPED", 0)
    path = damaged_copy(store_paths["none"], tmp_path / "damaged.bx", "bytes")
    right = ByteStream(Store.open(store_paths["none"]), context=CONTEXT, batch=BATCH, epochs=1)
    found = ByteStream(Store.open(path), context=CONTEXT, batch=BATCH, epochs=1, checks="off")
    wrong = [int((one.bytes ^ other.bytes).sum()) for one, other in zip(right, found, strict=True)]

    assert sum(wrong) == 4


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
