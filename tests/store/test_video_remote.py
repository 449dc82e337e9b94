"""Parts of video on servers: what is read is right, comes by ranges, ahead where it was announced, and is checked."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.datasets.store import Store, VideoPart
from bytropix.datasets.store.page_cache import PAGE_BYTES
from bytropix.errors import StoreError
from bytropix.jobs.bench.clip_store import LAYOUTS, little_part, write_clip_store
from bytropix.jobs.bench.disturbing_proxy import Disturbance, DisturbingProxy, disturbing

SCENES = (((150, 90), 0),)
COUNT, CLIP = 240, 8


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store in each layout, of a part whose raw frames take several pages."""
    folder = tmp_path_factory.mktemp("remote")
    arrays = little_part(SCENES, 0)
    arrays = replace(arrays, frames=arrays.frames.repeat(5, 1).repeat(5, 2))  # 80 x 160: 9.2 MB
    for name, layout in LAYOUTS.items():
        write_clip_store(folder / f"{name.replace(' ', '-')}.bx", layout, {"train": [arrays]}, clip_frames=CLIP)
    return folder


@pytest.fixture
def web(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DisturbingProxy]:
    """Return a web server with the stores; pages are kept in a folder of this test."""
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "cache"))
    with disturbing(stores) as proxy:
        yield proxy


def part_at(place: Any, name: str) -> VideoPart:
    """Open the part of a store in a layout, in a folder or at a URL."""
    return Store.open(f"{place}/{name.replace(' ', '-')}.bx").video_parts("train")[0]


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_server_gives_what_a_disk_does(stores: Path, web: DisturbingProxy, name: str) -> None:
    """Frames, boxes, times and rows of a part on a server are those of the same part on a disk, coded ones too."""
    here, there = part_at(stores, name), part_at(web.url, name)
    generator = np.random.default_rng(0)

    assert there.remote
    assert not there.mapped
    for start, stop in np.sort(generator.integers(0, COUNT + 1, (12, 2))).tolist():
        step = int(generator.integers(1, 5))
        np.testing.assert_array_equal(here.read_frames(start, stop, step), there.read_frames(start, stop, step))
        np.testing.assert_array_equal(here.regions(start, stop), there.regions(start, stop))
    np.testing.assert_array_equal(here.motion(0, COUNT), there.motion(0, COUNT))
    np.testing.assert_array_equal(here.pts, there.pts)
    np.testing.assert_array_equal(here.scene_ends, there.scene_ends)
    assert here.video_meta() == there.video_meta()


@pytest.mark.parametrize("name", ["zarr raw", "tar raw", "zarr zstd"])
def test_a_clip_takes_its_pages_only(web: DisturbingProxy, name: str) -> None:
    """Of a part of many pages, a clip fetches those that it lies in, and metadata."""
    part = part_at(web.url, name)
    part.read_frames(120, 120 + CLIP)
    size = CLIP * 80 * 160 * 3

    assert web.bytes_sent < size + 2 * PAGE_BYTES + 200_000
    assert sum(file.size for file in part.record.files) > 2 * web.bytes_sent or name == "zarr zstd"


@pytest.mark.parametrize("name", ["zarr raw", "zarr zstd", "zarr h264", "tar raw", "tar jpeg"])
def test_what_is_announced_is_fetched_ahead(web: DisturbingProxy, name: str) -> None:
    """Frames that were announced are read later without asking the server again."""
    part = part_at(web.url, name)
    part.prefetch_frames(8, 40)
    part.regions(0, 1)  # opens what a reader of frames has open too
    patience = time.monotonic() + 20
    before, quiet = -1, 0
    while quiet < 5:
        assert time.monotonic() < patience
        quiet = quiet + 1 if web.bytes_sent == before else 0
        before = web.bytes_sent
        time.sleep(0.05)
    asked = frames_asked(web)
    part.read_frames(8, 40)

    assert asked > 0
    assert frames_asked(web) == asked


def frames_asked(web: DisturbingProxy) -> int:
    """Return how many ranges of files with frames were asked for."""
    return sum(
        count
        for path, count in web.requests.items()
        if path.startswith("GET") and ("/frames/c/" in path or path.endswith(".tar"))
    )


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_bad_network(stores: Path, web: DisturbingProxy, name: str) -> None:
    """With requests that fail and bodies that are cut short or changed on their way, what is read is right."""
    here = part_at(stores, name).read_frames(0, 60)
    there = part_at(web.url, name)
    web.disturbance = Disturbance(latency=0.001, failures=0.1, statuses=(503, 0), cut=0.05, short=0.05)

    np.testing.assert_array_equal(here, there.read_frames(0, 60))


@pytest.mark.parametrize("name", ["zarr raw", "zarr zstd", "zarr jpeg", "tar h264"])
def test_damage_on_a_server(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A bit that is wrong on the server is an error that names file and byte, however often it is asked for."""
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    source = stores / f"{name.replace(' ', '-')}.bx"
    for path in source.rglob("*"):
        if path.is_file():
            target = folder / source.name / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    harmed = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(harmed.read_bytes())
    middle = len(data) // 2
    data[data.index(b"mdat", middle) + 9 if name == "tar h264" else middle] ^= 2  # not what pads a member
    harmed.write_bytes(data)
    with disturbing(folder) as web:
        part = part_at(web.url, name)
        for _ in range(2):
            with pytest.raises(StoreError, match="damaged") as caught:
                part.read_frames(0, COUNT)
            assert caught.value.offset is not None
            assert harmed.relative_to(folder).as_posix() in str(caught.value)


def test_written_to_an_object_store(
    s3_bucket: str, stores: Path, tree: Callable[[Path], dict[str, bytes]], tmp_path: Path, monkeypatch: Any
) -> None:
    """A store that is written to S3 has the same objects as one on a disk, and is read from there."""
    import s3fs

    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "cache"))
    arrays = part_at(stores, "zarr raw").arrays()
    for name in ("zarr-raw", "tar-jpeg"):
        url: Any = f"{s3_bucket}/{name}.bx"
        write_clip_store(url, LAYOUTS[name.replace("-", " ")], {"train": [arrays]}, clip_frames=CLIP)
        fs = s3fs.S3FileSystem(skip_instance_cache=True)
        bucket = f"{s3_bucket.removeprefix('s3://')}/{name}.bx/"
        there = {path.removeprefix(bucket): fs.cat_file(path) for path in fs.find(bucket)}
        here = {path: data for path, data in tree(stores / f"{name}.bx").items() if data != b"(folder)"}
        assert there == here
        np.testing.assert_array_equal(
            part_at(stores, name).read_frames(3, 200, 3), part_at(s3_bucket, name).read_frames(3, 200, 3)
        )
