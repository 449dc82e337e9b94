"""Streams from servers: the same batches as from a disk, whatever the network does, or an error that names it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import PartLayout, Store
from bytropix.datasets.store.object_storage import ObjectStorage
from bytropix.datasets.store.retries import Patience
from bytropix.datasets.store.store import find_manifest
from bytropix.datasets.stream import ByteStream
from bytropix.errors import StoreError, UnreachableError
from bytropix.jobs.bench.disturbing_proxy import Disturbance, DisturbingProxy, disturbing
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

LAYOUTS = {"zstd": PartLayout(), "none": PartLayout(codec="none"), "tar": PartLayout(format="webdataset")}
BAD_NETWORK = Disturbance(latency=0.005, failures=0.1, statuses=(500, 503, 0), cut=0.05, short=0.05)
TEXT = r"/bytes/c/0|\.tar$"
SHORT = Patience(first_wait=0.01, longest_wait=0.05, answer=0.1, tries=3)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of three parts in each layout; not to be changed."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "data").mkdir()
    dice = np.random.default_rng(1)
    for number in range(9):
        (folder / "data" / f"{number}.bin").write_bytes(dice.integers(0, 256, 130_000 + number, np.uint8).tobytes())
    for name, layout in LAYOUTS.items():
        config = IngestConfig(part_bytes=400_000, val_fraction=0, layout=layout)
        ingest_bytes([folder / "data"], folder / f"{name}.bx", config)
    return folder


@pytest.fixture
def web(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DisturbingProxy]:
    """A web server with the stores, and a cache that holds nothing yet."""
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "cache"))
    with disturbing(stores) as proxy:
        yield proxy


def batches(store: Store, **settings: object) -> list[bytes]:
    """Return the batches of an epoch, as bytes."""
    stream = ByteStream(store, context=999, batch=16, last="short", epochs=1, **settings)  # type: ignore[arg-type]
    return [batch.bytes.numpy().tobytes() + batch.bits.numpy().tobytes() for batch in stream]


def opened(url: str) -> Store:
    """Open a store with little patience."""
    storage = ObjectStorage(url, SHORT)
    return Store(storage, *find_manifest(storage))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_are_those_of_the_disk(web: DisturbingProxy, stores: Path, layout: str) -> None:
    """An epoch over a bad network, and one from the cache with the server gone, equal the local one."""
    expected = batches(Store.open(stores / f"{layout}.bx"))
    store = Store.open(f"{web.url}/{layout}.bx")
    web.disturbance = BAD_NETWORK

    assert batches(store) == expected
    again = Store.open(f"{web.url}/{layout}.bx")
    web.disturbance = Disturbance(failures=1, statuses=(403,))
    assert batches(again) == expected
    assert batches(again, prefetch=False, cache_bytes=0) == expected


def test_every_page_moves_once(web: DisturbingProxy) -> None:
    """However many threads and hints ask, an epoch moves every byte of text and of starts once."""
    store = Store.open(f"{web.url}/none.bx")
    web.forget()
    batches(store)
    asked = {path: count for path, count in web.requests.items() if path.endswith("/c/0")}

    assert len(asked) == 2 * len(store.parts("train"))  # bytes and starts; each of them is one page
    assert set(asked.values()) == {1}


@pytest.mark.parametrize("checks", ["raise", "quarantine"])
@pytest.mark.parametrize(
    ("disturbance", "said"),
    [
        (Disturbance(failures=1, statuses=(403,), only=TEXT), "403.*; check the keys"),
        (Disturbance(failures=1, statuses=(500,), only=TEXT), "500.*; tried 3 times; check the address"),
        (Disturbance(hang=1, only=TEXT), "no answer in time; tried 3 times; check the address"),
        (Disturbance(cut=1, only=TEXT), "tried 3 times; check the address"),
    ],
    ids=["403", "500", "hang", "cut"],
)
def test_a_server_that_fails_ends_the_loop(
    web: DisturbingProxy, disturbance: Disturbance, said: str, checks: str
) -> None:
    """The loop ends with an error, never early; and what cannot be reached is no damage that one may leave out."""
    store = opened(f"{web.url}/none.bx")
    web.disturbance = disturbance
    with pytest.raises(UnreachableError, match=rf"parts/train/.*/bytes/c/0: .*{said}"):
        batches(store, checks=checks, budget=1000)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_on_the_server_is_named_or_left_out(web: DisturbingProxy, layout: str) -> None:
    """Bytes that stay wrong are named with part and place; under quarantine their rows come empty, and are counted."""
    store = opened(f"{web.url}/{layout}.bx")
    web.disturbance = Disturbance(flip=1, only=rf"00001.*({TEXT})|00001\.tar$")
    with pytest.raises(StoreError, match=r"00001.*, at byte \d+ of the file, is damaged"):
        batches(store)
    stream = ByteStream(store, context=999, batch=16, epochs=1, last="short", checks="quarantine", budget=1000)
    lengths = np.concatenate([batch.lengths.numpy() for batch in stream])

    assert lengths.size == stream.windows
    assert (lengths == 0).sum() > 300
    assert {damage.part for damage in stream.quarantined} == {store.parts("train")[1].url}


def test_a_part_that_is_missing_is_named(web: DisturbingProxy, stores: Path, tmp_path: Path) -> None:
    """A server without a listing names it when it is first touched."""
    store = opened(f"{web.url}/none.bx")
    web.source = tmp_path
    with pytest.raises(StoreError, match=r"parts/train/.*\.zarr/.*: there is no such file .*; check the address, or"):
        batches(store)
