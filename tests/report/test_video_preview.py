"""`bytropix preview`: a clip as `ClipStream` counts them, with its boxes, as a file that everything shows."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from bytropix.datasets.clip_stream import ClipStream
from bytropix.datasets.store import Store, VideoLayout
from bytropix.jobs.cli import main
from bytropix.jobs.drawing import LEVELS, MOTION, PATCH

CLIP, STRIDE, SCALE = 8, 4, 4  # of the store of films: frames of a clip, and from one to the next; 128 to 512 pixels
CLOSE = 60  # H.264 halves the resolution of colours


@pytest.fixture
def preview(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return what runs the command and gives its code, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["preview", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def decoded(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the frames of a film, u8 (t, h, w, 3)."""
    with av.open(path) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


def near(pixel: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> bool:
    """Whether a decoded pixel has about this colour."""
    return bool(np.abs(pixel.astype(np.int64) - colour).max() < CLOSE)


def test_a_film_shows_the_clip_with_its_boxes(
    films: Store, preview: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Eight frames of four times the size, a caption below; all boxes lie where the store says."""
    out = tmp_path / "clip.mp4"
    code, said, _ = preview(films.url, "--clip", 2, "--out", out, "--json")
    facts = json.loads(said)
    shown = decoded(out)

    assert code == 0
    assert shown.shape == (CLIP, facts["height"], facts["width"], 3)
    assert shown.shape[1] >= 96 * SCALE + 40
    assert shown.shape[2] == 128 * SCALE
    assert (facts["first"], facts["source"], facts["boxes"]) == (2 * STRIDE, "films/walk.mp4", [4] * CLIP)
    assert facts["seconds"] == pytest.approx(CLIP / 25)
    motion = films.video_parts("train")[0].motion(8, 16)[:, 0]
    for image, box in zip(shown, motion, strict=True):
        left, top, right, bottom = (round(float(side)) * SCALE for side in box)
        for row, column in ((top + 1, left + 1), (top + 1, right - 2), (bottom - 2, left + 1), (bottom - 2, right - 2)):
            assert near(image[row, column], MOTION)
        assert near(image[(top + bottom) // 2, (left + right) // 2], (230, 230, 220))
        assert near(image[48, 88 * SCALE], PATCH)
        assert near(image[200, 79 * SCALE - 1], LEVELS[1])
        assert near(image[1, 300], LEVELS[0]) or near(image[1, 400], LEVELS[0])
        assert near(image[20, 340], (40, 60, 90))


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_other_files_by_their_suffix(
    films: Store, preview: Callable[..., tuple[int, str, str]], tmp_path: Path, suffix: str
) -> None:
    """An animation has the frames of the clip, a sheet all of them at once."""
    out = tmp_path / f"clip.{suffix}"
    code, said, err = preview(films.url, "--out", out, "--size", 128)

    assert (code, said) == (0, "")
    assert re.fullmatch(r"wrote .*: 8 frames of 288 x \d+ from films/walk.mp4, 0:00.00 on\n", err)
    with Image.open(out) as read:
        assert getattr(read, "n_frames", 1) == (1 if suffix == "png" else CLIP)
        assert read.width == (288 * 3 + 16 if suffix == "png" else 288)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_what_is_there_stays_unless_told(
    films: Store, preview: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """A file that is there, a film of somebody's perhaps, is refused in one line and replaced on --overwrite."""
    out = tmp_path / "film.mp4"
    out.write_bytes(b"mine")
    code, said, err = preview(films.url, "--out", out)

    assert (code, said, err.count("\n")) == (2, "", 1)
    assert f"{out}: is there already; give --overwrite, or another place" in err
    assert out.read_bytes() == b"mine"
    assert preview(films.url, "--out", out, "--overwrite")[0] == 0
    assert len(decoded(out)) == CLIP
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_clips_are_those_of_the_stream(
    films: Store, preview: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Number by number they begin where the clips of an epoch begin: none is missing, none is another."""
    out = tmp_path / "clip.png"
    facts = []
    count = 1
    while len(facts) < count:
        _, said, _ = preview(films.url, "--clip", len(facts), "--out", out, "--size", 128, "--json", "--overwrite")
        facts.append(json.loads(said))
        count = facts[0]["clips"]
    batch = next(iter(ClipStream(films, batch=count, epochs=1, prefetch=False)))
    begins = sorted(zip(batch.video.tolist(), [round(float(pts[0]), 6) for pts in batch.pts], strict=True))
    names = ["films/walk.mp4", next(row["source"] for row in facts if "script" in row["source"]), "films/long.mp4"]

    assert sorted((names.index(row["source"]), round(row["begins"], 6)) for row in facts) == begins
    assert len({(row["part"], row["first"]) for row in facts}) == count


@pytest.mark.parametrize(
    "layout", [VideoLayout(format="webdataset"), VideoLayout(frame_codec="h264")], ids=["webdataset", "h264"]
)
def test_coded_stores_show_the_same(
    make_films: Callable[..., Store],
    preview: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    layout: VideoLayout,
) -> None:
    """Frames that lie as JPEG or H.264 are shown as those that lie raw, with the same boxes."""
    store = make_films(tmp_path / "f.bx", layout=layout)
    preview(store.url, "--clip", 1, "--out", tmp_path / "a.mp4")
    shown = decoded(tmp_path / "a.mp4")
    left, top = (round(float(side)) * SCALE for side in store.video_parts("train")[0].motion(4, 5)[0, 0, :2])

    assert len(shown) == CLIP
    assert near(shown[0, top + 1, left + 1], MOTION)
    assert near(shown[0, top + 48, left + 48], (230, 230, 220))


def test_what_cannot_be_is_said_in_one_line(
    films: Store, hostile: Store, preview: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """A clip past the last one names the range; a split without clips, a store of bytes, odd names are told."""
    out = tmp_path / "clip.mp4"
    clips = json.loads(preview(films.url, "--out", out, "--json")[1])["clips"]
    out.unlink()
    for words, said in (
        ((films.url, "--clip", clips, "--out", out), f"--clip must lie in 0..{clips - 1} for split 'train'"),
        ((films.url, "--clip", -1, "--out", out), f"0..{clips - 1}"),
        ((films.url, "--split", "val", "--out", out), "shorter than the 8 frames"),
        ((films.url, "--split", "test", "--out", out), "--split takes train, val"),
        ((hostile.url, "--out", out), "video"),
        ((films.url, "--out", tmp_path / "clip.avi"), ".mp4, .webp, .gif, .png"),
        ((films.url, "--out", tmp_path / "gone" / "clip.mp4"), "no folder"),
        ((films.url, "--out", out, "--size", 5), "16..4096"),
        ((films.url, "--out", out, "--fps", -1), "--fps"),
        ((tmp_path / "none.bx", "--out", out), "no such store"),
    ):
        code, printed, err = preview(*words)

        assert (code, printed, err.count("\n")) == (2, "", 1), words
        assert said in err
    assert list(tmp_path.iterdir()) == []


def test_fps_slows_a_clip_down(films: Store, preview: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """With --fps 5 eight frames take 1.6 seconds, whatever the video's rate."""
    out = tmp_path / "clip.mp4"
    preview(films.url, "--out", out, "--fps", 5)
    with av.open(out) as film:
        times = [frame.time for frame in film.decode(video=0)]

    assert times == pytest.approx([0.2 * number for number in range(CLIP)])
