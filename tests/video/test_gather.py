"""Frames of videos gathered into parts: where parts are cut, and what an abandoned video leaves behind."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.datasets.store import PartRecord, open_storage, open_video_part
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.gather import Gatherer
from bytropix.pipelines.video.scenes import SceneFrames

Tree = Callable[[Path], dict[str, bytes]]
FACTS: dict[str, Any] = {
    "fps": 10.0,
    "duration": 9.0,
    "width": 64,
    "height": 48,
    "codec": "h264",
    "decoder": "pyav",
    "bad_packets": 0,
    "corrupt": 0,
}


def film(count: int, seed: int, starts: Sequence[int] = ()) -> SceneFrames:
    """Return frames of noise, with scenes that begin at the first frame and at `starts`."""
    begins = np.zeros(count, np.bool_)
    begins[[0, *starts]] = True
    never = np.zeros(count, np.bool_)
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 48, 3), np.uint8)
    return SceneFrames(images, np.arange(count) / 10, begins, never, never)


def piece(frames: SceneFrames, first: int, last: int) -> SceneFrames:
    """Return some of the frames."""
    chosen = slice(first, last)
    return SceneFrames(
        frames.images[chosen], frames.times[chosen], frames.starts[chosen], frames.black[chosen], frames.frozen[chosen]
    )


def give(gatherer: Gatherer, name: str, frames: SceneFrames, chunk: int = 13) -> None:
    """Begin a video and add its frames, some at a time."""
    gatherer.begin(name, FACTS)
    for first in range(0, len(frames.images), chunk):
        gatherer.add(piece(frames, first, first + chunk))


def gatherer(place: Path, config: VideoConfig) -> Gatherer:
    """Return one for the first group."""
    return Gatherer(open_storage(place), "train", 0, config, 1)


def rows(place: Path, records: Sequence[PartRecord]) -> list[list[tuple[str, int, int]]]:
    """Return source, first frame and frames of each video of each part."""
    parts = [open_video_part(open_storage(place), record) for record in records]
    return [[(row["source"], row["first"], row["frames"]) for row in part.video_meta()] for part in parts]


def test_a_long_video_is_cut_where_a_clip_of_its_scene_ends(tmp_path: Path, small_video: VideoConfig) -> None:
    """Parts of 40 frames and clips of 8: a scene from frame 35 on is cut before it, then every 40 frames."""
    out = gatherer(tmp_path, small_video)
    give(out, "a", film(140, 0, starts=[35]))
    frames = out.finish({})
    records = out.close()

    assert frames == 140
    assert [record.name for record in records] == ["00000.zarr", *(f"00000-{n:04d}.zarr" for n in (1, 2, 3))]
    assert rows(tmp_path, records) == [[("a", 0, 35)], [("a", 35, 40)], [("a", 75, 40)], [("a", 115, 25)]]


def test_a_video_that_does_not_fit_begins_a_part_of_its_own(tmp_path: Path, small_video: VideoConfig) -> None:
    """What is finished before it is written by itself, and what follows it joins its last part."""
    out = gatherer(tmp_path, small_video)
    for name, count in (("a", 20), ("b", 50), ("c", 6)):
        give(out, name, film(count, count))
        out.finish({})

    assert rows(tmp_path, out.close()) == [[("a", 0, 20)], [("b", 0, 40)], [("b", 40, 10), ("c", 0, 6)]]


@pytest.mark.parametrize("count", [3, 30, 45, 130])
def test_an_abandoned_video_leaves_nothing(tmp_path: Path, small_video: VideoConfig, tree: Tree, count: int) -> None:
    """Whether it was short or has filled parts already: names and bytes are as if it had never been."""
    with_it, without = gatherer(tmp_path / "with", small_video), gatherer(tmp_path / "without", small_video)
    for out in (with_it, without):
        give(out, "a", film(20, 1))
        out.finish({})
        if out is with_it:
            give(out, "bad", film(count, 2, starts=[1]))
            out.abandon()
        give(out, "c", film(30, 3))
        out.finish({})
    records = with_it.close()
    open_storage(tmp_path / "with").prune()

    assert rows(tmp_path / "with", records) == [[("a", 0, 20)], [("c", 0, 30)]]
    assert records == without.close()
    assert tree(tmp_path / "with") == tree(tmp_path / "without")


@pytest.mark.parametrize("adaptive", [False, True])
def test_parts_do_not_depend_on_how_frames_come(
    tmp_path: Path, small_video: VideoConfig, tree: Tree, adaptive: bool
) -> None:
    """One at a time, a few, or all at once: the same parts, with scenes of one frame and of two among them."""
    config = replace(small_video, regions=replace(small_video.regions, adaptive=adaptive))
    frames = film(100, 4, starts=[31, 32, 39, 40, 41, 64, 99])
    for chunk in (1, 7, 33, 100):
        out = gatherer(tmp_path / str(chunk), config)
        give(out, "a", frames, chunk)
        out.finish({"corrupt": 3})
        out.close()

    trees = [tree(tmp_path / str(chunk)) for chunk in (1, 7, 33, 100)]
    assert trees[0] == trees[1] == trees[2] == trees[3]
    assert trees[0]


def test_what_is_known_at_the_end_stands_in_the_last_row(tmp_path: Path, small_video: VideoConfig) -> None:
    """Counts of a decoder's report come when all is read: parts that are written by then have none."""
    out = gatherer(tmp_path, small_video)
    give(out, "a", film(50, 5))
    out.finish({"corrupt": 3})
    parts = [open_video_part(open_storage(tmp_path), record) for record in out.close()]

    assert [row["corrupt"] for part in parts for row in part.video_meta()] == [0, 3]


def test_memory_is_one_part(tmp_path: Path, small_video: VideoConfig) -> None:
    """However long a video is, what is held of it is a part and a frame."""
    out = gatherer(tmp_path, small_video)
    out.begin("a", FACTS)
    frames = film(37, 6)
    held = set()
    for number in range(8):
        out.add(replace(frames, starts=frames.starts & (number == 0), times=frames.times + 3.7 * number))
        held.add(sum(array.nbytes for array in vars(out).values() if isinstance(array, np.ndarray)))

    assert max(held) < 43 * (small_video.frame_bytes + 1000)
    assert out.finish({}) == 8 * 37
