"""The benchmark of clips, tiny: every way to get a clip gives the same ones, and the rows say what they cost."""

import importlib.util
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from bytropix.errors import StoreError
from bytropix.jobs.bench import BENCHES, clip_loaders, stream_video
from bytropix.jobs.bench.clip_loaders import FRAMES, LOADERS, OURS, TIMED
from bytropix.jobs.bench.rows import BenchSettings, table
from bytropix.jobs.bench.stream_video import make_stores

FEW = {"HEIGHT": 64, "WIDTH": 96, "SIDE": 32, "FILM_FRAMES": 40}
DECODER = "decord"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of 90 small frames in all, and their stores."""
    folder = tmp_path_factory.mktemp("clips")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FEW.items():
            patch.setattr(stream_video, name, value)
        make_stores(folder, 90)
    return folder


@pytest.mark.parametrize("name", OURS)
def test_all_layouts_give_the_same_clips(folder: Path, name: str) -> None:
    """What loses nothing gives the bytes of the mapped file, what loses something gives nearly them."""
    ours, mapped = (next(LOADERS[loader](folder)) for loader in (name, "memmap"))

    assert ours.shape == mapped.shape == (16, 16, 32, 32, 3)
    assert np.abs(ours.astype(int) - mapped).mean() < (8 if "jpeg" in name or "h264" in name else 1e-9)


@pytest.mark.skipif(not importlib.util.find_spec(DECODER), reason=f"{DECODER} is not installed")
def test_a_decoder_gives_the_same_clips(folder: Path) -> None:
    """Decoded from the films at the places that the store names, clips look as they are stored."""
    decoded, mapped = LOADERS[DECODER](folder), next(LOADERS["memmap"](folder))

    assert all(np.abs(next(decoded)[0].astype(int) - clip).mean() < 12 for clip in mapped[:4])


def test_rows_say_what_each_way_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each way, with rate, first batch, memory and size; ratios against the map and each decoder."""
    for name, value in FEW.items():
        monkeypatch.setattr(stream_video, name, value)
    for name in ("WARM_SECONDS", "MOST_SECONDS"):
        monkeypatch.setattr(clip_loaders, name, 0.01)
    monkeypatch.setattr(stream_video, "measure", clip_loaders._measured)  # a process for each would take long
    rows = BENCHES["stream-video"](BenchSettings(repeats=1, megabytes=0.5, data=None, folder=tmp_path))
    timed = {row.figures["loader"]: row for row in rows if row.figures}
    ratios = {row.name: row for row in rows if row.place == "ratios"}
    absent = [row.name for row in rows if row.place == "not_installed"]

    assert set(timed) | {name.removeprefix("stream-video: ") for name in absent} == set(LOADERS)
    assert all(row.value and row.value > 0 for row in timed.values())
    assert {row.place for name, row in timed.items() if "no prefetch" in str(name)} == {"variants"}
    assert timed["zarr raw"].figures["stored_mb"] == pytest.approx(1.0, rel=0.2)
    assert ratios["stream-video: zarr raw against memmap"].targets[0].bound == 0.5
    assert {ratio.baseline for name, ratio in ratios.items() if "memmap" in name} == {timed["memmap"].value}
    assert len([name for name in ratios if "memmap" in name]) == len(TIMED)
    assert all(table(row) and json.dumps(row.figures) for row in rows)


def test_a_process_of_its_own_measures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch that another process saw is that of the map."""
    found = clip_loaders.measure("zarr raw", folder)

    assert found["crc"] == zlib.crc32(next(LOADERS["memmap"](folder)).tobytes())
    assert found["clips_per_s"] > 0
    assert found["first_batch_ms"] > 0


def test_other_frames_are_never_compared(folder: Path) -> None:
    """Where a lossless layout gives other bytes than the map, there are no figures but an error."""
    turn = {"crc": zlib.crc32(np.load(folder / FRAMES).tobytes())}
    found = {name: [turn] for name in LOADERS} | {"zarr zstd": [{"crc": 0}]}
    with pytest.raises(StoreError, match="zarr zstd gave other frames than the mapped file"):
        stream_video._check_equal(found, folder)
