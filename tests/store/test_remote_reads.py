"""Parts on real servers, behind a proxy that disturbs them: what is read is right, or an error that names it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.datasets.store import Part, PartLayout, Store
from bytropix.datasets.store.object_storage import ObjectStorage
from bytropix.datasets.store.page_cache import PAGE_BYTES, PageCache, page_key
from bytropix.datasets.store.retries import Patience, within
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.datasets.store.store import find_manifest
from bytropix.errors import StoreError
from bytropix.jobs.bench.disturbing_proxy import Disturbance, DisturbingProxy, disturbing
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = {"zstd": PartLayout(), "none": PartLayout(codec="none"), "tar": PartLayout(format="webdataset")}
SHORT = Patience(first_wait=0.01, longest_wait=0.05, answer=5.0, total=30.0)
BAD_NETWORK = Disturbance(latency=0.002, failures=0.15, statuses=(500, 503, 429, 0), cut=0.05, short=0.05)
TEXT = r"/bytes/c/0|\.tar$"


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in each layout: two train parts of several pages and a val part; not to be changed."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "data").mkdir()
    dice = np.random.default_rng(0)
    for number in range(8):
        (folder / "data" / f"{number}.bin").write_bytes(dice.integers(0, 256, 400_000 + number, np.uint8).tobytes())
    (folder / "data" / "text.txt").write_bytes(b"call me ishmael. " * 30_000)
    for name, layout in LAYOUTS.items():
        config = IngestConfig(part_bytes=2_500_000, val_fraction=0.2, layout=layout)
        ingest_bytes([folder / "data"], folder / f"{name}.bx", config)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's pages."""
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pages"


@pytest.fixture
def web(stores: Path, cache: Path) -> Iterator[DisturbingProxy]:
    """A web server with the stores."""
    with disturbing(stores) as proxy:
        yield proxy


@pytest.fixture
def s3(
    stores: Path, cache: Path, s3_bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DisturbingProxy]:
    """A proxy before the S3 server, which the environment points to."""
    with disturbing(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def upload(store: Path, url: str) -> None:
    """Copy a store to a server, as any tool would."""
    import fsspec

    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    for path in store.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{root}/{path.relative_to(store).as_posix()}", path.read_bytes())


def open_remote(url: str, patience: Patience = SHORT) -> Store:
    """Open a store with little patience."""
    storage = ObjectStorage(url, patience)
    return Store(storage, *find_manifest(storage))


def blocks(part: Part) -> dict[tuple[str, int], bytes]:
    """Return every block of a part."""
    sizes = {"bytes": part.n_bytes, "entropy": part.n_bytes, "starts": (part.n_bytes + 7) // 8}
    return {
        (name, index): part.block(name, index).tobytes()
        for name, size in sizes.items()
        for index in range(-(-size // BLOCK_BYTES))
    }


def assert_same(found: Store, store: Path) -> None:
    """Compare everything in a remote store with the local one."""
    local = Store.open(store)
    assert found.splits == local.splits
    for split in local.splits:
        for here, there in zip(local.parts(split), found.parts(split), strict=True):
            assert blocks(there) == blocks(here)
            assert there.doc_ends.tolist() == here.doc_ends.tolist()
            assert there.doc_meta() == here.doc_meta()


def first_part(store: Store) -> Part:
    """Return the first training part."""
    part: Part = store.parts("train")[0]
    return part


def asked(proxy: DisturbingProxy, what: str) -> int:
    """Return how often paths with `what` in them were asked for."""
    return sum(count for path, count in proxy.requests.items() if what in path and path.startswith("GET"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_web_server_gives_what_the_disk_gives(web: DisturbingProxy, stores: Path, layout: str) -> None:
    """A store under http:// opens without a listing, and cold and warm reads equal those of the local store."""
    assert_same(Store.open(f"{web.url}/{layout}.bx"), stores / f"{layout}.bx")
    web.forget()
    assert_same(Store.open(f"{web.url}/{layout}.bx"), stores / f"{layout}.bx")
    assert asked(web, "/parts/") == 0


@pytest.mark.parametrize("layout", ["zstd", "none"])
def test_a_bad_network_before_s3_changes_nothing(
    s3: DisturbingProxy, s3_bucket: str, stores: Path, layout: str
) -> None:
    """With latency, a seventh of requests failing, bodies cut short and bytes flipped, what is read is the same."""
    url = f"{s3_bucket}/folder/s.bx"
    upload(stores / f"{layout}.bx", url)
    s3.disturbance = BAD_NETWORK
    found = Store.open(url)
    assert_same(found, stores / f"{layout}.bx")
    assert sum(s3.requests.values()) > asked(s3, "/parts/") > 0


def test_a_block_costs_a_page_or_two(web: DisturbingProxy) -> None:
    """One block of a part moves its page and the small files beside, not the object."""
    part = first_part(Store.open(f"{web.url}/none.bx"))
    web.forget()
    part.block("bytes", 0)

    assert asked(web, "bytes/c/0") == 1
    assert part.n_bytes > 2 * PAGE_BYTES
    assert web.bytes_sent < 1.1 * PAGE_BYTES
    part.block("bytes", 3)  # of the same page
    assert asked(web, "bytes/c/0") == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_named_at_once(web: DisturbingProxy, status: int) -> None:
    """Who may not read is told so after one request."""
    part = first_part(Store.open(f"{web.url}/none.bx"))
    web.forget()
    web.disturbance = Disturbance(failures=1, statuses=(status,), only=TEXT)
    with pytest.raises(StoreError, match=rf"bytes/c/0: .*{status}.*; check the keys and what they may read") as caught:
        part.block("bytes", 0)

    assert "\n" not in str(caught.value)
    assert asked(web, "bytes/c/0") == 1


def test_a_refusal_by_s3_is_named_at_once(s3: DisturbingProxy, s3_bucket: str) -> None:
    """A store on S3 that may not be read is no store that is missing."""
    s3.disturbance = Disturbance(failures=1, statuses=(403,))
    with pytest.raises(StoreError, match=r"s\.bx/manifest\.json: .*403.*; check the keys and what they may read"):
        Store.open(f"{s3_bucket}/s.bx")
    assert max(s3.requests.values()) == 1


def test_a_failure_for_ever_ends_in_one_line(web: DisturbingProxy) -> None:
    """A server that answers 500 is asked six times, and no more often by the package below; then it is named."""
    part = first_part(open_remote(f"{web.url}/none.bx"))
    web.forget()
    web.disturbance = Disturbance(failures=1, statuses=(500,), only=TEXT)
    with pytest.raises(StoreError, match=r"bytes/c/0: .*500.*; tried 6 times; check the address") as caught:
        part.block("bytes", 0)

    assert "\n" not in str(caught.value)
    assert asked(web, "bytes/c/0") == 6


@pytest.mark.parametrize("status", [503, 0], ids=["503", "hung up on"])
def test_a_failure_for_ever_of_s3_ends_in_one_line(s3: DisturbingProxy, s3_bucket: str, status: int) -> None:
    """The packages below repeat nothing themselves."""
    s3.disturbance = Disturbance(failures=1, statuses=(status,))
    with pytest.raises(StoreError, match=r"s\.bx/manifest\.json: .*tried 6 times; check the address"):
        open_remote(f"{s3_bucket}/s.bx")
    # aiohttp asks again at once, and once only, when a connection breaks.
    # A try on a busy machine may be given up before the server has read it.
    assert 3 <= sum(s3.requests.values()) <= (12 if status == 0 else 6)


@pytest.mark.parametrize("place", ["web", "s3"])
def test_a_server_that_hangs_is_not_waited_for(request: pytest.FixtureRequest, s3_bucket: str, place: str) -> None:
    """Each try ends by its deadline, long before the server would."""
    proxy: DisturbingProxy = request.getfixturevalue(place)
    url = f"{proxy.url}/none.bx" if place == "web" else f"{s3_bucket}/s.bx"
    proxy.disturbance = Disturbance(hang=1)
    with pytest.raises(StoreError, match=r"\.bx/manifest\.json: no answer in time; tried 2 times; check the address"):
        open_remote(url, Patience(tries=2, answer=1.0, first_wait=0.01))
    assert place == "s3" or sum(proxy.requests.values()) == 2  # the S3 package may not even be ready in a second


def test_whoever_is_asked_is_not_waited_for() -> None:
    """A protocol without deadlines of its own is left alone when it is late."""
    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.05, never.wait)
    never.set()
    assert within(60, never.wait) is True


@pytest.mark.parametrize(("how", "said"), [("cut", ""), ("short", r"the server sends \d+ bytes of \d+ from byte 0 on")])
def test_an_answer_that_is_always_cut_is_named(web: DisturbingProxy, how: str, said: str) -> None:
    """Fewer bytes than were asked for are no answer, whether the header is honest about it or not."""
    part = first_part(open_remote(f"{web.url}/none.bx"))
    web.forget()
    web.disturbance = Disturbance(only=TEXT, **{how: 1.0})
    with pytest.raises(StoreError, match=rf"bytes/c/0: .*{said}.*; tried 6 times; check the address"):
        part.block("bytes", 0)
    assert asked(web, "bytes/c/0") == 6


def test_a_server_without_ranges_is_named(stores: Path, cache: Path) -> None:
    """One that sends the whole file for each page is not used as if it were one that does not."""
    script = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(stores)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        part = first_part(Store.open(f"http://127.0.0.1:{port}/none.bx"))
        with pytest.raises(StoreError, match=r"bytes/c/0: the server sends \d+ bytes where \d+ were asked for"):
            part.block("bytes", 0)
        server.kill()


@pytest.mark.parametrize("place", ["web", "s3"])
def test_what_is_missing_is_named(
    request: pytest.FixtureRequest, stores: Path, s3_bucket: str, tmp_path: Path, place: str
) -> None:
    """A file that is gone is named when the store is opened, or when it is touched where nothing can be listed."""
    proxy: DisturbingProxy = request.getfixturevalue(place)
    if place == "s3":
        upload(stores / "none.bx", f"{s3_bucket}/s.bx")
        ObjectStorage(f"{s3_bucket}/s.bx").remove(["parts/train/00001.zarr/bytes/c/0"])
        with pytest.raises(StoreError, match=r"parts/train/00001\.zarr/bytes/c/0: missing"):
            Store.open(f"{s3_bucket}/s.bx")
        return
    store = Store.open(f"{proxy.url}/none.bx")
    proxy.source = tmp_path
    with pytest.raises(StoreError, match=r"parts/train/00000\.zarr/zarr\.json: there is no such file .*; check the ad"):
        first_part(store).block("bytes", 0)
    with pytest.raises(StoreError, match=r"none\.bx: no such store"):
        Store.open(f"{proxy.url}/none.bx")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_block_that_stays_wrong_is_named(web: DisturbingProxy, layout: str) -> None:
    """Bytes that are changed on their way are fetched once more; if they are wrong again, part and offset are named."""
    part = first_part(Store.open(f"{web.url}/{layout}.bx"))
    web.forget()
    web.disturbance = Disturbance(flip=1, only=TEXT)
    with pytest.raises(StoreError, match=r"parts/train/00000.*, at byte \d+ of the file, is damaged") as caught:
        part.block("bytes", 0)

    assert caught.value.offset is not None
    # The index of a shard may lie in two pages.
    assert asked(web, "bytes/c/0") + asked(web, ".tar") in ({2, 4} if layout == "zstd" else {2})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("only", [TEXT, r"/bytes/zarr\.json|\.index$"], ids=["pages", "small files"])
def test_a_block_that_is_wrong_once_is_mended(web: DisturbingProxy, stores: Path, layout: str, only: str) -> None:
    """Where the second request brings what is right, nobody notices, and the right page is kept."""
    truth = first_part(Store.open(stores / f"{layout}.bx")).block("bytes", 0).tobytes()
    part = first_part(Store.open(f"{web.url}/{layout}.bx"))
    web.forget()
    web.disturbance = Disturbance(flip=1, only=only, times=1)

    assert part.block("bytes", 0).tobytes() == truth
    web.forget()
    assert first_part(Store.open(f"{web.url}/{layout}.bx")).block("bytes", 0).tobytes() == truth
    assert asked(web, "/parts/") == 0


def test_a_poisoned_page_is_fetched_again(web: DisturbingProxy, stores: Path, cache: Path) -> None:
    """A page in the cache that is whole, with a right checksum, and yet not the file's, is noticed and replaced."""
    truth = first_part(Store.open(stores / "none.bx"))
    part = first_part(Store.open(f"{web.url}/none.bx"))
    key = page_key(part.storage.url, part.file_record("bytes/c/0").sha256, PAGE_BYTES, PAGE_BYTES)
    kept = PageCache(cache, 10**9)
    kept.put(key, bytes(PAGE_BYTES))
    part.block("bytes", 0)
    web.forget()

    assert part.block("bytes", 4).tobytes() == truth.block("bytes", 4).tobytes()
    assert asked(web, "bytes/c/0") == 1
    assert kept.get(key, PAGE_BYTES) == truth.read("bytes", PAGE_BYTES, 2 * PAGE_BYTES).tobytes()


def test_a_changed_store_meets_no_old_page(tmp_path: Path, cache: Path) -> None:
    """Another store at the same URL is read from the server, although its files have the same names and sizes."""
    config = IngestConfig(val_fraction=0, layout=LAYOUTS["none"])
    with disturbing(tmp_path) as proxy:
        for letter in (b"a", b"b"):
            (tmp_path / letter.decode()).write_bytes(letter * 100_000)
            ingest_bytes([tmp_path / letter.decode()], tmp_path / f"{letter.decode()}.bx", config)
            (tmp_path / f"{letter.decode()}.bx").rename(tmp_path / "s.bx")

            assert first_part(Store.open(f"{proxy.url}/s.bx")).block("bytes", 0).tobytes() == letter * 100_000
            (tmp_path / "s.bx").rename(tmp_path / "old.bx" / letter.decode() if letter == b"b" else tmp_path / "old.bx")


def test_hints_bring_pages_once(web: DisturbingProxy) -> None:
    """Blocks that were hinted at, however often, cost one request a page, and none when they are read."""
    part = first_part(Store.open(f"{web.url}/none.bx"))
    pages = -(-part.n_bytes // PAGE_BYTES)
    web.forget()
    web.disturbance = Disturbance(latency=0.02)
    for _ in range(5):
        part.prefetch("bytes", 0, 1000)
    wait_until(lambda: asked(web, "bytes/c/0") == pages and len(list(cached(part))) == pages)
    web.disturbance = Disturbance(failures=1, statuses=(403,))

    assert part.read("bytes", 0, part.n_bytes).size == part.n_bytes
    assert asked(web, "bytes/c/0") == pages


def cached(part: Part) -> list[int]:
    """Return the numbers of the pages of a part's text that its cache has."""
    file = part.ranges("bytes/c/0")
    return [number for number in range(-(-file.size // PAGE_BYTES)) if file.on_disk(number)]  # type: ignore[attr-defined]


def wait_until(holds: Any) -> None:
    """Wait until something holds."""
    patience = time.monotonic() + 60
    while not holds() and time.monotonic() < patience:
        time.sleep(0.01)
    assert holds()


def test_a_hint_that_fails_is_told_by_the_read(web: DisturbingProxy) -> None:
    """What goes wrong ahead is silent until somebody needs it, and does not stand in the way of a later success."""
    part = first_part(Store.open(f"{web.url}/none.bx"))
    web.disturbance = Disturbance(failures=1, statuses=(403,))
    web.forget()
    part.prefetch("bytes", 0, 4)
    wait_until(lambda: sum(web.requests.values()) > 0)
    with pytest.raises(StoreError, match="403"):
        part.block("bytes", 0)
    web.disturbance = Disturbance()

    assert part.block("bytes", 0).size == BLOCK_BYTES


def test_nothing_is_kept_where_nothing_may_be(
    web: DisturbingProxy, stores: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache of no bytes, everything is still read right, and no file is made."""
    monkeypatch.setenv("BYTROPIX_CACHE_BYTES", "0")
    assert_same(Store.open(f"{web.url}/zstd.bx"), stores / "zstd.bx")
    assert not cache.exists()


READER = """
import hashlib, sys
from bytropix.datasets.store import Store
digest = hashlib.sha256()
for turn in range(int(sys.argv[2])):
    part = Store.open(sys.argv[1]).parts("train")[0]
    for start in range(0, part.n_bytes, 1 << 18):
        digest.update(part.read("bytes", start, min(part.n_bytes, start + (1 << 18))))
print(digest.hexdigest())
"""
FORKER = """
import os, sys, time
from bytropix.datasets.store import Store
part = Store.open(sys.argv[1]).parts("train")[0]
for _ in range(20):  # as many threads as there may be
    part.prefetch("bytes", 0, 4)
part.block("bytes", 0)
child = os.fork()
if child == 0:
    part.prefetch("bytes", 8, 9)
    file, patience = part.ranges("bytes/c/0"), time.monotonic() + 20
    while not file.on_disk(2) and time.monotonic() < patience:
        time.sleep(0.01)
    os._exit(0 if file.on_disk(2) and part.block("bytes", 5).size == 1 << 18 else 1)
assert os.waitpid(child, 0)[1] == 0 and part.block("bytes", 5).size == 1 << 18
"""


def start(script: str, *args: object) -> "subprocess.Popen[str]":
    """Run a script in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_processes_share_the_cache_and_one_is_killed(
    web: DisturbingProxy, stores: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes read more than the cache holds, at once; one dies in the middle, the other reads what is right."""
    limit = 2_200_000
    monkeypatch.setenv("BYTROPIX_CACHE_BYTES", str(limit))
    url = f"{web.url}/none.bx"
    victim, reader = start(READER, url, 10**6), start(READER, url, 3)
    wait_until(lambda: asked(web, "bytes/c/0") > 6)
    victim.kill()
    victim.communicate()
    told, _ = reader.communicate(timeout=120)
    expected, _ = start(READER, stores / "none.bx", 3).communicate(timeout=120)

    assert (victim.returncode, reader.returncode, told) == (-signal.SIGKILL, 0, expected)
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) <= limit + 2 * (PAGE_BYTES + 64)


def test_a_forked_process_reads_on(web: DisturbingProxy) -> None:
    """Threads and connections do not survive a fork; the child makes its own."""
    forker = start(FORKER, f"{web.url}/none.bx")
    forker.communicate(timeout=60)

    assert forker.returncode == 0
