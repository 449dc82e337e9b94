"""Streams of two real stores: nothing lost or doubled, the same for all ranks, resumable everywhere."""

import json
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.lanes import LANES
from bytropix.datasets.mixture import Mixture, Stage
from bytropix.datasets.mixture_order import MixtureOrder
from bytropix.datasets.store import PartLayout, Store
from bytropix.datasets.stream import ByteStream
from bytropix.errors import ConfigError, StoreError
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

CONTEXT = 63
SQUARE = LANES * LANES


def make_store(folder: Path, alphabet: str, n_bytes: int, codec: str) -> Path:
    """Ingest random text of an alphabet, so that every window is another one and names its store."""
    draw = random.Random(alphabet)
    folder.mkdir()
    (folder / "text.txt").write_text("".join(draw.choices(alphabet, k=n_bytes)), encoding="ascii")
    layout = PartLayout(codec=codec)  # type: ignore[arg-type]
    config = IngestConfig(val_fraction=0, document_bytes=4096, part_bytes=16384, layout=layout)
    ingest_bytes([folder], folder.with_suffix(".bx"), config)
    return folder.with_suffix(".bx")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of lower case letters and a smaller one of digits; do not change them."""
    folder = tmp_path_factory.mktemp("mixed")
    return (
        make_store(folder / "letters", "abcdefghijklmnop", 60_000, "none"),
        make_store(folder / "digits", "0123456789", 25_000, "zstd"),
    )


@pytest.fixture
def stores(places: tuple[Path, Path]) -> tuple[Store, Store]:
    """The two stores, freshly opened."""
    return Store.open(places[0]), Store.open(places[1])


def stream_of(mixture: Mixture, batch: int = 12, **settings: Any) -> ByteStream:
    """Return a stream of windows of 64 bytes."""
    return ByteStream(mixture, context=CONTEXT, batch=batch, **settings)


def rows(batches: Iterator[ByteBatch], count: int) -> list[tuple[bytes, bytes, int]]:
    """Return text, starts and length of each row of some batches."""
    return [
        (text.numpy().tobytes(), bits.numpy().tobytes(), int(length))
        for batch in islice(batches, count)
        for text, bits, length in zip(batch.bytes, batch.bits, batch.lengths, strict=True)
    ]


def windows_of(store: Store, truth_of: Any) -> set[bytes]:
    """Return the windows of a store as zarr reads it: every 64 bytes of its parts, end to end."""
    text = np.concatenate([part.bytes for part in truth_of(store, "train")]).tobytes()
    return {text[begin : begin + CONTEXT + 1] for begin in range(0, len(text), CONTEXT + 1)}


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.7, 0.3), (0.02, 0.98), None])
def test_each_store_is_gone_through_exactly_once_an_epoch(
    stores: tuple[Store, Store], weights: tuple[float, ...] | None, truth_of: Any
) -> None:
    """Behind whole squares each window has come as often as its store's epochs say, to one; shares are as asked."""
    stream = stream_of(Mixture(stores, weights), batch=SQUARE)
    squares = 3
    seen = Counter(text[:length] for text, _, length in rows(iter(stream), squares))

    order = stream.order
    assert isinstance(order, MixtureOrder)
    for index, store in enumerate(stores):
        windows = windows_of(store, truth_of)
        times = [seen.pop(window, 0) for window in windows]
        given = order.delivered(stream.position)[index]
        assert sum(times) == given
        assert set(times) <= {given // len(windows), given // len(windows) + 1}
        share = 60_000 / 85_000 if weights is None else weights[0]
        wanted = (share, 1 - share)[index] * squares * SQUARE
        assert abs(given - wanted) < 2 * LANES  # sizes in bytes of the split are not quite those of the files
    assert not seen


@pytest.mark.parametrize("ranks", [2, 3, 4, 12])
def test_ranks_share_the_batches_of_one(stores: tuple[Store, Store], ranks: int) -> None:
    """Row i of a global batch is row i // R of rank i % R, whatever R, across a stage's border."""
    mixture = Mixture(stores, (2, 1), None, (Stage(100, (1, 2)),))
    whole = rows(iter(stream_of(mixture)), 20)
    shares = [rows(iter(stream_of(mixture, rank=rank, ranks=ranks)), 20) for rank in range(ranks)]

    assert [row for group in zip(*shares, strict=True) for row in group] == whole


def test_a_stream_goes_on_from_every_place(stores: tuple[Store, Store]) -> None:
    """At every batch around two stages the state, as JSON of at most 256 bytes, leads on to the same rows."""
    mixture = Mixture(stores, (2, 1), None, (Stage(20, (0, 1)), Stage(83, (1, 1))))
    whole = rows(iter(stream_of(mixture, batch=6)), 26)
    stream = stream_of(mixture, batch=6)
    batches = iter(stream)
    for done in range(24):
        text = json.dumps(stream.state_dict())
        assert len(text) <= 256
        batch, ranks = ((6, 1), (4, 2), (3, 1), (12, 3))[done % 4]
        found = []
        for rank in range(ranks):
            other = stream_of(mixture, batch=batch, rank=rank, ranks=ranks, prefetch=False)
            other.load_state_dict(json.loads(text))
            assert other.position == done * 6
            found.append(rows(iter(other), 12 // batch))
        here = [row for group in zip(*found, strict=True) for row in group]
        assert here == whole[done * 6 : done * 6 + 12]
        next(batches)


def test_a_stage_is_read_from_its_window_on(stores: tuple[Store, Store]) -> None:
    """Batches before it are letters alone, from window 30 on digits alone."""
    texts = [text for text, _, _ in rows(iter(stream_of(Mixture(stores, (1, 0), None, (Stage(30, (0, 1)),)))), 10)]

    assert all(text.rstrip(b"\0").islower() for text in texts[:30])
    assert all(text.rstrip(b"\0").isdigit() for text in texts[30:])


def test_stages_to_come_may_change_and_begun_ones_may_not(stores: tuple[Store, Store]) -> None:
    """A state says what has been read so far: a new stage ahead is exact, another past is refused."""
    early, late = Stage(24, (1, 3)), Stage(60, (0, 1))
    stream = stream_of(Mixture(stores, (1, 1), None, (early,)))
    rows(iter(stream), 4)
    state = stream.state_dict()
    planned = rows(iter(stream_of(Mixture(stores, (1, 1), None, (early, late)))), 10)

    other = stream_of(Mixture(stores, (1, 1), None, (early, late)))
    other.load_state_dict(state)
    assert rows(iter(other), 6) == planned[48:]
    others: list[tuple[tuple[float, ...], tuple[Stage, ...]]] = [
        ((1, 2), (early,)),
        ((1, 1), ()),
        ((1, 1), (Stage(24, (1, 4)),)),
        ((1, 1), (Stage(23, (1, 3)),)),
    ]
    for weights, stages in others:
        with pytest.raises(StoreError, match=r"letters\.bx, .*digits\.bx: .*fingerprint"):
            stream_of(Mixture(stores, weights, None, stages)).load_state_dict(state)
    with pytest.raises(StoreError, match="fingerprint"):
        stream_of(Mixture(stores[::-1], (1, 1), None, (early,))).load_state_dict(state)
    with pytest.raises(StoreError, match="fingerprint"):
        ByteStream(stores[0], context=CONTEXT, batch=12).load_state_dict(state)


def test_a_changed_context_goes_on_behind_what_was_read(stores: tuple[Store, Store]) -> None:
    """Windows are cut anew, which a warning tells; the position stands for as many bytes as before."""
    stream = stream_of(Mixture(stores))
    rows(iter(stream), 100)
    other = ByteStream(Mixture(stores), context=2 * CONTEXT + 1, batch=12)
    with pytest.warns(
        UserWarning, match="the context was 63 and is 127 now.* 76800 bytes had been delivered; of each store"
    ):
        other.load_state_dict(stream.state_dict())

    assert other.position == 600
    assert len(rows(iter(other), 2)) == 24


def test_documents_of_several_stores_are_packed_apart(stores: tuple[Store, Store]) -> None:
    """With whole documents in rows, a row is of one store, and its documents are numbered."""
    stream = ByteStream(Mixture(stores, (1, 1)), context=511, batch=16, pack="documents")
    kinds = set()
    for batch in islice(stream, 6):
        assert batch.documents is not None
        for text, length, numbers in zip(batch.bytes, batch.lengths.tolist(), batch.documents, strict=True):
            row = text[:length].numpy().tobytes()
            kinds.add((row.isdigit(), row.islower()))
            assert (numbers[:length] > 0).all()
            assert not numbers[length:].any()

    assert kinds == {(True, False), (False, True)}


def test_a_stream_of_a_mixture_travels_to_a_process(stores: tuple[Store, Store]) -> None:
    """A copy made by pickle, as a loader's worker gets it, goes on where the stream stood."""
    stream = stream_of(Mixture(stores, (3, 1), None, (Stage(30, (1, 1)),)))
    batches = iter(stream)
    rows(batches, 3)
    copy = pickle.loads(pickle.dumps(stream))

    assert rows(iter(copy), 4) == rows(batches, 4)


def test_another_seed_is_another_order(stores: tuple[Store, Store]) -> None:
    """Both which store comes when and which window of it."""
    found = [rows(iter(stream_of(Mixture(stores, (1, 1)), seed=seed)), 8) for seed in (0, 0, 1)]
    kinds = [[text[:1].isdigit() for text, _, _ in part] for part in found]

    assert found[0] == found[1]
    assert kinds[0] != kinds[2]
    assert not set(found[0]) >= set(found[2])


def test_epochs_and_missing_splits_are_refused(stores: tuple[Store, Store]) -> None:
    """A mixture does not end; a store without the split is named."""
    with pytest.raises(ConfigError, match="a mixture has no epochs of its own"):
        stream_of(Mixture(stores), epochs=2)
    with pytest.raises(ConfigError, match="a mixture has no epochs of its own"):
        stream_of(Mixture(stores), last="short")
    with pytest.raises(StoreError, match=r"letters\.bx: split 'val' holds no bytes"):
        stream_of(Mixture(stores), split="val")


def test_damage_names_the_store_it_lies_in(places: tuple[Path, Path], tmp_path: Path) -> None:
    """A flipped byte in the second store is an error with its part; a store of weight 0 is never touched."""
    broken = Path(shutil.copytree(places[0], tmp_path / "broken.bx"))
    texts = [path for path in broken.rglob("*") if "bytes" in path.parts and path.is_file()]
    file = max(texts, key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    stores = Store.open(places[1]), Store.open(broken)

    with pytest.raises(StoreError, match=r"broken\.bx.*train"):
        rows(iter(stream_of(Mixture(stores, (1, 1)))), 200)
    assert len(rows(iter(stream_of(Mixture(stores, (1, 0)))), 200)) == 2400
    quarantining = stream_of(Mixture(stores, (1, 1)), checks="quarantine", budget=2)
    lengths = [length for _, _, length in rows(iter(quarantining), 200)]
    assert lengths.count(0) > 0
    assert all("broken.bx" in damage.part for damage in quarantining.quarantined)


def test_torch_loaders_deal_the_same_batches(stores: tuple[Store, Store]) -> None:
    """Two worker processes give the sequence of none."""
    mixture = Mixture(stores, (1, 2), None, (Stage(40, (1, 1)),))
    loader = torch.utils.data.DataLoader(stream_of(mixture), batch_size=None, num_workers=2)
    batches = iter(loader)
    found = rows(batches, 8)
    del batches

    assert found == rows(iter(stream_of(mixture)), 8)
