"""Parts of video: what is written is read back, by our reader and by plain zarr and webdataset, in every layout."""

import gc
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import webdataset
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bytropix.datasets.store import (
    CodedFrames,
    PartRecord,
    VideoArrays,
    VideoLayout,
    VideoPart,
    open_part,
    open_storage,
    open_video_part,
    write_video_part,
)
from bytropix.datasets.store.video_part import units_of
from bytropix.errors import ConfigError, StoreError
from bytropix.jobs.bench.clip_store import LAYOUTS, video_arrays

CLIP = 16
VIDEOS = (((40, 7), 0), ((21,), 5), ((16, 1, 300), 0))  # lengths of scenes, first frame
EXACT = {"zarr raw", "zarr zstd", "tar raw"}


def moving(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return frames of a bright square that moves over a gradient, with a little noise."""
    generator = np.random.default_rng(height)
    rows, columns = np.mgrid[:height, :width]
    ground = np.stack([rows * 200 // height, columns * 200 // width, (rows + columns) * 100 // (height + width)], -1)
    frames = ground[None] + generator.integers(0, 6, (count, height, width, 3))
    for number in range(count):
        left = number * 2 % (width - width // 4)
        frames[number, height // 4 : height // 2, left : left + width // 4] = (250, 40, 90)
    return frames.astype(np.uint8)


def film(videos: Any = VIDEOS, height: int = 96, width: int = 112, regions: int = 5, motion: int = 3) -> VideoArrays:
    """Return the arrays of a part; its last region is padding in every other frame."""
    frames = moving(sum(sum(lengths) for lengths, _ in videos), height, width)
    generator = np.random.default_rng(1)
    low = generator.random((len(frames), regions + motion, 2), np.float32) * 0.5
    boxes = np.concatenate([low, low + 0.1 + generator.random(low.shape, np.float32) * 0.4], -1)
    boxes = (boxes * np.array([width, height] * 2)).astype(np.float32)
    boxes[::2, regions - 1 : regions] = 0
    return video_arrays(frames, videos, boxes[:, :regions], boxes[:, regions:])


def written(folder: Path, arrays: VideoArrays, layout: VideoLayout) -> tuple[VideoPart, PartRecord]:
    """Write arrays as a part and open it."""
    storage = open_storage(folder)
    record = write_video_part(storage, "train", layout.part_name(7), arrays, layout=layout, clip_frames=CLIP, spans=())
    return open_video_part(storage, record), record


@pytest.fixture(scope="module")
def arrays() -> VideoArrays:
    """Return a part of 385 frames, 12.4 MB: two raw chunk files, the second one padded."""
    return film()


@pytest.fixture(scope="module", params=list(LAYOUTS))
def stored(
    request: pytest.FixtureRequest, arrays: VideoArrays, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, VideoPart, PartRecord]:
    """Return the part in a layout; it is not to be changed."""
    part, record = written(tmp_path_factory.mktemp("part"), arrays, LAYOUTS[request.param])
    return request.param, part, record


def test_everything_comes_back(stored: tuple[str, VideoPart, PartRecord], arrays: VideoArrays) -> None:
    """Boxes, times, ends and rows are those that were written; frames too, or nearly, where a codec loses something."""
    name, part, record = stored
    found = part.arrays()

    np.testing.assert_array_equal(arrays.regions, found.regions)
    np.testing.assert_array_equal(arrays.motion, found.motion)
    np.testing.assert_array_equal(arrays.pts, found.pts)
    np.testing.assert_array_equal(arrays.video_ends, found.video_ends)
    np.testing.assert_array_equal(arrays.scene_ends, found.scene_ends)
    assert arrays.video_meta == found.video_meta
    assert [row["first"] for row in part.video_meta()] == [0, 5, 0]
    assert arrays.shape == part.shape == found.shape
    assert (record.frames, record.frame_shape, record.n_bytes) == (385, (96, 112), arrays.frames.nbytes)
    frames = part.read_frames(0, part.frames)
    difference = np.abs(frames.astype(int) - np.asarray(arrays.frames)).mean()
    assert difference == 0 if name in EXACT else 0 < difference < 6
    assert isinstance(found.frames, CodedFrames) == (name not in EXACT)


def test_any_range_and_step(stored: tuple[str, VideoPart, PartRecord]) -> None:
    """Frames from anywhere, in steps, across chunks, units and scenes, are those of the whole; so are boxes."""
    _, part, _ = stored
    whole, regions, motion = part.read_frames(0, part.frames), part.regions(0, 385), part.motion(0, 385)
    generator = np.random.default_rng(0)
    for start, stop in np.sort(generator.integers(0, part.frames + 1, (25, 2))).tolist():
        step = int(generator.integers(1, 9))
        out = np.full((-(-(stop - start) // step), *part.shape[1:]), 77, np.uint8)
        assert part.read_frames(start, stop, step, out) is out
        np.testing.assert_array_equal(whole[start:stop:step], out)
        np.testing.assert_array_equal(whole[start:stop:step], part.read_frames(start, stop, step))
        np.testing.assert_array_equal(regions[start:stop], part.regions(start, stop).reshape(-1, 5, 4))
        np.testing.assert_array_equal(motion[start:stop], part.motion(start, stop).reshape(-1, 3, 4))


def test_frames_into_memory_with_gaps(stored: tuple[str, VideoPart, PartRecord]) -> None:
    """`out` may be a view whose rows do not lie end to end."""
    _, part, _ = stored
    wide = np.zeros((8, 96, 120, 3), np.uint8)
    part.read_frames(90, 98, out=wide[:, :, 4:116])

    np.testing.assert_array_equal(part.read_frames(90, 98), wide[:, :, 4:116])
    assert not wide[:, :, :4].any()
    assert not wide[:, :, 116:].any()


@pytest.mark.parametrize(("start", "stop", "step"), [(-1, 3, 1), (5, 386, 1), (9, 8, 1), (0, 9, 0), (400, 410, 1)])
def test_ranges_outside_are_refused(
    stored: tuple[str, VideoPart, PartRecord], start: int, stop: int, step: int
) -> None:
    """A range that the part has not is an error of the caller, never other frames."""
    with pytest.raises(ValueError, match="it has 385"):
        stored[1].read_frames(start, stop, step)


def test_plain_zarr_reads_the_same(stored: tuple[str, VideoPart, PartRecord], arrays: VideoArrays) -> None:
    """zarr-python, which knows nothing of us, reads every array as our reader does, coded units as bytes."""
    name, part, _ = stored
    if not name.startswith("zarr"):
        pytest.skip("a tar is none of zarr's")
    group = zarr.open_group(part.url, mode="r")
    plain = {key: np.asarray(array[:]) for key, array in group.arrays()}
    ours = {"regions": part.regions(0, 385), "motion": part.motion(0, 385), "pts": part.pts}
    ours |= {"video_ends": part.video_ends, "scene_ends": part.scene_ends}
    ours |= {"video_meta": np.frombuffer(arrays.video_meta, np.uint8)}
    frames = part.coded_frames()
    if isinstance(frames, CodedFrames):
        ours |= {"frames": frames.data, "unit_ends": frames.unit_ends, "unit_stops": frames.unit_stops}
    else:
        ours |= {"frames": frames}

    assert sorted(ours) == sorted(plain)
    for key, values in ours.items():
        np.testing.assert_array_equal(values, plain[key], strict=True)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves the closing of files to chance
def test_plain_webdataset_reads_the_same(stored: tuple[str, VideoPart, PartRecord], arrays: VideoArrays) -> None:
    """webdataset, which knows nothing of us, gives a sample a unit; none crosses a scene or a video."""
    name, part, _ = stored
    if not name.startswith("tar"):
        pytest.skip("a group is none of webdataset's")
    samples = list(webdataset.WebDataset(f"file:{part.url}", shardshuffle=False).decode("rgb8"))
    gc.collect()
    stops = [sample["json"]["place"]["frame"] + len(sample["json"]["pts"]) for sample in samples]
    whole = part.read_frames(0, part.frames)
    rows = part.video_meta()

    assert stops == units_of(arrays.scene_ends, CLIP).tolist()
    assert set(arrays.scene_ends.tolist()) <= set(stops)
    assert [sample["__key__"] for sample in samples[:2]] == ["00007-00000000", "00007-00000001"]
    for sample, stop in zip(samples, stops, strict=True):
        place, pts = sample["json"]["place"], sample["json"]["pts"]
        start = place["frame"]
        if name == "tar jpeg":
            frames = np.stack([sample[f"{number:03d}.jpg"] for number in range(stop - start)])
        else:
            frames = sample["frames.npy"] if name == "tar raw" else decoded(sample["mp4"])
        np.testing.assert_array_equal(whole[start:stop], frames)
        np.testing.assert_array_equal(arrays.regions[start:stop], sample["regions.npy"])
        np.testing.assert_array_equal(arrays.motion[start:stop], sample["motion.npy"])
        assert arrays.pts[start:stop].tolist() == pts
        assert sample["json"]["video"] == rows[place["video"]]
        assert place["video"] == np.searchsorted(arrays.video_ends, start, side="right")
        assert place["scene"] == np.searchsorted(arrays.scene_ends, start, side="right")


def decoded(mp4: bytes) -> NDArray[np.uint8]:
    """Return the frames of an mp4 file, as anybody would decode it but for exact colours."""
    exact = av.video.reformatter.Interpolation
    flags = exact.BILINEAR | exact.ACCURATE_RND | exact.BITEXACT
    with av.open(io.BytesIO(mp4)) as container:
        frames = [frame.reformat(format="rgb24", interpolation=flags) for frame in container.decode(video=0)]
        return np.stack([frame.to_ndarray() for frame in frames])


def test_units_are_what_they_say(arrays: VideoArrays, tmp_path: Path) -> None:
    """A unit of h264 is an mp4 that begins with a key frame, has the times of its frames and no B-frames."""
    part, _ = written(tmp_path, arrays, LAYOUTS["zarr h264"])
    frames = part.coded_frames()
    assert isinstance(frames, CodedFrames)
    begins = [0, *frames.unit_ends[:-1].tolist()]
    first = 0
    for begin, end, stop in zip(begins, frames.unit_ends.tolist(), frames.unit_stops.tolist(), strict=True):
        with av.open(io.BytesIO(frames.data[begin:end].tobytes())) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert [packet.is_keyframe for packet in packets] == [True] + [False] * (stop - first - 1)
        assert [packet.pts for packet in packets] == [packet.dts for packet in packets]
        times = np.array([float(packet.pts * packet.time_base) for packet in packets])
        np.testing.assert_allclose(arrays.pts[first:stop] - arrays.pts[first], times, atol=1e-4)
        first = stop


def test_pictures_are_what_they_say(arrays: VideoArrays, tmp_path: Path) -> None:
    """A unit of jpeg is one picture of quality 90 that Pillow opens, and decodes as our reader does."""
    part, _ = written(tmp_path, arrays, LAYOUTS["zarr jpeg"])
    frames = part.coded_frames()
    assert isinstance(frames, CodedFrames)
    assert frames.unit_stops.tolist() == list(range(1, 386))
    for number in (0, 200, 384):
        begin = int(frames.unit_ends[number - 1]) if number else 0
        data = frames.data[begin : frames.unit_ends[number]].tobytes()
        with Image.open(io.BytesIO(data)) as picture:
            np.testing.assert_array_equal(part.read_frames(number, number + 1)[0], np.asarray(picture))
        wanted = io.BytesIO()
        Image.fromarray(np.asarray(arrays.frames)[number]).save(wanted, "JPEG", quality=90)
        assert data == wanted.getvalue()


def test_raw_chunks_are_equal_and_mapped(arrays: VideoArrays, tmp_path: Path) -> None:
    """Raw frames lie in chunk files of equally many frames, about 256; few fill up the last."""
    part, record = written(tmp_path, arrays, VideoLayout())
    chunks = [file for file in record.files if file.path.startswith("frames/c/")]

    assert part.mapped
    assert [file.path for file in chunks] == ["frames/c/0/0/0/0", "frames/c/1/0/0/0"]
    assert {file.size for file in chunks} == {193 * 96 * 112 * 3}
    last = np.fromfile(Path(part.url) / "frames" / "c" / "1" / "0" / "0" / "0", np.uint8)
    assert not last[192 * 96 * 112 * 3 :].any()


def test_small_frames_lie_in_few_files(tmp_path: Path) -> None:
    """Frames of which 256 are little lie in longer chunk files, since a process can map few."""
    part, record = written(tmp_path, film((((3000,), 0),), 16, 16), VideoLayout())

    assert len([file for file in record.files if file.path.startswith("frames/c/")]) == 1
    assert part.read_frames(2999, 3000).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_same_arrays_are_the_same_files(layout: str, tmp_path: Path) -> None:
    """Writing a part twice gives equal records, hashes included; so does writing it in another thread."""
    arrays = film((((20, 5), 0),), 32, 48)
    with ThreadPoolExecutor(2) as executor:
        folders = [tmp_path / "a", tmp_path / "b"]
        one, two = executor.map(lambda folder: written(folder, arrays, LAYOUTS[layout])[1], folders)

    assert one == two


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_threads_read_at_once(layout: str, tmp_path: Path) -> None:
    """Threads that touch a fresh part at the same moment all get the right frames and boxes."""
    arrays = film((((60, 30), 0),), 32, 48)
    part, record = written(tmp_path, arrays, LAYOUTS[layout])
    right = part.read_frames(0, 90)
    for _ in range(5):
        fresh, together = open_video_part(open_storage(tmp_path), record), threading.Barrier(4)

        def read(seed: int, part: VideoPart = fresh, together: threading.Barrier = together) -> bool:
            generator = np.random.default_rng(seed)
            together.wait()
            same = []
            for start in generator.integers(0, 74, 20).tolist():
                same.append(np.array_equal(part.read_frames(start, start + 16), right[start : start + 16]))
                same.append(np.array_equal(part.regions(start, start + 16), arrays.regions[start : start + 16]))
            return all(same)

        with ThreadPoolExecutor(4) as executor:
            assert all(executor.map(read, range(4)))


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_part_of_one_frame_without_boxes(layout: str, tmp_path: Path) -> None:
    """A single frame, no region, no motion region: arrays of length 0 are written and read, by zarr too."""
    part, _ = written(tmp_path, film((((1,), 0),), 16, 16, 0, 0), LAYOUTS[layout])

    assert part.read_frames(0, 1).shape == (1, 16, 16, 3)
    assert part.regions(0, 1).shape == part.motion(0, 1).shape == (1, 0, 4)
    if layout.startswith("zarr"):
        assert zarr.open_group(part.url, mode="r")["regions"].shape == (1, 0, 4)  # type: ignore[union-attr]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20), clip=st.integers(1, 20))
def test_units_cut_scenes(lengths: list[int], clip: int) -> None:
    """Units have `clip` frames and never cross a scene; only the last of a scene has fewer."""
    ends = np.cumsum(lengths)
    wanted = [
        min(begin + clip, end)
        for begin_scene, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)
        for begin in range(begin_scene, end, clip)
    ]

    assert units_of(ends, clip).tolist() == wanted


def broken(arrays: VideoArrays, what: str) -> VideoArrays:
    """Return arrays with one thing wrong."""
    regions, motion, pts = arrays.regions.copy(), arrays.motion.copy(), arrays.pts.copy()
    rows = [json.loads(line) for line in arrays.video_meta.splitlines()]
    regions[3, 1] = {"flat": (5, 5, 5, 9), "outside": (0, 0, 200, 9), "below": (-1, 0, 9, 9)}.get(what, regions[3, 1])
    motion[9, 0, 2] = np.nan if what == "nan" else motion[9, 0, 2]
    pts[5] = {"back": pts[4], "endless": np.inf}.get(what, pts[5])
    rows[1] |= {"frames": {"frames": 22}, "first": {"first": -1}, "source": {"source": 3}}.get(what, {})
    rows = [dict(reversed(row.items())) for row in rows]
    meta = b"".join(json.dumps(row, sort_keys=what != "order").encode() + b"\n" for row in rows)
    meta = {"rows": meta.split(b"\n")[0] + b"\n", "json": b"no\n" + meta}.get(what, meta)
    ends, scenes = arrays.video_ends.copy(), arrays.scene_ends
    ends[-1] += what == "short"
    scenes = scenes[scenes != 47] if what == "scenes" else scenes
    scenes = np.array([385, 385]) if what == "still" else scenes
    if what == "boxes":
        regions = regions[1:]
    return replace(arrays, regions=regions, motion=motion, pts=pts, video_ends=ends, scene_ends=scenes, video_meta=meta)


RULES = {
    "flat": r"regions of frame 3 hold the box \[5.0, 5.0, 5.0, 9.0\]",
    "outside": "regions of frame 3 hold the box",
    "below": "regions of frame 3 hold the box",
    "nan": "motion of frame 9 hold the box",
    "boxes": r"regions of shape \(384, 5, 4\) for 385 frames",
    "back": "the time of frame 5 is not past the one before",
    "endless": "pts are not 385 numbers",
    "frames": "row 1 of video_meta is not that of a video with 21 frames here",
    "first": "row 1 of video_meta is not that",
    "source": "row 1 of video_meta is not that",
    "order": "video_meta is not written as `video_meta_line` does",
    "rows": "1 rows of video_meta for 3 videos",
    "json": "no JSON",
    "short": "video_ends do not ascend to 385",
    "scenes": "a video ends where no scene does",
    "still": "scene_ends do not ascend to 385",
}


@pytest.mark.parametrize("what", list(RULES))
def test_arrays_that_break_a_rule_are_not_written(arrays: VideoArrays, what: str, tmp_path: Path) -> None:
    """Whatever a writer got wrong is told with its place, and no file appears."""
    with pytest.raises(StoreError, match=rf"cannot be written: .*{RULES[what]}"):
        written(tmp_path, broken(arrays, what), VideoLayout())
    assert list(tmp_path.rglob("*")) == []


def test_odd_sizes_and_h264(tmp_path: Path) -> None:
    """h264 holds even sizes only; the error names the flags. All other codecs hold any."""
    odd = film((((5,), 0),), 17, 31)
    for name in ("zarr h264", "tar h264"):
        with pytest.raises(ConfigError, match=r"even height and width, not 17 x 31: give another --size, or"):
            written(tmp_path / name, odd, LAYOUTS[name])
        with pytest.raises(ConfigError, match="even height"):
            LAYOUTS[name].check_size(16, 31)
    for name in EXACT | {"zarr jpeg", "tar jpeg"}:
        assert written(tmp_path / name, odd, LAYOUTS[name])[0].read_frames(4, 5).shape == (1, 17, 31, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"format": "tar"}, "format must be one of zarr, webdataset"),
        ({"frame_codec": "mp3"}, "must be one of raw, zstd, jpeg, h264"),
        ({"format": "webdataset", "frame_codec": "zstd"}, "must be one of jpeg, raw, h264"),
        ({"quality": 0}, "quality must lie in 1..100"),
        ({"crf": 52}, "crf must lie in 0..51"),
    ],
)
def test_layouts_that_cannot_be(flags: dict[str, Any], message: str) -> None:
    """A setting that cannot work is refused with the values that can."""
    with pytest.raises(ConfigError, match=message):
        VideoLayout(**flags)


def test_units_of_another_length_are_not_carried_over(arrays: VideoArrays, tmp_path: Path) -> None:
    """Coded frames are kept as they are, or refused: never taken for units of another length or codec."""
    part, _ = written(tmp_path / "a", arrays, LAYOUTS["zarr h264"])
    storage = open_storage(tmp_path / "b")
    for layout, clip, message in (("tar h264", 8, "in other units than of 8"), ("tar jpeg", CLIP, "already cannot be")):
        with pytest.raises(ConfigError, match=message):
            write_video_part(
                storage, "train", "p.tar", part.arrays(), layout=LAYOUTS[layout], clip_frames=clip, spans=()
            )


def test_a_part_of_the_other_kind(arrays: VideoArrays, tmp_path: Path) -> None:
    """A record of video is no part of bytes, nor the other way round; the error names the class that reads it."""
    _, record = written(tmp_path, arrays, VideoLayout())
    with pytest.raises(StoreError, match="holds video, not bytes; read it with ClipStream"):
        open_part(open_storage(tmp_path), record)
    with pytest.raises(StoreError, match="holds bytes, not video; stream it with ByteStream"):
        open_video_part(open_storage(tmp_path), replace(record, frames=0))
