"""Damaged, cut, exchanged and forged parts of video: an error that names the file, and never a wrong frame."""

import io
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from bytropix.datasets.store import (
    VIDEO_VERSION,
    FileRecord,
    Listing,
    Manifest,
    PartRecord,
    Store,
    VideoLayout,
    VideoPart,
    open_storage,
    open_video_part,
    publish,
    write_video_part,
)
from bytropix.datasets.store.tar_writer import as_npy, from_npy, npy_header
from bytropix.datasets.store.video_tar import FRAME, SAMPLE
from bytropix.errors import StoreError
from bytropix.jobs.bench.clip_store import LAYOUTS, LITTLE_PARTS, little_part, write_little_clips
from bytropix.jobs.bench.forge import signed

CLIP = 4


def everything(part: VideoPart) -> list[bytes]:
    """Return all that a reader can ask of a part."""
    found = [part.read_frames(0, part.frames), part.regions(0, part.frames), part.motion(0, part.frames)]
    found += [part.pts, part.video_ends, part.scene_ends]
    return [*(array.tobytes() for array in found), part.video_meta_lines()]


@pytest.fixture(params=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> VideoLayout:
    """Return each layout."""
    return LAYOUTS[request.param]


@pytest.fixture
def written(layout: VideoLayout, tmp_path: Path) -> tuple[Path, PartRecord]:
    """Return a folder with a small part of two videos, and its record."""
    return written_in(tmp_path / "store", layout)


def written_in(folder: Path, layout: VideoLayout, seed: int = 0) -> tuple[Path, PartRecord]:
    """Write a small part of two videos."""
    arrays, name = little_part(LITTLE_PARTS[0], seed), layout.part_name(0)
    storage = open_storage(folder)
    return folder, write_video_part(storage, "train", name, arrays, layout=layout, clip_frames=CLIP, spans=())


def files_of(folder: Path, record: PartRecord) -> list[Path]:
    """Return the files of a part."""
    return [folder / record.folder / file.path for file in record.files]


def test_any_flipped_bit(written: tuple[Path, PartRecord]) -> None:
    """A bit flipped anywhere in any file is an error that names the file, or changes nothing that is delivered."""
    folder, record = written
    right = everything(open_video_part(open_storage(folder), record))
    generator, silent, unnamed = random.Random(0), [], []
    for path in files_of(folder, record):
        data = path.read_bytes()
        places = {0, len(data) - 1, *(generator.randrange(len(data)) for _ in range(6))}
        for place in places:
            harmed = bytearray(data)
            harmed[place] ^= 1 << generator.randrange(8)
            path.write_bytes(harmed)
            try:
                if everything(open_video_part(open_storage(folder), record)) != right:
                    silent.append((path.name, place))
            except StoreError as error:
                named = path.relative_to(folder / record.folder).as_posix() in str(error)
                if not named or not (error.offset is not None or "its hash is wrong" in str(error)):
                    unnamed.append((path.name, place, str(error)))
        path.write_bytes(data)

    assert silent == []
    assert unnamed == []


def test_every_byte_of_the_frames_is_checked(written: tuple[Path, PartRecord]) -> None:
    """Of the file that holds the frames, a change of any stretch that is delivered is noticed before it is."""
    folder, record = written
    (path,) = [path for path in files_of(folder, record) if "frames/c/" in path.as_posix() or path.suffix == ".tar"]
    data = path.read_bytes()
    right = everything(open_video_part(open_storage(folder), record))
    silent = []
    for place in range(0, len(data), max(1, len(data) // 50)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x80]) + data[place + 1 :])
        try:
            if everything(open_video_part(open_storage(folder), record)) != right:
                silent.append(place)
        except StoreError as error:
            if error.offset is None or error.offset > place:
                silent.append(place)
    path.write_bytes(data)

    assert silent == []


def test_cut_and_missing_files(layout: VideoLayout, tmp_path: Path) -> None:
    """A file that is gone, empty or shorter by a byte is noticed when the store is opened."""
    write_little_clips(tmp_path / "s.bx", layout)
    parts = [part.record for part in Store.open(tmp_path / "s.bx").video_parts("train")]
    for path in files_of(tmp_path / "s.bx", parts[0]):
        data = path.read_bytes()
        for harm in (b"", data[:-1], None):
            path.unlink()
            if harm is not None:
                path.write_bytes(harm)
            with pytest.raises(StoreError, match=r"missing|bytes instead of"):
                Store.open(tmp_path / "s.bx")
            path.write_bytes(data)


@pytest.mark.parametrize("harm", ["cut", "longer", "gone"])
def test_a_chunk_that_vanishes_later(written: tuple[Path, PartRecord], harm: str) -> None:
    """A file that is cut or removed behind an open store's back is an error on touch: it never reads as zeros."""
    folder, record = written
    part = open_video_part(open_storage(folder), record)
    for path in files_of(folder, record):
        if path.name == "zarr.json":
            continue
        data = path.read_bytes()
        path.unlink()
        if harm != "gone":
            path.write_bytes(data[: len(data) // 2] if harm == "cut" else data + bytes(512))
    for touch in (
        lambda: part.read_frames(0, part.frames),
        lambda: part.regions(0, 1),
        lambda: part.motion(0, 1),
        lambda: part.pts,
        lambda: part.scene_ends,
        part.video_meta,
    ):
        with pytest.raises(StoreError, match=r"00000\.(zarr|tar|index)"):
            touch()


def test_files_of_another_part(layout: VideoLayout, tmp_path: Path) -> None:
    """A file that is whole in itself, of another part of the same shape, is noticed: the manifest vouches for each."""
    folder, record = written_in(tmp_path / "one", layout, seed=1)
    other, _ = written_in(tmp_path / "two", layout, seed=2)
    right = everything(open_video_part(open_storage(folder), record))
    for path, foreign in zip(files_of(folder, record), files_of(other, record), strict=True):
        data = path.read_bytes()
        if foreign.read_bytes() != data:
            path.write_bytes(foreign.read_bytes().ljust(len(data), b"\0")[: len(data)])
            with pytest.raises(StoreError, match=r"damaged"):
                everything(open_video_part(open_storage(folder), record))
            path.write_bytes(data)
    assert everything(open_video_part(open_storage(folder), record)) == right


def test_what_is_whole_stays_readable(tmp_path: Path) -> None:
    """Damage in one block of raw frames, or one unit, is an error for clips that touch it, one and the same."""
    for name in ("zarr raw", "zarr h264", "tar raw", "tar jpeg"):
        arrays = little_part((((200,), 0),), 0)
        arrays = replace(arrays, frames=arrays.frames.repeat(4, 1).repeat(4, 2))  # 64 x 128: several blocks
        storage = open_storage(tmp_path / name)
        layout = LAYOUTS[name]
        record = write_video_part(
            storage, "train", layout.part_name(0), arrays, layout=layout, clip_frames=CLIP, spans=()
        )
        right = open_video_part(storage, record).read_frames(0, 200)
        path = max(files_of(tmp_path / name, record), key=lambda path: path.stat().st_size)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        part, said, whole = open_video_part(storage, record), set(), 0
        for start in range(197):
            try:
                np.testing.assert_array_equal(right[start : start + 4], part.read_frames(start, start + 4))
                whole += 1
            except StoreError as error:
                said.add((str(error), error.offset))

        assert len(said) == 1, name
        with pytest.raises(StoreError, match="damaged"):
            open_video_part(storage, record).read_frames(0, 200)
        assert whole > 150 or name == "zarr h264"  # whose coded frames are a single block here
        assert path.name in next(iter(said))[0]


def resigned(folder: Path, record: PartRecord) -> PartRecord:
    """Return the record of a part with the hashes of the files that lie there, as a forger would."""
    files = []
    for file in record.files:
        data = (folder / record.folder / file.path).read_bytes()
        files.append(FileRecord(path=file.path, size=len(data), sha256=FileRecord.hash_of(data)))
    return replace(record, files=tuple(files))


def forged_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path, PartRecord], None]:
    """Return what changes the zarr.json of an array."""

    def harm(folder: Path, record: PartRecord) -> None:
        path = folder / record.folder / name / "zarr.json"
        plain = json.loads(path.read_text())
        change(plain)
        path.write_text(json.dumps(plain))

    return harm


FORGED = {
    "fewer frames": forged_json("frames", lambda plain: plain.update(shape=[3, 16, 32, 3])),
    "another size": forged_json("frames", lambda plain: plain.update(shape=[34, 32, 16, 3])),
    "another axis": forged_json("frames", lambda plain: plain.update(shape=[34, 16, 96])),
    "endless": forged_json("frames", lambda plain: plain.update(shape=[2**62, 16, 32, 3])),
    "negative": forged_json("regions", lambda plain: plain.update(shape=[34, -3, 4])),
    "many boxes": forged_json("regions", lambda plain: plain.update(shape=[34, 2**40, 4])),
    "five numbers a box": forged_json("motion", lambda plain: plain.update(shape=[34, 2, 5])),
    "other numbers": forged_json("pts", lambda plain: plain.update(data_type="int64")),
    "chunks of none": forged_json(
        "frames", lambda plain: plain["chunk_grid"]["configuration"].update(chunk_shape=[0, 16, 32, 3])
    ),
    "tiny chunks": forged_json(
        "frames", lambda plain: plain["chunk_grid"]["configuration"].update(chunk_shape=[1, 16, 32, 3])
    ),
    "no checksums": forged_json("frames", lambda plain: plain["attributes"].clear()),
    "no codec": forged_json("frames", lambda plain: plain.update(codecs=[])),
    "a list": forged_json("scene_ends", lambda plain: plain.update(shape=7)),
}


@pytest.mark.parametrize("what", list(FORGED))
@pytest.mark.parametrize("name", ["zarr raw", "zarr zstd"])
def test_forged_metadata(name: str, what: str, tmp_path: Path) -> None:
    """Metadata under a right hash that cannot be of this part is an error in one line, without memory taken for it."""
    folder, record = written_in(tmp_path, LAYOUTS[name])
    FORGED[what](folder, record)
    if name == "zarr zstd" and "chunks" in what:
        pytest.skip("a sharded array's chunks are its codec's")
    with pytest.raises(StoreError, match=r"makes no sense") as caught:
        everything(open_video_part(open_storage(folder), resigned(folder, record)))
    assert "\n" not in str(caught.value)


def picture(height: int, width: int, mode: str = "RGB") -> bytes:
    """Return a JPEG file."""
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "JPEG")
    return file.getvalue()


def movie(height: int, width: int, count: int) -> bytes:
    """Return an mp4 file of h264."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("codec", "unit"),
    [
        ("jpeg", b""),
        ("jpeg", b"\xff\xd8\xff\xd9"),
        ("jpeg", b"no picture at all"),
        ("jpeg", picture(32, 16)),
        ("jpeg", picture(16, 33)),
        ("jpeg", picture(16, 32, "L")),
        ("jpeg", picture(16, 32, "CMYK")),
        ("jpeg", picture(16, 32)[:200]),
        (
            "jpeg",
            picture(16, 32).replace(b"\xff\xc0\x00\x11\x08\x00\x10\x00\x20", b"\xff\xc0\x00\x11\x08\x40\x00\x40\x00"),
        ),
        ("h264", b"no movie"),
        ("h264", movie(32, 16, 4)),
        ("h264", movie(16, 32, 3)),
        ("h264", movie(16, 32, 5)),
        ("h264", movie(16, 32, 4)[:-500]),
    ],
)
def test_units_that_are_none(codec: str, unit: bytes, tmp_path: Path) -> None:
    """A coded unit under right checksums that holds other frames than it should is an error, never other frames."""
    layout = LAYOUTS[f"zarr {codec}"]
    storage = open_storage(tmp_path)
    arrays = little_part((((4,), 0),), 0)
    record = write_video_part(storage, "train", "00000.zarr", arrays, layout=layout, clip_frames=CLIP, spans=())
    coded = open_video_part(storage, record).arrays()
    ends = np.array([len(unit)] if codec == "h264" else np.arange(1, 5) * len(unit))
    data = np.frombuffer(unit * len(ends), np.uint8)
    forged = replace(coded, frames=replace(coded.frames, data=data, unit_ends=ends))  # type: ignore[type-var]
    if not unit:
        forged = replace(coded, frames=replace(coded.frames, unit_ends=np.array([0, 0, 0, 0])))  # type: ignore[type-var]
    record = write_video_part(storage, "train", "00001.zarr", forged, layout=layout, clip_frames=CLIP, spans=())
    with pytest.raises(StoreError, match="makes no sense"):
        open_video_part(storage, record).read_frames(0, 4)


INDEXES: dict[str, Callable[[Any, Any], object]] = {
    "stops fall": lambda samples, frames: samples["stop"].__setitem__(1, 1),
    "stops end early": lambda samples, frames: samples["stop"].__setitem__(-1, 33),
    "a video is left out": lambda samples, frames: samples["video"].__setitem__(-1, 3),
    "a scene is left out": lambda samples, frames: samples["scene"].__setitem__(slice(2, None), 9),
    "a negative place": lambda samples, frames: samples["json_at"].__setitem__(0, -5),
    "a picture before the tar": lambda samples, frames: frames["at"].__setitem__(0, -5),
}


@pytest.mark.parametrize("what", list(INDEXES))
def test_forged_index(what: str, tmp_path: Path) -> None:
    """An index under a right hash that cannot be of this part is an error."""
    folder, record = written_in(tmp_path, LAYOUTS["tar jpeg"])
    path = folder / "parts" / "train" / "00000.index"
    data = path.read_bytes()
    size = len(npy_header(FRAME, (34,))) + 34 * FRAME.itemsize
    samples, frames = from_npy(data[:-size], SAMPLE).copy(), from_npy(data[-size:], FRAME).copy()
    INDEXES[what](samples, frames)
    path.write_bytes(as_npy(samples) + as_npy(frames))
    with pytest.raises(StoreError, match="makes no sense"):
        everything(open_video_part(open_storage(folder), resigned(folder, record)))


@pytest.mark.parametrize(
    "change",
    [
        {"frames": -1},
        {"frames": 0},
        {"frames": 2**61},
        {"frame_shape": [16]},
        {"frame_shape": [16, -32]},
        {"frame_shape": [1 << 20, 1 << 20]},
        {"frame_shape": [16, 32, 3]},
        {"n_bytes": 7},
        {"clip_frames": 0},
        {"clip_frames": 1 << 40},
        {"documents": 0},
        {"documents": 99},
        {"patch_lengths": [1, 2]},
        {"format": "raw"},
        {"codec": "gif"},
        {"name": "../00000.zarr"},
    ],
)
def test_a_manifest_of_absurd_numbers(change: dict[str, Any], tmp_path: Path) -> None:
    """A signed manifest whose numbers cannot be those of a part of video is not opened."""
    write_little_clips(tmp_path / "s.bx", VideoLayout())
    path = tmp_path / "s.bx" / "manifest.json"
    plain = json.loads(path.read_text())
    plain["parts"][0].update(change)
    path.write_bytes(signed(plain))
    with pytest.raises(StoreError, match=r"do not trust it|unknown here|no path inside"):
        Store.open(tmp_path / "s.bx")


def test_kinds_and_versions(tmp_path: Path) -> None:
    """A store of video says so in its version, so that older readers refuse it; a kind that nobody knows is refused."""
    write_little_clips(tmp_path / "s.bx", VideoLayout())
    path = tmp_path / "s.bx" / "manifest.json"
    plain = json.loads(path.read_text())
    store = Store.open(tmp_path / "s.bx")

    assert plain["format_version"] == VIDEO_VERSION == 4
    assert store.splits == ["train", "val"]
    assert len(store.video_parts("test")) == 0
    for ask in (lambda: store.parts("train"), store.patcher):
        with pytest.raises(StoreError, match=r"a store of video, where one of bytes is needed; ClipStream"):
            ask()
    for kind, message in (("sequences", "this bytropix knows bytes, video"), ("bytes", "in a store of bytes")):
        path.write_bytes(signed(plain | {"kind": kind}))
        with pytest.raises(StoreError, match=message):
            Store.open(tmp_path / "s.bx")


def test_many_parts_lie_in_lists(tmp_path: Path) -> None:
    """Many parts lie in lists, each is looked for when it is asked for, and few are open at a time."""
    folder, record = written_in(tmp_path / "s.bx", VideoLayout())
    records = [replace(record, name=f"{number:05d}.zarr") for number in range(80)]
    for one in records[1:]:
        shutil.copytree(folder / record.folder, folder / one.folder)
    storage = open_storage(folder)
    storage.write("quarantine.jsonl", b"")
    manifest = Manifest(
        format_version=1,
        kind="video",
        config={},
        patcher={},
        babylon=(),
        sources=(),
        parts=tuple(records),
        quarantine=FileRecord(path="quarantine.jsonl", size=0, sha256=FileRecord.hash_of()),
        quarantined=0,
    )
    publish(storage, manifest, listing=Listing(inline=8, list_bytes=50_000))
    parts = Store.open(folder).video_parts("train")

    assert Store.open(folder).manifest.format_version == VIDEO_VERSION
    assert len(list((folder / "lists").iterdir())) > 1
    assert parts.sizes.tolist() == [record.n_bytes] * 80
    right = parts[0].read_frames(0, 34)
    for part in parts:
        np.testing.assert_array_equal(right, part.read_frames(0, 34))
    assert 1 <= len(parts._open) <= 64
    shutil.rmtree(folder / "parts" / "train" / "00079.zarr")
    with pytest.raises(StoreError, match=r"00079.zarr.*missing"):
        Store.open(folder).video_parts("train")[79]
