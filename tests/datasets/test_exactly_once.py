"""Every byte once an epoch, in one global order, for any ranks, workers and places to resume at."""

import json
import random
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from bytropix.datasets import ByteBatch, ByteStream, lanes, resumable
from bytropix.datasets.corpus import CUTS
from bytropix.datasets.lanes import LANES, LaneOrder
from bytropix.datasets.permutation import key_of
from bytropix.datasets.store import PartArrays, Store
from bytropix.jobs.bench.victim import LAYOUTS, write_victim

RANKS, WORKERS = (1, 2, 3, 4, 6, 8, 16), (0, 1, 3)
WIDTH, BATCH = 1000, 48
SIZES = (300_000, 40_001, 900, 23_003)  # two train parts, val, one more of train: a last window of 4 bytes
BLOCK_WINDOWS = 3  # so that this little has two rounds of lanes and a rest
Row = tuple[bytes, bytes]  # the data of a row and its start flags
Global = list[tuple[int, list[Row]]]  # position and rows of each global batch


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[PartArrays]]]:
    """Stores in every layout, and what their train parts are."""
    folder = tmp_path_factory.mktemp("stores")
    made = {}
    for name, layout in LAYOUTS.items():
        parts = write_victim(folder / f"{name}.bx", layout, SIZES, seed=4)
        made[name] = folder / f"{name}.bx", [part for (split, _), part in parts.items() if split == "train"]
    return made


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the order's blocks be so small that the stores have whole rounds of them."""
    monkeypatch.setattr(lanes, "BLOCK_BYTES", BLOCK_WINDOWS * WIDTH)


def stream_of(path: Path, rank: int = 0, ranks: int = 1, **flags: Any) -> ByteStream:
    """Return one rank's stream of an epoch."""
    flags = {"last": "short", "epochs": 1} | flags
    return ByteStream(Store.open(path), context=WIDTH - 1, batch=BATCH, seed=9, rank=rank, ranks=ranks, **flags)


def rows_of(batch: ByteBatch) -> list[Row]:
    """Return the rows of a batch."""
    return [
        (text[:length].tobytes(), starts[:length].tobytes())
        for text, starts, length in zip(batch.bytes.numpy(), batch.starts.numpy(), batch.lengths.tolist(), strict=True)
    ]


def dealt(stream: ByteStream, workers: int, patch: pytest.MonkeyPatch) -> Iterator[ByteBatch]:
    """Give what a loader with worker processes gives: a batch of each worker's copy in turn.

    That a worker is asked for who it is, is all that tells its process from this one.
    """
    if not workers:
        yield from stream
        return
    state = stream.state_dict()
    copies: list[Iterator[ByteBatch]] = []
    for worker in range(workers):
        reopen, (source, flags, _) = stream.__reduce__()
        copy = iter(reopen(source, flags, state))
        told = SimpleNamespace(id=worker, num_workers=workers)
        patch.setattr(resumable, "get_worker_info", lambda told=told: told)
        copies.append(_with(next(copy, None), copy))  # it asks when it begins
    patch.setattr(resumable, "get_worker_info", lambda: None)
    while copies:
        for copy in list(copies):
            batch = next(copy, None)
            if batch is None:
                copies.remove(copy)
            else:
                yield batch


def _with(first: ByteBatch | None, rest: Iterator[ByteBatch]) -> Iterator[ByteBatch]:
    """Give one batch and the others, nothing if there is none."""
    if first is not None:
        yield first
        yield from rest


def put_together(batches: list[list[ByteBatch]]) -> Global:
    """Return global batches, from those of each rank: row i is row i // R of rank i % R."""
    found: Global = []
    for shares in zip(*batches, strict=True):
        rows = [rows_of(share) for share in shares]
        count = sum(map(len, rows))
        assert {share.position for share in shares} == {shares[0].position}
        found.append((shares[0].position, [rows[i % len(rows)][i // len(rows)] for i in range(count)]))
    return found


def windows_of(parts: list[PartArrays]) -> list[Row]:
    """Return the windows of a split, in order."""
    text = np.concatenate([part.text for part in parts])
    starts = np.concatenate([part.starts for part in parts])
    starts[::WIDTH] = True
    return [(text[i : i + WIDTH].tobytes(), starts[i : i + WIDTH].tobytes()) for i in range(0, text.size, WIDTH)]


@pytest.fixture(scope="module")
def whole_epoch(stores: dict[str, tuple[Path, list[PartArrays]]]) -> Global:
    """The global batches of an epoch, as one rank without workers delivers them, from the plainest layout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "BLOCK_BYTES", BLOCK_WINDOWS * WIDTH)
        return put_together([list(stream_of(stores["Zarr none"][0]))])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_epoch_is_the_split(layout: str, stores: dict[str, tuple[Path, list[PartArrays]]]) -> None:
    """Its rows are the split's windows in another order, each once, whatever they are stored as."""
    path, parts = stores[layout]
    rows = [row for _, rows in put_together([list(stream_of(path))]) for row in rows]

    assert sorted(rows) == sorted(windows_of(parts))
    assert rows != windows_of(parts)
    assert sum(len(text) for text, _ in rows) == sum(SIZES) - SIZES[2]


@pytest.mark.parametrize(("ranks", "workers"), list(product(RANKS, WORKERS)))
def test_ranks_workers_and_a_resume_elsewhere(
    ranks: int,
    workers: int,
    stores: dict[str, tuple[Path, list[PartArrays]]],
    whole_epoch: Global,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The global batches are those of one rank, before and behind a resume on other ranks and workers.

    The layouts take turns: each is read by every number of ranks.
    """
    path, _ = stores[list(LAYOUTS)[WORKERS.index(workers)]]
    generator = random.Random(100 * ranks + workers)
    cut = generator.randint(0, len(whole_epoch))
    other_ranks, other_workers = generator.choice(RANKS), generator.choice(WORKERS)
    begun, states = [], set()
    for rank in range(ranks):
        stream = stream_of(path, rank, ranks)
        begun.append(list(islice(dealt(stream, workers, monkeypatch), cut)))
        if workers:
            stream.skip(cut)
        states.add(json.dumps(stream.state_dict()))
    (state,) = states
    ended = []
    for rank in range(other_ranks):
        stream = stream_of(path, rank, other_ranks)
        stream.load_state_dict(json.loads(state))
        ended.append(list(dealt(stream, other_workers, monkeypatch)))

    assert put_together(begun) + put_together(ended) == whole_epoch


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize(("ranks", "workers"), [(2, 3), (3, 1)])
def test_real_worker_processes(
    ranks: int, workers: int, stores: dict[str, tuple[Path, list[PartArrays]]], whole_epoch: Global
) -> None:
    """What is above called a worker is one: processes of a loader give the same global batches."""
    path, _ = stores["Zarr zstd"]
    loaders = [
        DataLoader(stream_of(path, rank, ranks), batch_size=None, num_workers=workers, multiprocessing_context="fork")
        for rank in range(ranks)
    ]

    assert put_together([list(loader) for loader in loaders]) == whole_epoch


@pytest.mark.parametrize("pack", CUTS)
@pytest.mark.parametrize("last", ["fill", "drop", "short", "pad"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_resume_at_every_place(
    layout: str, last: str, pack: str, stores: dict[str, tuple[Path, list[PartArrays]]]
) -> None:
    """Behind every batch of two epochs, also behind the last, a fresh stream goes on as if nothing had happened."""
    path, _ = stores[layout]
    flags: dict[str, Any] = {"last": last, "pack": pack, "epochs": 2}
    stream = stream_of(path, **flags)
    states, batches = [stream.state_dict()], []
    for batch in stream:
        batches.append(batch)
        states.append(stream.state_dict())
    whole = put_together([batches])
    assert len(whole) >= 14
    for place, state in enumerate(states):
        resumed = stream_of(path, rank=place % 2, ranks=2, **flags)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        rest = [(batch.position, rows_of(batch)) for batch in islice(resumed, 2)]

        assert rest == [(position, rows[place % 2 :: 2]) for position, rows in whole[place : place + 2]]
        assert len(json.dumps(state)) <= 256


def unmixed(window: int, order: LaneOrder, epoch: int) -> int:
    """Return the place of a window in an epoch: the order backwards, in plain integers."""
    size = order.block_windows
    blocks = order.windows // size
    whole = blocks // LANES * LANES
    block, within = divmod(window, size)
    if block < blocks:
        block = unpermuted(block, blocks, key_of(order.seed, epoch, 1))
    key = key_of(order.seed, epoch, 2, min(block, whole))
    if block >= whole:
        left = (block - whole) * size + within
        return whole * size + unpermuted(left, order.windows - whole * size, key)
    turn, lane = divmod(block, LANES)
    return turn * size * LANES + unpermuted(within, size, key) * LANES + lane


def unpermuted(image: int, size: int, key: int) -> int:
    """Return the position whose image under the keyed permutation of [0, size) this is."""
    side = next(s for s in range(max(1, int(size**0.5) - 2), size + 2) if s * s >= size)
    other = -(-size // side)
    while True:
        left, right = divmod(image, other)
        for turn in (2, 1, 0):
            own = key + turn * 0x9E3779B97F4A7C15
            right = (right - hashed(own + 0xBF58476D1CE4E5B9, left, other)) % other
            left = (left - hashed(own, right, side)) % side
        image = left * other + right
        if image < size:
            return image


def hashed(key: int, value: int, limit: int) -> int:
    """Return splitmix64's finaliser of key xor value, scaled into [0, limit)."""
    z = ((key & (2**64 - 1) ^ value) + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return (z ^ z >> 31 >> 0) % 2**64 // 2**32 * limit // 2**32


@settings(deadline=None, max_examples=60)
@given(data=st.data(), exponent=st.integers(0, 12), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 9))
def test_the_order_runs_backwards(data: st.DataObject, exponent: int, seed: int, epoch: int) -> None:
    """Up to 10**12 windows, each has one position that can be computed from it: no two positions share a window."""
    windows = data.draw(st.integers(1, 10**exponent))
    order = LaneOrder(windows, data.draw(st.integers(1, 2 * BLOCK_WINDOWS * WIDTH)), seed)
    places = data.draw(st.lists(st.integers(0, windows - 1), min_size=1, max_size=20))
    found = order(epoch * windows + np.array(places))

    assert [unmixed(window, order, epoch) for window in found.tolist()] == places
    assert 0 <= found.min() <= found.max() < windows
