"""Nonsense under right checksums: a reader gives an error of ours in one line, or sense, and takes no memory for it."""

import json
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numcodecs import LZ4, Blosc, Zstd

from bytropix.datasets.store import PartLayout, Store
from bytropix.datasets.store.codecs import HEADER_BYTES, decoder
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.datasets.store.zarr_group import with_crc
from bytropix.errors import StoreError
from bytropix.jobs.bench.forge import signed, vouched
from bytropix.jobs.bench.fuzz import KINDS, SmallStore, harm_done, read_everything, small_store
from bytropix.jobs.bench.victim import LAYOUTS


@pytest.fixture(scope="module", params=list(LAYOUTS))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SmallStore:
    """Return a small store of each layout; who harms it mends it."""
    return small_store(tmp_path_factory.mktemp("fuzz"), LAYOUTS[request.param])


@pytest.mark.filterwarnings("ignore")  # zarr's, about metadata that is none
@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**40))
def test_nonsense_is_an_error_or_makes_sense(store: SmallStore, kind: str, seed: int) -> None:
    """Any change to any file, even one that the manifest vouches for."""
    assert harm_done(store, kind, seed) == ""


def test_the_small_store_is_whole(store: SmallStore) -> None:
    """What is not harmed is read without an error, so that an error is one of the harm."""
    read_everything(store.path, table=True)
    changes = KINDS["zarr.json" if store.layout.format == "zarr" else "index"](store, random.Random(0))

    assert changes
    assert all(store.files[name] != content for name, content in changes.items())


@pytest.mark.parametrize(("codec", "name"), [(Zstd(1), "zstd"), (LZ4(1), "numcodecs.lz4"), (Blosc("zstd", 1), "blosc")])
@pytest.mark.parametrize("size", [0, 1, 200, 300, 70_000, BLOCK_BYTES - 1, BLOCK_BYTES + 1, 1 << 27])
def test_a_block_of_another_size_is_not_decoded(codec: Zstd | LZ4 | Blosc, name: str, size: int) -> None:
    """A block's header tells its size, and none but the right one is given memory."""
    decode = decoder([{"name": name}], BLOCK_BYTES)
    right = codec.encode(np.zeros(BLOCK_BYTES, np.uint8))

    assert len(decode(np.frombuffer(right, np.uint8))) == BLOCK_BYTES
    wrong = np.frombuffer(bytes(codec.encode(np.zeros(size, np.uint8))).ljust(HEADER_BYTES, b"\0"), np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, RuntimeError)):
            decode(wrong)
        assert tracemalloc.get_traced_memory()[1] < BLOCK_BYTES // 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("field", "value"), [("documents", -1), ("documents", 0), ("n_bytes", 0), ("n_bytes", -(10**9))]
)
def test_a_part_of_nothing_is_refused(store: SmallStore, field: str, value: int) -> None:
    """A signed manifest whose part has no byte or document is not opened."""
    plain = json.loads(store.files["manifest.json"])
    plain["parts"][0][field] = value
    (store.path / "manifest.json").write_bytes(signed(plain))
    try:
        with pytest.raises(StoreError, match=r"part train/00000\..* documents; do not trust it"):
            Store.open(store.path)
    finally:
        (store.path / "manifest.json").write_bytes(store.files["manifest.json"])


def test_a_frame_that_is_a_bomb(tmp_path: Path) -> None:
    """A chunk that would decode to 128 MiB, under right checksums all the way up, is damage."""
    store = small_store(tmp_path, PartLayout())
    chunk = with_crc(bytes(Zstd(1).encode(np.zeros(1 << 27, np.uint8))))
    index = with_crc(np.array([[0, len(chunk)]], "<u8").tobytes())
    meta = json.loads(store.files[f"{store.part_name}/bytes/zarr.json"])
    meta["attributes"]["block_crc32c"] = [int.from_bytes(chunk[-4:], "little")]
    changes = {
        f"{store.part_name}/bytes/c/0": chunk + index,
        f"{store.part_name}/bytes/zarr.json": json.dumps(meta).encode(),
    }
    for name, content in vouched(store.files, changes).items():
        (store.path / name).write_bytes(content)
    with pytest.raises(StoreError, match="block 0 of 'bytes', at byte 0 of the file, is damaged"):
        Store.open(store.path).parts("train")[0].block("bytes", 0)
