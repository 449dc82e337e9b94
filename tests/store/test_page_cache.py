"""A cache of pages that many processes share: bounded, never wrong, never in the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bytropix.datasets.store import page_cache
from bytropix.datasets.store.page_cache import HEADER, PageCache, cache_folder, cache_limit, page_key
from bytropix.errors import ConfigError

PAGE = 1000
ROOT = Path(__file__).resolve().parents[2]


def content(number: int) -> bytes:
    """Return the bytes of a page."""
    return bytes([number % 251]) * PAGE


def key(number: int) -> str:
    """Return the key of a page."""
    return page_key("s3://b/s.bx", "ab" * 32, number * PAGE, PAGE)


def files(folder: Path) -> list[Path]:
    """Return every file below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def start(script: str, *args: object) -> "subprocess.Popen[bytes]":
    """Run a script in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, args)], env=environment)


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    """A page is there for this cache object and for another on the same folder, until it is dropped."""
    cache = PageCache(tmp_path / "pages", 10**6)
    cache.put(key(3), content(3))

    assert cache.get(key(3), PAGE) == content(3)
    assert PageCache(tmp_path / "pages", 10**6).get(key(3), PAGE) == content(3)
    assert (cache.get(key(4), PAGE), cache.has(key(3)), cache.has(key(4))) == (None, True, False)
    cache.drop(key(3))
    assert cache.get(key(3), PAGE) is None


def test_it_stays_under_its_limit_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    """Of forty pages the folder never holds more than fit; a page that is read all the time survives the others."""
    cache = PageCache(tmp_path, 10 * (PAGE + HEADER.size))
    cache.put(key(0), content(0))
    for number in range(1, 40):
        time.sleep(0.002)  # times of use that differ
        assert cache.get(key(0), PAGE) == content(0)
        time.sleep(0.002)
        cache.put(key(number), content(number))

        assert sum(path.stat().st_size for path in files(tmp_path)) <= cache.limit
    assert cache.get(key(39), PAGE) == content(39)
    assert cache.get(key(1), PAGE) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: bytes(len(data)),
    ],
    ids=["torn", "longer", "empty", "flipped", "other mark", "zeros"],
)
def test_a_page_that_is_not_whole_is_dropped(tmp_path: Path, change: Any) -> None:
    """What a crash, a disk or a villain made of a page is not returned, and is gone."""
    cache = PageCache(tmp_path, 10**6)
    cache.put(key(1), content(1))
    (path,) = files(tmp_path)
    path.write_bytes(change(path.read_bytes()))

    assert cache.get(key(1), PAGE) is None
    assert files(tmp_path) == []


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    """Where a page cannot be written, nothing is kept, left or raised; later it is tried again."""
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from bytropix.datasets.store.page_cache import PageCache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\ncache = PageCache(Path(sys.argv[1]), 10**9)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))\n"
        "cache.put('ab' * 32, bytes(10000))\nassert not cache.usable\n"
        "assert not [path for path in Path(sys.argv[1]).rglob('*') if path.is_file()]\n"
        "cache.put('cd' * 32, bytes(1000))\nassert cache.usable and cache.get('cd' * 32, 1000) == bytes(1000)\n"
    )

    assert start(script, tmp_path / "pages").wait() == 0


def test_a_place_that_is_no_folder_is_no_error(tmp_path: Path) -> None:
    """With a file where the folder should be, every page is simply not there."""
    (tmp_path / "pages").write_text("mine")
    cache = PageCache(tmp_path / "pages", 10**6)
    cache.put(key(1), content(1))

    assert (cache.get(key(1), PAGE), cache.has(key(1)), cache.usable) == (None, False, False)
    assert (tmp_path / "pages").read_text() == "mine"


def test_no_limit_to_speak_of_means_no_files(tmp_path: Path) -> None:
    """A limit of 0 writes nothing."""
    cache = PageCache(tmp_path, 0)
    cache.put(key(1), content(1))

    assert (cache.get(key(1), PAGE), cache.usable, files(tmp_path)) == (None, False, [])


def test_a_page_beyond_the_limit_drives_nothing_out(tmp_path: Path) -> None:
    """What can never fit is not kept, and what is there stays."""
    cache = PageCache(tmp_path, 2000)
    cache.put(key(1), content(1))
    cache.put(key(2), bytes(3000))

    assert (cache.get(key(1), PAGE), cache.get(key(2), 3000)) == (content(1), None)


SHARING = """
import random, sys
from pathlib import Path
from bytropix.datasets.store.page_cache import PageCache, page_key
cache, dice = PageCache(Path(sys.argv[1]), 30_000), random.Random(sys.argv[2])
for _ in range(int(sys.argv[3])):
    number = dice.randrange(60)
    key = page_key("s3://b/s.bx", "ab" * 32, number * 1000, 1000)
    found = cache.get(key, 1000)
    assert found in (None, bytes([number]) * 1000), number
    if found is None:
        cache.put(key, bytes([number]) * 1000)
"""


def test_processes_share_it_and_one_is_killed(tmp_path: Path) -> None:
    """Three processes read, write and make room at once, and one dies in the middle.

    No page is ever wrong, the limit holds but for the pages being written, and what the dead one left is swept.
    """
    runs = [start(SHARING, tmp_path, number, 1000) for number in (1, 2)]
    victim = start(SHARING, tmp_path, 3, 10**9)
    patience = time.monotonic() + 60
    while len(files(tmp_path)) < 10 and time.monotonic() < patience:
        time.sleep(0.01)
    victim.kill()

    assert victim.wait() == -signal.SIGKILL
    assert [run.wait() for run in runs] == [0, 0]
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 30_000 + 3 * (PAGE + HEADER.size)
    left = tmp_path / "00" / f"{page_cache.BESIDE}dead"  # and one that surely is there
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    for path in files(tmp_path):
        if path.name.startswith(page_cache.BESIDE):
            os.utime(path, (1, 1))
    PageCache(tmp_path, 30_000).put(key(99), content(99))
    assert not [path for path in files(tmp_path) if path.name.startswith(page_cache.BESIDE)]


def test_a_live_writer_is_not_swept(tmp_path: Path) -> None:
    """What another process is writing just now stays."""
    (tmp_path / "00").mkdir()
    live = tmp_path / "00" / f"{page_cache.BESIDE}live"
    live.write_bytes(b"half")
    PageCache(tmp_path, 10**6).put(key(1), content(1))

    assert live.exists()


def test_keys_are_plain_names_of_one_page(tmp_path: Path) -> None:
    """A hash that is none leads nowhere else, and another store, file, place or length has another key."""
    cache = PageCache(tmp_path / "a" / "pages", 10**6)
    cache.put(page_key("s3://b/s.bx", "../../../escaped", 0, PAGE), content(1))
    keys = [
        page_key(url, sha256, begin, length)
        for url in ("s3://b/s.bx", "s3://b/t.bx")
        for sha256 in ("ab" * 32, "ac" * 32)
        for begin in (0, PAGE)
        for length in (PAGE, PAGE + 1)
    ]

    assert [path.parents[1] for path in files(tmp_path)] == [tmp_path / "a" / "pages"]
    assert len(set(keys)) == 16


def test_the_limit_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """BYTROPIX_CACHE_BYTES, else 20 GB; what is no number of bytes is named."""
    monkeypatch.delenv("BYTROPIX_CACHE_BYTES", raising=False)
    assert cache_limit() == 20 * 10**9
    monkeypatch.setenv("BYTROPIX_CACHE_BYTES", "123")
    assert cache_limit() == 123
    for wrong in ("-1", "20GB", "", "١"):
        monkeypatch.setenv("BYTROPIX_CACHE_BYTES", wrong)
        with pytest.raises(ConfigError, match="BYTROPIX_CACHE_BYTES must be a whole number of bytes from 0, got"):
            cache_limit()


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BYTROPIX_CACHE, else what the system says."""
    monkeypatch.setattr(page_cache.sys, "platform", "linux")
    monkeypatch.delenv("BYTROPIX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "bytropix"
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
