"""Streams of clips over what is harmed, foreign or far away: an error in one line or a counted loss, no wrong data."""

import json
import shutil
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from bytropix.datasets import ByteStream, ClipBatch, ClipStream
from bytropix.datasets.store import Store, open_storage
from bytropix.errors import ConfigError, StoreError
from bytropix.jobs.bench.clip_store import LAYOUTS

LAST_PART = "parts/train/00002"


def stream_of(place: Path | str, **flags: Any) -> ClipStream:
    """Return a stream of an epoch of overlapping clips."""
    return ClipStream(Store.open(place), **({"batch": 6, "seed": 1, "epochs": 1, "last": "short", "hop": 1} | flags))


def rows_of(batches: Any) -> list[tuple[int, int, bytes]]:
    """Return the rows of batches as values that compare."""
    return [
        (video, start, frames.tobytes())
        for batch in batches
        for video, start, frames in zip(batch.video.tolist(), batch.start.tolist(), batch.frames.numpy(), strict=True)
    ]


def harmed(source: Path, target: Path) -> Path:
    """Copy a store and flip a bit in the middle of the frames of its last train part."""
    shutil.copytree(source, target)
    file = target / f"{LAST_PART}.tar"
    if file.exists():
        with tarfile.open(file) as tar:
            members = [one for one in tar.getmembers() if one.name.endswith((".frames.npy", ".jpg", ".mp4"))]
        middle = members[len(members) // 2]
        place = middle.offset_data + middle.size // 2
    else:
        chunks = target / f"{LAST_PART}.zarr" / "frames" / "c"
        file = next(path for path in chunks.rglob("0") if path.is_file())
        place = file.stat().st_size // 2
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)
    return target


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("layout", ["zarr raw", "zarr jpeg", "tar h264"])
def test_damage_is_an_error_and_never_data(
    tmp_path: Path, clip_store: Callable[[str], Path], layout: str, workers: int
) -> None:
    """One flipped bit stops the epoch with the file's name; what came before it is right."""
    path = harmed(clip_store(layout), tmp_path / "harmed.bx")
    right = rows_of(stream_of(clip_store(layout)))
    delivered: list[ClipBatch] = []
    loader = DataLoader(stream_of(path), batch_size=None, num_workers=workers)
    with pytest.raises(StoreError, match=rf"{LAST_PART}.*at byte \d+.*damaged"):
        delivered.extend(loader)

    assert rows_of(delivered) == right[: 6 * len(delivered)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_quarantine_leaves_out_and_counts(tmp_path: Path, clip_store: Callable[[str], Path], layout: str) -> None:
    """Clips that touch damage come empty, all others as they are; the damage is listed once, whoever touches it."""
    path = harmed(clip_store(layout), tmp_path / "harmed.bx")
    stream = stream_of(path, checks="quarantine", budget=1)
    found, right = rows_of(stream), rows_of(stream_of(clip_store(layout)))
    lost = [one for one, other in zip(found, right, strict=True) if one != other]

    assert 0 < len(lost) < len(right)
    assert all(video == -1 and start == 0 and not any(frames) for video, start, frames in lost)
    assert [(damage.array, damage.blocks) for damage in stream.quarantined] == [("frames", 1)]
    assert LAST_PART in stream.quarantined[0].reason
    with pytest.raises(StoreError, match="that makes 1 damaged blocks, more than the 0 that may be left out"):
        rows_of(stream_of(path, checks="quarantine"))


@pytest.mark.parametrize("name", ["regions", "motion"])
@pytest.mark.parametrize("layout", ["zarr raw", "zarr zstd", "tar jpeg"])
def test_damage_in_the_very_first_boxes_can_be_left_out(
    tmp_path: Path, clip_store: Callable[[str], Path], layout: str, name: str
) -> None:
    """A stream opens over damaged boxes of the first part: its clips come empty, those of other parts as they are."""
    path = tmp_path / "harmed.bx"
    shutil.copytree(clip_store(layout), path)
    file = path / "parts/train/00000.tar"
    if file.exists():
        with tarfile.open(file) as tar:
            place = next(one for one in tar if one.name.endswith(f".{name}.npy")).offset_data + 129
    else:
        file, place = path / f"parts/train/00000.zarr/{name}/c/0/0/0", 1
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)
    stream = stream_of(path, checks="quarantine", budget=1)
    found, right = rows_of(stream), rows_of(stream_of(clip_store(layout)))
    lost = [other for one, other in zip(found, right, strict=True) if one != other]

    assert 0 < len(lost) < len(right)
    assert {video for video, *_ in lost} <= {0, 1}  # the first part's
    assert {one[0] for one in found if one not in right} == {-1}
    assert "parts/train/00000" in stream.quarantined[0].reason
    with pytest.raises(StoreError, match=r"parts/train/00000.*damaged"):
        rows_of(stream_of(path))


def test_unchecked_frames_come_as_they_are(tmp_path: Path, clip_store: Callable[[str], Path]) -> None:
    """With checks off, a mapped part is read as it lies: one pixel is wrong, in the clips that it is in."""
    path = harmed(clip_store("zarr raw"), tmp_path / "harmed.bx")
    found, right = rows_of(stream_of(path, checks="off")), rows_of(stream_of(clip_store("zarr raw")))
    wrong = [
        sum(one != other for one, other in zip(here[2], there[2], strict=True))
        for here, there in zip(found, right, strict=True)
        if here != there
    ]

    assert wrong == [1] * 4


def test_a_missing_part_is_named_at_opening(tmp_path: Path, clip_store: Callable[[str], Path]) -> None:
    """What the manifest names must be there before anything is read."""
    shutil.copytree(clip_store("tar jpeg"), tmp_path / "short.bx")
    (tmp_path / f"short.bx/{LAST_PART}.tar").unlink()
    with pytest.raises(StoreError, match=rf"{LAST_PART}.tar: missing"):
        stream_of(tmp_path / "short.bx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "0" * 64}, "the fingerprint of this stream is .* resume from has 0000"),
        ({"split": "val"}, "the split of this stream is train, the state to resume from has val"),
        ({"clips": "4/4/1"}, "the clips of this stream is 4/1/1, the state to resume from has 4/4/1"),
        ({"order": 1}, "counts windows in order 1, this version reads in order 2"),
        ({"position": 10**9}, "damaged: position 1000000000 of epoch 0, an epoch has 5. clips"),
        ({"epoch": 2**40}, "damaged: position 0 of epoch 1099511627776"),
        ({"position": 1.5}, "not the state of a clip stream"),
        ({"position": -1}, "damaged: position -1"),
        ({"seed": "many"}, "not the state of a clip stream"),
    ],
)
def test_a_foreign_state_is_refused(clip_store: Callable[[str], Path], change: dict[str, Any], message: str) -> None:
    """A state of another store, split or cut, or a damaged one, names what differs and moves nothing."""
    stream = stream_of(clip_store("zarr raw"))
    before = stream.state_dict()
    with pytest.raises(StoreError, match=message) as caught:
        stream.load_state_dict(before | change)

    assert stream.state_dict() == before
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flags", [{"hop": 2}, {"clip_frames": 3}, {"steps": (1, 2)}, {"cross_cuts": True}])
def test_another_cut_is_refused(clip_store: Callable[[str], Path], flags: dict[str, Any]) -> None:
    """Clips that are cut otherwise are other clips: a position means nothing among them."""
    state = stream_of(clip_store("zarr raw")).state_dict()
    with pytest.raises(StoreError, match=r"the clips of this stream is .*, the state to resume from has 4/1/1"):
        stream_of(clip_store("zarr raw"), **flags).load_state_dict(state)


def test_a_byte_streams_state_is_refused(clip_store: Callable[[str], Path]) -> None:
    """It is none of clips, and a state that something is cut from is never guessed at."""
    stream = stream_of(clip_store("zarr raw"))
    for name in stream.state_dict():
        state = {key: value for key, value in stream.state_dict().items() if key != name}
        with pytest.raises(StoreError, match=r"not the state of a clip stream|counts windows in order 1"):
            stream.load_state_dict(state)


def test_a_state_is_small(clip_store: Callable[[str], Path]) -> None:
    """At most 256 bytes as JSON, also far into a long training with the longest of rules."""
    steps = (1, *[999] * 7)
    stream = stream_of(
        clip_store("zarr raw"), hop=999_999, steps=steps, cross_cuts=True, seed=-(2**40), epochs=None, last="fill"
    )
    stream.skip(10**11)

    assert stream.state_dict()["epoch"] > 10**9
    assert len(json.dumps(stream.state_dict() | {"lead": 99})) <= 256


def test_unusable_settings_are_refused(clip_store: Callable[[str], Path], store_paths: dict[str, Path]) -> None:
    """No clip that fits, a split that is not there, a store of bytes: each says what would work."""
    path = clip_store("zarr raw")
    with pytest.raises(
        StoreError, match="each of its 10 scenes is shorter than 31 frames, the longest has 30; take few"
    ):
        stream_of(path, clip_frames=31)
    with pytest.raises(StoreError, match="each of its 10 scenes is shorter than 31 frames"):
        stream_of(path, steps=(10, 20))
    with pytest.raises(StoreError, match=r"split 'test' holds no videos \(splits: train, val\)"):
        stream_of(path, split="test")
    with pytest.raises(ConfigError, match=r"flip is the share of clips .* in 0..1, got 1.5"):
        stream_of(path, flip=1.5)
    with pytest.raises(ConfigError, match="batch must be at least 1 clip, got 0"):
        stream_of(path, batch=0)
    with pytest.raises(ConfigError, match="4 ranks do not divide a batch of 6 clips"):
        stream_of(path, ranks=4)
    with pytest.raises(StoreError, match=r"small.bx"):
        ClipStream(Store.open(store_paths["none"]), batch=1)
    with pytest.raises(StoreError, match=r"zarr-raw.bx.*ClipStream"):
        ByteStream(Store.open(path), context=8, batch=1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"steps": (1.5,)}, "steps must be 1 to 8 whole numbers in 1..999, got (1.5,)"),
        ({"steps": 2}, "steps must be 1 to 8 whole numbers in 1..999, got 2"),
        ({"steps": "12"}, "steps must be 1 to 8 whole numbers in 1..999, got '12'"),
        ({"steps": ()}, "steps must be 1 to 8 whole numbers in 1..999, got ()"),
        ({"steps": (True,)}, "steps must be 1 to 8 whole numbers in 1..999, got (True,)"),
        ({"clip_frames": True}, "clip_frames must be a whole number, got True"),
        ({"clip_frames": 8.5}, "clip_frames must be a whole number, got 8.5"),
        ({"clip_frames": "8"}, "clip_frames must be a whole number, got '8'"),
        ({"hop": 2.5}, "hop must be a whole number, got 2.5"),
        ({"flip": "x"}, "flip is the share of clips that are mirrored and must be in 0..1, got 'x'"),
        ({"flip": True}, "flip is the share of clips that are mirrored and must be in 0..1, got True"),
        ({"batch": 2.5}, "batch must be a whole number, got 2.5"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": "1"}, "seed must be a whole number, got '1'"),
        ({"ranks": 1.0}, "ranks must be a whole number, got 1.0"),
        ({"epochs": 0.5}, "epochs must be a whole number, got 0.5"),
        ({"checks": "quarantine", "budget": "2"}, "budget must be a whole number, got '2'"),
    ],
)
def test_settings_of_another_type_are_refused(
    clip_store: Callable[[str], Path], flags: dict[str, Any], message: str
) -> None:
    """Each is told by name, with its value and what it must be, before a batch is asked for."""
    with pytest.raises(ConfigError) as caught:
        stream_of(clip_store("zarr raw"), **flags)

    assert str(caught.value) == message


def test_whole_numbers_of_numpy_are_whole_numbers(clip_store: Callable[[str], Path]) -> None:
    """Settings computed with numpy give the same clips and a state that is plain data."""
    path, flags = clip_store("zarr raw"), {"batch": 6, "seed": 3, "hop": 2, "clip_frames": 4}
    found = stream_of(path, steps=np.array([1, 2]), **{name: np.int64(value) for name, value in flags.items()})
    right = stream_of(path, steps=(1, 2), **flags)

    assert rows_of(found) == rows_of(right)
    assert json.loads(json.dumps(found.state_dict())) == right.state_dict()


def test_persistent_workers_are_refused_a_second_pass(clip_store: Callable[[str], Path]) -> None:
    """They have read further than what was delivered, as those of a byte stream have."""
    loader = DataLoader(stream_of(clip_store("zarr raw")), batch_size=None, num_workers=1, persistent_workers=True)
    list(islice(loader, 2))
    with pytest.raises(ConfigError, match="persistent_workers"):
        list(islice(loader, 2))


@pytest.mark.parametrize("layout", ["zarr raw", "zarr zstd", "zarr h264", "tar jpeg"])
def test_clips_from_a_server(
    s3_bucket: str, clip_store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, layout: str
) -> None:
    """A store in a bucket gives the batches of the same store on disk, with an empty cache and with none."""
    source = clip_store(layout)
    url = f"{s3_bucket}/{source.name}"
    target = open_storage(url)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        target.write(file.relative_to(source).as_posix(), file.read_bytes())
    expected = rows_of(stream_of(source))
    for cache in ("20000000", "0"):
        monkeypatch.setenv("BYTROPIX_CACHE", str(tmp_path / cache))
        monkeypatch.setenv("BYTROPIX_CACHE_BYTES", cache)

        assert rows_of(stream_of(url)) == expected
