"""Stores of video converted, verified and mended."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.datasets.store import (
    CodedFrames,
    FileRecord,
    PartRecord,
    Store,
    VideoArrays,
    VideoLayout,
    open_storage,
    open_video_part,
    publish,
)
from bytropix.datasets.store.video_formats import encode_video
from bytropix.errors import ConfigError, StoreError
from bytropix.jobs.bench.clip_store import LAYOUTS
from bytropix.jobs.cli import main
from bytropix.jobs.film import make_films
from bytropix.pipelines.runner import local_runner
from bytropix.pipelines.tools.convert import convert, same_frames
from bytropix.pipelines.tools.repair import repair
from bytropix.pipelines.tools.verify import Verified, verify
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video

Tree = Callable[[Path], dict[str, bytes]]
CONFIG = VideoConfig(size=(32, 48), clip_frames=8, part_bytes=200_000, val_fraction=0.4)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two films and a file that is none; not to be changed."""
    folder = tmp_path_factory.mktemp("films")
    made = make_films(folder)
    for film in made.films:
        if film.path.name not in ("shapes.mp4", "cuts.mp4"):
            film.path.unlink()
    for path in made.refused[1:]:
        path.unlink()
    return folder


@pytest.fixture(scope="session")
def raw(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of the films in raw Zarr parts, some films longer than a part; not to be changed."""
    out = tmp_path_factory.mktemp("video") / "raw.bx"
    return ingest_video([films], out, CONFIG, max_bad=1.0).store.path


@pytest.fixture(scope="session")
def stores(raw: Path) -> dict[str, Path]:
    """Return the store in every layout; not to be changed."""
    made = {"zarr raw": raw}
    with local_runner(1) as runner:
        for name, layout in LAYOUTS.items():
            if name not in made:
                source = made["zarr jpeg"] if name == "tar jpeg" else raw
                source = made["zarr h264"] if name == "tar h264" else source
                made[name] = raw.parent / f"{name.replace(' ', '-')}.bx"
                convert(str(source), str(made[name]), layout, runner)
    return made


def verified(store: Path, **flags: Any) -> Verified:
    """Verify a store here."""
    with local_runner(1) as runner:
        return verify(str(store), runner, **flags)


def converted(source: Path, out: Path, layout: VideoLayout) -> Path:
    """Convert a store here."""
    with local_runner(1) as runner:
        convert(str(source), str(out), layout, runner)
    return out


def pieces(store: Path) -> list[list[bytes]]:
    """Return what each part of a store holds, its frames as they are kept."""
    found = []
    for split in Store.open(store).splits:
        for part in Store.open(store).video_parts(split):
            arrays = part.arrays()
            frames = arrays.frames.data if isinstance(arrays.frames, CodedFrames) else arrays.frames
            sides = (arrays.regions, arrays.motion, arrays.pts, arrays.video_ends, arrays.scene_ends)
            found.append([frames.tobytes(), *(side.tobytes() for side in sides), arrays.video_meta])
    return found


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_there_and_back(stores: dict[str, Path], name: str, tmp_path: Path, tree: Tree) -> None:
    """A conversion into the other format and back is the same store, byte for byte; in between nothing is lost."""
    source = stores[name]
    own = LAYOUTS[name]
    other = VideoLayout(format="zarr" if own.format == "webdataset" else "webdataset")
    between = converted(source, tmp_path / "between.bx", same_frames(Store.open(source).manifest, other))
    back = converted(between, tmp_path / "back.bx", own)

    assert {part.record.format for part in Store.open(between).video_parts("train")} == {other.format}
    assert pieces(source) == pieces(between)
    assert tree(source) == tree(back)
    assert verified(between).faults == ()


def test_frames_are_coded_anew_when_asked(stores: dict[str, Path], tmp_path: Path) -> None:
    """Raw frames become jpeg as an ingest would have made them; jpeg becomes raw as it is decoded."""
    asked = converted(stores["zarr raw"], tmp_path / "a.bx", VideoLayout(frame_codec="jpeg"))
    assert pieces(asked) == pieces(stores["tar jpeg"])
    words = ["convert", str(stores["tar jpeg"]), str(tmp_path / "b.bx"), "--frame-codec", "raw", "--workers", "1"]
    assert main(words) == 0
    plain = tmp_path / "b.bx"
    one, two = (Store.open(path).video_parts("train")[0] for path in (stores["tar jpeg"], plain))

    np.testing.assert_array_equal(one.read_frames(0, one.frames), two.read_frames(0, two.frames))


def test_conversion_resumes(stores: dict[str, Path], tmp_path: Path, tree: Tree) -> None:
    """A finished conversion has nothing to do; one into another kind of layout is refused."""
    out = tmp_path / "out.bx"
    shutil.copytree(stores["tar raw"], out)
    layout = LAYOUTS["tar raw"]
    with local_runner(1) as runner:
        assert convert(str(stores["zarr raw"]), str(out), layout, runner, resume=True).skipped > 2
        with pytest.raises(StoreError, match="another finished store"):
            convert(str(stores["zarr raw"]), str(out), LAYOUTS["tar jpeg"], runner, resume=True)
    assert tree(out) == tree(stores["tar raw"])


def test_convert_command(stores: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bytropix convert` keeps coded frames as they are; flags of the other kind are refused in one line."""
    words = ["convert", str(stores["zarr h264"]), str(tmp_path / "a.bx"), "--format", "webdataset", "--workers", "1"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes_stored"] > 0
    assert Store.open(tmp_path / "a.bx").video_parts("train")[0].record.codec == "h264"
    assert main([*words[:2], str(tmp_path / "b.bx"), "--codec", "zstd"]) == 2
    assert "--frame-codec packs its frames" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="must be one of jpeg, raw, h264"):
        VideoLayout(format="webdataset", frame_codec="zstd")


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_whole_store_has_no_faults(stores: dict[str, Path], name: str) -> None:
    """Every layout of a store that nobody touched is whole, long films and refused files included."""
    found = verified(stores[name])

    assert found.faults == ()
    assert found.warnings == ()
    names = [part.record.name for split in ("train", "val") for part in Store.open(stores[name]).video_parts(split)]
    assert any("-0001." in name for name in names)
    assert len(Store.open(stores[name]).quarantine()) == 1


@pytest.mark.parametrize("name", ["zarr raw", "zarr h264", "tar jpeg"])
def test_damage_is_located(stores: dict[str, Path], name: str, tmp_path: Path) -> None:
    """A flipped bit is named with its file and the block, member or unit it lies in."""
    store = tmp_path / "s.bx"
    shutil.copytree(stores[name], store)
    record = Store.open(store).video_parts("train")[0].record
    for file in record.files[::2]:
        path = store / record.folder / file.path
        data = bytearray(path.read_bytes())
        place = len(data) * 2 // 3
        data[place] ^= 16
        path.write_bytes(data)
        faults = verified(store).faults
        assert [fault.file for fault in faults] == [f"{record.folder}/{file.path}"]
        assert faults[0].offset is not None
        assert faults[0].offset <= place
        data[place] ^= 16
        path.write_bytes(data)
    assert verified(store).faults == ()


def rewritten(store: Path, change: Callable[[VideoArrays, PartRecord], tuple[VideoArrays, PartRecord]]) -> None:
    """Write the first train part with other content, and a manifest that vouches for it, as a wrong writer would."""
    opened = Store.open(store)
    storage, manifest = open_storage(store), opened.manifest
    place = next(place for place, record in enumerate(manifest.parts) if record.split == "train")
    record = manifest.parts[place]
    arrays, record = change(open_video_part(storage, record).arrays(), record)
    layout = VideoLayout(format=record.format, frame_codec=record.codec)  # type: ignore[arg-type]
    files = encode_video(arrays, layout, record.name, record.clip_frames)
    for file in files:
        storage.write(f"{record.folder}/{file.name}", b"".join(file.pieces))
    files_of = tuple(FileRecord(path=f.name, size=f.size, sha256=FileRecord.hash_of(*f.pieces)) for f in files)
    parts = list(manifest.parts)
    parts[place] = replace(record, files=files_of)
    publish(storage, replace(manifest, parts=tuple(parts)), replaces=opened.fingerprint, forget=True)


def changed(**fields: Callable[[Any], Any]) -> Callable[[VideoArrays, PartRecord], tuple[VideoArrays, PartRecord]]:
    """Return what changes copies of arrays, or fields of the record."""

    def change(arrays: VideoArrays, record: PartRecord) -> tuple[VideoArrays, PartRecord]:
        for name, how in fields.items():
            if hasattr(arrays, name) and name != "frames":
                value = getattr(arrays, name)
                arrays = replace(arrays, **{name: how(value.copy() if isinstance(value, np.ndarray) else value)})
            else:
                record = replace(record, **{name: how(getattr(record, name))})
        return arrays, record

    return change


def put(place: Any, value: Any) -> Callable[[Any], Any]:
    """Return what puts a value somewhere in an array."""

    def how(array: Any) -> Any:
        array[place] = value
        return array

    return how


def lose_frames(arrays: VideoArrays, record: PartRecord) -> tuple[VideoArrays, PartRecord]:
    """Let the last unit of coded frames be half of what it was."""
    assert isinstance(arrays.frames, CodedFrames)
    ends = arrays.frames.unit_ends
    data = arrays.frames.data[: (ends[-2] + ends[-1]) // 2]
    return replace(arrays, frames=replace(arrays.frames, data=data, unit_ends=np.append(ends[:-1], len(data)))), record


def other_span(**fields: Any) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return what changes the first span of a record."""
    return lambda spans: (replace(spans[0], **fields), *spans[1:])


RULES: dict[str, tuple[Any, str]] = {
    "box": (changed(regions=put((2, 0), (9, 9, 9, 12))), "regions of frame 2 hold the box"),
    "outside": (changed(motion=put((3, 0), (0, 0, 49, 12))), "motion of frame 3 hold the box"),
    "time": (changed(pts=put(4, 0.0)), "the time of frame 4 is not past the one before"),
    "meta": (changed(video_meta=lambda lines: lines.replace(b'"frames": ', b'"frames": 1', 1)), "row 0 of video_meta"),
    "source": (changed(spans=other_span(source="films/x.mp4")), "which is no source|where the manifest has films/x"),
    "count": (changed(spans=other_span(documents=7)), "of which its spans count"),
    "bytes": (changed(spans=other_span(n_bytes=12)), r"instead of 12|do not add up"),
    "patches": (changed(spans=other_span(patches=3)), "which is video"),
}


@pytest.mark.parametrize("what", list(RULES))
def test_every_rule_is_checked(raw: Path, tmp_path: Path, what: str) -> None:
    """Content under right hashes that breaks a rule is a fault of its part."""
    store = tmp_path / "s.bx"
    shutil.copytree(raw, store)
    change, message = RULES[what]
    rewritten(store, change)
    said = " | ".join(fault.fault for fault in verified(store).faults)

    assert any(piece in said for piece in message.split("|")), said
    assert verified(store, hashes_only=True).faults == () or what in ("source", "bytes")


@pytest.mark.parametrize("name", ["zarr h264", "tar h264", "zarr jpeg", "tar jpeg"])
def test_units_are_decoded_and_counted(stores: dict[str, Path], tmp_path: Path, name: str) -> None:
    """A unit that is cut short under right hashes is found by decoding it."""
    store = tmp_path / "s.bx"
    shutil.copytree(stores[name], store)
    rewritten(store, lose_frames)
    (fault,) = verified(store).faults

    assert "of the frames makes no sense" in fault.fault


def test_sides_and_sums(raw: Path, tmp_path: Path) -> None:
    """A film on the wrong side by its hash is a fault, and so is one that came in and is nowhere."""
    store = tmp_path / "s.bx"
    shutil.copytree(raw, store)
    opened = Store.open(store)
    config = {**opened.manifest.config, "val_fraction": 0.0}
    manifest = replace(opened.manifest, config=config)
    publish(open_storage(store), manifest, replaces=opened.fingerprint, forget=True)
    assert {"belongs to the other split" in fault.fault for fault in verified(store).faults} == {True}
    opened = Store.open(raw)
    assert opened.manifest.documents_in is not None
    shutil.rmtree(store)
    shutil.copytree(raw, store)
    manifest = replace(opened.manifest, documents_in=opened.manifest.documents_in + 1)
    publish(open_storage(store), manifest, replaces=opened.fingerprint, forget=True)
    (fault,) = verified(store).faults
    assert "videos came in" in fault.fault


def harm(store: Path) -> list[str]:
    """Damage a file of each kind that a store has besides its manifest; return their names."""
    names = []
    for path in sorted(store.rglob("*")):
        if path.is_file() and path.name != "manifest.json" and path.stat().st_size:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            names.append(path.relative_to(store).as_posix())
    return names


@pytest.mark.parametrize("name", ["zarr raw", "tar jpeg"])
def test_repair_from_a_copy(stores: dict[str, Path], name: str, tmp_path: Path, tree: Tree) -> None:
    """Damaged, cut and missing files are taken from a copy that has them whole, and from nothing else."""
    store, copy = tmp_path / "s.bx", tmp_path / "copy.bx"
    shutil.copytree(stores[name], store)
    shutil.copytree(stores[name], copy)
    harmed = harm(store)
    (store / harmed[-1]).unlink()
    with local_runner(1) as runner:
        mended = repair(verify(str(store), runner), runner, copies=[str(tmp_path / "none.bx"), str(copy)])

    assert sorted(mended.from_copy) == harmed
    assert (mended.from_store, mended.from_sources) == ((), ())
    assert tree(store) == tree(stores[name])


def test_repair_command_and_bad_copies(
    raw: Path, films: Path, tmp_path: Path, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that is damaged in the same place helps nobody; the sources, decoded again, do."""
    store = tmp_path / "raw.bx"
    shutil.copytree(raw, store)
    harm(store)
    shutil.copytree(store, tmp_path / "copy.bx")
    words = ["verify", str(store), "--workers", "1", "--repair", "--copies", str(tmp_path / "copy.bx")]
    assert main(words) == 2
    assert "--sources" in capsys.readouterr().err
    assert main([*words, "--sources", str(films)]) == 0
    assert "mended from sources" in capsys.readouterr().err
    assert tree(store) == tree(raw)


def test_repair_refuses_other_sources(raw: Path, films: Path, tmp_path: Path) -> None:
    """Sources that have changed give other files, and nothing is put in place."""
    store, other = tmp_path / "raw.bx", tmp_path / "films"
    shutil.copytree(raw, store)
    shutil.copytree(films, other)
    shutil.copyfile(films / "cuts.mp4", other / "shapes.mp4")
    harmed = harm(store)
    with (
        local_runner(1) as runner,
        pytest.raises(StoreError, match="do not give the file that was recorded"),
    ):
        repair(verify(str(store), runner), runner, sources=[str(other)])
    assert harmed
