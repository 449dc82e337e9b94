"""Video files to a store: what is in it is what was decoded, whoever did the work, in whatever order."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store import Store, VideoPart
from bytropix.errors import ConfigError, SourceError, StoreError
from bytropix.gaad.maps import region_maps
from bytropix.jobs.film import FilmSet
from bytropix.pipelines.decoders.process import DecoderProcess
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.pipelines.video.plan import split_of
from bytropix.pipelines.video.scenes import SceneFinder, SceneRules

Tree = Callable[[Path], dict[str, bytes]]


def parts_of(store: Store) -> list[VideoPart]:
    """Return all parts, in the order of the manifest."""
    return [part for split in ("train", "val") for part in store.video_parts(split)]


def stored(store: Store, source: str) -> tuple[NDArray[np.uint8], NDArray[np.float64], list[int], list[VideoPart]]:
    """Return the frames of a video, their times, where its scenes begin, and the parts it lies in."""
    frames, times, begins, parts = [], [], [0], []
    for part in parts_of(store):
        start = 0
        for row, stop in zip(part.video_meta(), part.video_ends.tolist(), strict=True):
            if row["source"] == source:
                done = sum(map(len, frames))
                assert (row["first"], row["frames"]) == (done, stop - start)
                ends = part.scene_ends
                begins += (ends[(ends > start) & (ends <= stop)] - start + done).tolist()
                frames.append(part.read_frames(start, stop))
                times.append(part.pts[start:stop])
                parts.append(part)
            start = stop
    return np.concatenate(frames), np.concatenate(times), begins[:-1], parts


@pytest.mark.parametrize("name", ["shapes", "zoom", "cuts", "tall"])
def test_a_store_holds_what_was_decoded(
    film_set: FilmSet, film_store: Path, small_video: VideoConfig, name: str
) -> None:
    """Frames and times are the decoder's, to the last bit, over all parts; scenes begin where the finder has them."""
    path = film_set[name].path
    with DecoderProcess() as decoder:
        batches = list(decoder.frames(path, small_video.wanted()))
    finder = SceneFinder()
    fed = [finder.feed(images, times) for images, times in batches] + [finder.finish()]
    starts = np.flatnonzero(np.concatenate([one.starts for one in fed])).tolist()
    frames, times, begins, parts = stored(Store.open(film_store), f"films/{path.name}")

    assert np.array_equal(frames, np.concatenate([one.images for one in batches]))
    assert np.array_equal(times, np.concatenate([one.times for one in batches]))
    assert set(starts) <= set(begins)
    # What begins besides is a part, and it begins where a clip of its scene would.
    assert [(at - max(start for start in starts if start <= at)) % 8 for at in begins] == [0] * len(begins)
    assert len(begins) <= len(starts) + len(parts) - 1


def test_regions_belong_to_their_frames(film_store: Path, small_video: VideoConfig, film_set: FilmSet) -> None:
    """Each frame has the regions that its scene alone gives it, whatever parts and batches it came through."""
    store = Store.open(film_store)
    source = f"films/{film_set['cuts'].path.name}"
    frames, _, _, parts = stored(store, source)
    finder = SceneFinder()
    fed = [finder.feed(frames, film_set["cuts"].times), finder.finish()]
    bounds = [*np.flatnonzero(np.concatenate([one.starts for one in fed])).tolist(), len(frames)]
    wanted = [region_maps(frames[first:last], None, small_video.regions) for first, last in pairwise(bounds)]
    found = [(part, start, stop) for part in parts for start, stop in _ranges(part, source)]

    assert len(bounds) > 3
    assert np.array_equal(
        np.concatenate([one for one, _ in wanted]), np.concatenate([p.regions(a, b) for p, a, b in found])
    )
    assert np.array_equal(
        np.concatenate([one for _, one in wanted]), np.concatenate([p.motion(a, b) for p, a, b in found])
    )


def _ranges(part: VideoPart, source: str) -> list[tuple[int, int]]:
    ends = part.video_ends.tolist()
    ranges = zip([0, *ends], ends, part.video_meta(), strict=False)
    return [(start, stop) for start, stop, row in ranges if row["source"] == source]


def test_parts_have_a_bounded_size(film_store: Path, film_set: FilmSet) -> None:
    """No part is larger than was asked for; a film that is longer goes on in further parts of its group's number."""
    store = Store.open(film_store)
    names = [part.record.name for part in store.video_parts("train")] + [
        part.record.name for part in store.video_parts("val")
    ]

    assert max(part.frames for part in parts_of(store)) <= 40
    assert {name for name in names if "-" in name} >= {"00000-0001.zarr"}
    assert sum(part.frames for part in parts_of(store)) == sum(len(film.images) for film in film_set.films)


def test_the_manifest_says_what_is_there(film_store: Path, small_video: VideoConfig, film_set: FilmSet) -> None:
    """Kind, config, sources by name with hash and kind, split by content, counts that add up."""
    manifest = Store.open(film_store).manifest
    splits = {span.source: part.split for part in manifest.parts for span in part.spans}

    assert (manifest.kind, manifest.patcher, manifest.babylon) == ("video", {}, ())
    assert from_plain(VideoConfig, manifest.config) == small_video
    assert [source.name for source in manifest.sources] == [
        f"films/{name}.mp4" for name in ("cuts", "damaged", "shapes", "tall", "zoom")
    ]
    assert {source.kind for source in manifest.sources} == {"mov/h264"}
    for source in manifest.sources:
        if source.name in splits:
            assert splits[source.name] == split_of(source.sha256, 0.5)
    assert set(splits) == {f"films/{film.path.name}" for film in film_set.films}
    assert (manifest.documents_in, manifest.quarantined, manifest.dropped) == (6, 2, {})


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers(
    film_folder: Path, film_store: Path, small_video: VideoConfig, tmp_path: Path, tree: Tree, workers: int
) -> None:
    """Processes make the store that one process makes, bit for bit."""
    ingest_video(
        [*sorted(film_folder.iterdir(), reverse=True)], tmp_path / "files.bx", small_video, max_bad=0.5, workers=workers
    )
    one = ingest_video(sorted(film_folder.iterdir()), tmp_path / "one.bx", small_video, max_bad=0.5).store
    ingest_video([film_folder], tmp_path / "folder.bx", small_video, max_bad=0.5, workers=workers)

    assert tree(tmp_path / "files.bx") == tree(one.path)
    assert tree(tmp_path / "folder.bx") == tree(film_store)


def test_a_dask_cluster_makes_the_same_store(
    film_folder: Path, film_store: Path, small_video: VideoConfig, tmp_path: Path, tree: Tree
) -> None:
    """Daemonic workers have decoding processes all the same, and make the same store."""
    said: list[str] = []
    ingest_video([film_folder], tmp_path / "dask.bx", small_video, max_bad=0.5, workers=2, dask=True, say=said.append)

    assert tree(tmp_path / "dask.bx") == tree(film_store)
    assert any("dashboard" in line for line in said)


def test_several_films_share_a_part(film_folder: Path, small_video: VideoConfig, tmp_path: Path) -> None:
    """Short films lie end to end in one part, in order of their names, each with a row and an end of its own."""
    config = replace(small_video, part_bytes=1 << 24, val_fraction=0.0)
    store = ingest_video([film_folder], tmp_path / "s.bx", config, max_bad=0.5).store
    (part,) = parts_of(store)

    assert [row["source"] for row in part.video_meta()] == [
        f"films/{n}.mp4" for n in ("cuts", "shapes", "tall", "zoom")
    ]
    assert [row["first"] for row in part.video_meta()] == [0] * 4
    assert np.diff(part.video_ends, prepend=0).tolist() == [150, 96, 30, 75]
    assert set(part.video_ends.tolist()) <= set(part.scene_ends.tolist())


def test_black_and_still_frames_are_left_out(film_set: FilmSet, small_video: VideoConfig, tmp_path: Path) -> None:
    """On request; what is left keeps its times, and a scene ends where something is missing."""
    film = film_set["cuts"]
    config = replace(small_video, scenes=SceneRules(drop_black=True, drop_frozen=True))
    store = ingest_video([film.path], tmp_path / "s.bx", config).store
    frames, times, begins, _ = stored(store, "cuts.mp4")
    kept = np.rint(times * film.fps).astype(int)
    gaps = set((np.flatnonzero(np.diff(kept) > 1) + 1).tolist())

    assert not set(range(*film.black)) & set(kept.tolist())
    assert len(film.images) - 50 < len(frames) < len(film.images) - 15
    assert gaps
    assert gaps <= set(begins)


def test_a_film_of_which_nothing_is_left(tmp_path: Path, film_set: FilmSet, small_video: VideoConfig) -> None:
    """It is counted as dropped beside others; alone it leaves no store, and the reason is said."""
    from bytropix.pipelines.video.encode import write_video

    dark = tmp_path / "dark.mp4"
    with write_video(dark, 64, 64, fps=10.0) as writer:
        writer.write(np.zeros((20, 64, 64, 3), np.uint8), np.arange(20) / 10.0)
    config = replace(small_video, scenes=SceneRules(drop_black=True))
    store = ingest_video([dark, film_set["tall"].path], tmp_path / "two.bx", config).store

    assert store.manifest.dropped == {"nothing_left": 1}
    assert (store.manifest.documents_in, store.manifest.quarantined) == (2, 0)
    with pytest.raises(SourceError, match="every frame was left out as black or frozen"):
        ingest_video([dark], tmp_path / "one.bx", config)


def test_fps_picks_frames_by_time(film_set: FilmSet, small_video: VideoConfig, tmp_path: Path) -> None:
    """At a third of its rate a film has a third of its frames, a third of a second apart, from its first on."""
    store = ingest_video([film_set["shapes"].path], tmp_path / "s.bx", replace(small_video, fps=8.0)).store
    frames, times, _, _ = stored(store, "shapes.mp4")

    assert len(frames) == 32
    assert np.allclose(times, np.arange(32) / 8.0, atol=1e-6)


@pytest.mark.parametrize("codec", ["raw", "zstd", "jpeg", "h264"])
def test_every_frame_codec(film_set: FilmSet, small_video: VideoConfig, tmp_path: Path, codec: str) -> None:
    """Frames come back as they were, or, from a lossy codec, about so."""
    layout = replace(small_video.layout, frame_codec=codec)  # type: ignore[arg-type]
    path = film_set["tall"].path
    store = ingest_video([path], tmp_path / "s.bx", replace(small_video, layout=layout)).store
    plain = ingest_video([path], tmp_path / "plain.bx", small_video).store
    frames, wanted = stored(store, "tall.mp4")[0], stored(plain, "tall.mp4")[0]
    apart = np.abs(frames.astype(int) - wanted.astype(int)).mean()

    assert {record.codec for record in store.manifest.parts} == {codec}
    assert apart == 0 if codec in ("raw", "zstd") else 0 < apart < 8


def test_a_run_of_a_finished_store_reads_nothing(
    film_folder: Path, small_video: VideoConfig, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again with --resume: this machine remembers, and no decoder is asked; once forgotten, headers are enough."""
    sources = [film_folder / "tall.mp4"]
    first = ingest_video(sources, tmp_path / "s.bx", small_video).store
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in first.path.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr("bytropix.pipelines.video.job.do_video_scan", None)
        again = ingest_video(sources, tmp_path / "s.bx", small_video, resume=True)
    monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("bytropix.pipelines.video.job.do_group", None)
    scanned = ingest_video(sources, tmp_path / "s.bx", small_video, resume=True)

    assert again.skipped == scanned.skipped == len(first.manifest.parts)
    assert before == {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in first.path.rglob("*")}
    with pytest.raises(StoreError, match="a finished store of other config"):
        ingest_video(sources, tmp_path / "s.bx", replace(small_video, fps=5.0), resume=True)
    with pytest.raises(StoreError, match="a finished store of other sources"):
        ingest_video([film_folder / "zoom.mp4"], tmp_path / "s.bx", small_video, resume=True)
    with pytest.raises(StoreError, match="exists; complete it with --resume"):
        ingest_video(sources, tmp_path / "s.bx", small_video)


def test_overwrite_replaces_a_store(film_folder: Path, small_video: VideoConfig, tmp_path: Path, tree: Tree) -> None:
    """The new store is what it would be in an empty place; sources that are bad leave the old one as it was."""
    ingest_video([film_folder / "zoom.mp4"], tmp_path / "s.bx", small_video)
    before = tree(tmp_path / "s.bx")
    with pytest.raises(SourceError, match="no video but text"):
        ingest_video([film_folder / "notes.mp4"], tmp_path / "s.bx", small_video, overwrite=True, max_bad=1.0)
    between = tree(tmp_path / "s.bx")
    ingest_video([film_folder / "tall.mp4"], tmp_path / "s.bx", small_video, overwrite=True)
    ingest_video([film_folder / "tall.mp4"], tmp_path / "new.bx", small_video)

    assert between == before
    assert tree(tmp_path / "s.bx") == tree(tmp_path / "new.bx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (8, 128)}, "size must be a height and a width from 16"),
        ({"size": (128,)}, "size must be a height and a width"),
        ({"fps": -1.0}, "fps must be 0"),
        ({"clip_frames": 0}, "clip_frames must lie in 1"),
        ({"stride": -1}, "--stride.* must lie in 0"),
        ({"stride": 1 << 40}, "--stride.* must lie in 0"),
        ({"val_fraction": 1.0}, "val_fraction must lie in"),
        ({"part_bytes": 1}, "part_bytes must lie in 4096"),
        ({"size": (2160, 3840), "clip_frames": 100}, "is larger than the largest part"),
        ({"fit": "bend"}, "fit must be one of"),
        ({"decoder": "vlc"}, "decoder must be one of"),
        ({"stall_seconds": 0.0}, "--stall-seconds.* must be positive"),
        ({"stall_seconds": math.inf}, "--stall-seconds.* at most"),
        ({"stall_seconds": math.nan}, "--stall-seconds"),
        ({"file_seconds": 1e300}, "--file-seconds.* at most"),
        ({"memory_bytes": 1 << 70}, "--memory-bytes.* must lie in"),
        ({"most_pixels": 1 << 40}, "--most-pixels.* must lie in"),
    ],
)
def test_settings_are_checked(change: dict[str, object], message: str) -> None:
    """What cannot work is named with its value and rule; what can survives as plain data."""
    with pytest.raises(ConfigError, match=message):
        VideoConfig(**change)  # type: ignore[arg-type]
    largest = VideoConfig(
        stride=999_999, stall_seconds=3e8, file_seconds=3e8, memory_bytes=1 << 44, most_pixels=2**31 - 1
    )
    assert from_plain(VideoConfig, to_plain(largest)) == largest


def test_the_largest_limits_are_none(film_set: FilmSet) -> None:
    """A decoder, its timers and its limit of memory take the largest that the settings let pass."""
    largest = VideoConfig(stall_seconds=3e8, file_seconds=3e8, memory_bytes=1 << 44, most_pixels=2**31 - 1)
    with DecoderProcess() as decoder:
        assert sum(len(frames.images) for frames in decoder.frames(film_set["tall"].path, largest.wanted())) == 30
