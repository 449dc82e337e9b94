"""The whole line of video through the program: films to store, checks, other formats, pictures, and the demo."""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from bytropix.datasets.store import Store
from bytropix.jobs.cli import main
from bytropix.jobs.film import FilmSet, make_films
from bytropix.jobs.videos import all_videos

INGEST = ("--size", 96, 160, "--clip-frames", 8, "--val-fraction", 0, "--max-bad", 1, "--workers", 2)
# Every file that may not be in a store, and the beginning of why. The rest of `hostile/video` can be read to its end.
REFUSED = {
    "bitflips/flower_2000_flips.mp4": "damaged",
    "truncated/enwiki_200k.xml.bz2": "no video but compressed",
    "truncated/flower_70_percent.webm": "cut off",
    "truncated/flower_first_half.mp4": "cut off",
    "truncated/mrna_half.fasta.gz": "no video but compressed",
    "truncated/paper-100k.pdf": "no video but text",
    "video/androidx/sample_audio_only.mp4": "no video stream",
    "video/corrupted.mp4": "damaged",
    "video/invalid-bitstream.webm": "damaged",
    "video/invalid-codec.webm": "no decoder for its codec",
    "video/sample_fragmented_clearkey.mp4": "not a video",
    "video/sample_fragmented_sideloaded_track.mp4": "not a video",
    "video/sample_malformed_free_box.mp4": "no index",
    "video/sample_with_invalid_nalu.mp4": "damaged",
    "video/sample_with_junk": "damaged",
}


TINY_VIDEO = Path(__file__).parents[1] / "jobs" / "tiny-video.toml"


def _report_tests() -> Any:
    """Return what the tests of the page share, where the browser is."""
    place = Path(__file__).parents[1] / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("page_tests", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


browser = _report_tests().browser


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> FilmSet:
    """Return the small films, two bad files among them."""
    return make_films(tmp_path_factory.mktemp("line") / "films")


@pytest.fixture(scope="module")
def store(bytropix_program: Any, films: FilmSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of the films, made by the program; not to be changed."""
    path = tmp_path_factory.mktemp("line") / "films.bx"
    done = bytropix_program("ingest", "video", films["tall"].path.parent, "--out", path, *INGEST)
    assert done.returncode == 0, done.stderr
    assert "4 (0 in val)" in done.stderr
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """Run a command that has to end well and return its JSON."""
    code = main([*map(str, words), "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def test_the_store_says_what_is_in_it(films: FilmSet, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames, seconds and scenes of each film, its true cuts, and the two bad files with the reason."""
    report = run(capsys, "inspect", store)
    videos = {row["source"]: row for row in report["videos"]}

    assert sorted(videos) == [f"films/{film.path.name}" for film in sorted(films.films, key=lambda film: film.path)]
    for film in films.films:
        row = videos[f"films/{film.path.name}"]
        assert row["frames"] == len(film.images)
        assert row["seconds"] == pytest.approx(len(film.images) / film.fps, abs=0.01)
        assert row["scenes"] == 1 + len(film.cuts)
    refused = {Path(row["path"]).name: row["reason"] for row in report["quarantine"]}
    assert sorted(refused) == sorted(path.name for path in films.refused)
    assert refused["damaged.mp4"].startswith("damaged")


def test_the_motion_regions_follow_the_shapes(films: FilmSet, store: Path) -> None:
    """In most frames some motion region lies over the square or the disc (IoU above 0.3)."""
    film = films["shapes"]
    opened = Store.open(str(store))
    part = opened.video_parts("train")[0]
    rows = part.video_meta()
    number = [row["source"] for row in rows].index("films/shapes.mp4")
    begin = int(part.video_ends[number - 1]) if number else 0
    motion = part.motion(begin, begin + rows[number]["frames"])
    # 180 x 320 became 96 x 160 by a scale of 96 / 180 and the middle 160 of 170.7 columns.
    truth = film.boxes * (96 / 180) - np.array([5.33, 0, 5.33, 0], np.float32)
    followed = [
        max(_iou(box, shape) for box in boxes for shape in shapes)
        for boxes, shapes in zip(motion[1:], truth[1:], strict=True)
    ]

    assert np.mean(np.array(followed) > 0.3) > 0.9


def test_a_store_is_whole_until_a_byte_is_not(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verify ends with 0, and with another code once a byte of the frames has changed, which it names."""
    copy = tmp_path / "copy.bx"
    shutil.copytree(store, copy)
    assert main(["verify", str(copy)]) == 0
    frames = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(frames.read_bytes())
    data[len(data) // 2] ^= 1
    frames.write_bytes(data)
    capsys.readouterr()

    assert main(["verify", str(copy)]) != 0
    assert "frames" in "".join(capsys.readouterr())


def test_both_formats_become_one_another(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tree: Callable[[Path], dict[str, bytes]]
) -> None:
    """Zarr to WebDataset and back is the same files; the one between is sound and streams."""
    run(capsys, "convert", store, tmp_path / "tar.bx", "--format", "webdataset")
    assert main(["verify", str(tmp_path / "tar.bx")]) == 0
    capsys.readouterr()
    run(capsys, "convert", tmp_path / "tar.bx", tmp_path / "back.bx", "--format", "zarr")

    assert list((tmp_path / "tar.bx").rglob("*.tar"))
    parts = {name: data for name, data in tree(store).items() if name.startswith("parts")}
    assert parts == {name: data for name, data in tree(tmp_path / "back.bx").items() if name.startswith("parts")}


def test_another_run_with_other_workers_is_the_same_store(
    films: FilmSet, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tree: Callable[..., Any]
) -> None:
    """Bit for bit."""
    words = ("ingest", "video", films["tall"].path.parent, "--out", tmp_path / "films.bx", *INGEST[:-1], 1)
    run(capsys, *words)

    assert tree(store) == tree(tmp_path / "films.bx")


def test_a_clip_is_drawn_into_a_film(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight frames of H.264, with boxes in them that the stored frames have not."""
    out = tmp_path / "clip.mp4"
    run(capsys, "preview", store, "--clip", 1, "--out", out, "--size", 320)
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    assert len(frames) == 8
    assert np.unique(frames[0][:, :, 0]).size > 20


def test_the_demo_shows_its_films(bytropix_program: Any, browser: Any, tmp_path: Path) -> None:
    """Films, store, page and clip are there; the page is whole in a browser and asks for nothing."""
    folder = tmp_path / "demo"
    done = bytropix_program("demo", "video", "--folder", folder, "--no-model")
    assert done.returncode == 0, done.stderr
    assert f"page: {folder / 'report.html'} (open it in a browser; it needs no network)" in done.stdout.splitlines()
    assert re.search(r"streamed \d+ clips, [\d,]+ a second", done.stdout)
    assert "films/notes.mp4: no video" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["clip.webp", "films", "films.bx", "report.html"]

    page = (folder / "report.html").as_uri()
    browser.open(page, width=1280, height=900)
    browser.evaluate("scrollTo(0, document.body.scrollHeight)")
    complaints = [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert {url for url in browser.requests if not url.startswith("data:image/")} == {page}
    assert complaints == []
    assert browser.evaluate("[...document.images].length") >= 4
    assert browser.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert browser.evaluate("document.body.innerText.includes('films/damaged.mp4')")
    shot = browser.screenshot()
    (tmp_path / "page.png").write_bytes(shot)
    assert len(shot) > 50_000


def test_the_demo_goes_on_to_a_model(bytropix_program: Any, tmp_path: Path) -> None:
    """Films, both stages of a run, and pictures of given, true and predicted frames; with a recipe of a few steps."""
    folder, recipe = tmp_path / "demo", tmp_path / "few.toml"
    few = re.sub(r"^(steps|\w+_steps|\w+_every) = \d+", r"\1 = 2", TINY_VIDEO.read_text("utf-8"), flags=re.MULTILINE)
    recipe.write_text(few, encoding="utf-8")
    done = bytropix_program("demo", "video", "--folder", folder, "--recipe", recipe)
    assert done.returncode == 0, done.stderr
    assert "stage 1 of 2, autoencoder: 2 steps" in done.stderr
    assert "stage 2 of 2, diffusion: 2 steps" in done.stderr
    assert re.search(r"^next frame: [+-]\d+\.\d\d dB of PSNR against 'copy last frame'", done.stdout, re.MULTILINE)
    assert {path.name for path in folder.iterdir()} >= {"run", "motion.bx", "comparison.png", "comparison.mp4"}
    with av.open(str(folder / "comparison.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 5
    with Image.open(folder / "comparison.png") as strip:
        assert np.unique(np.asarray(strip)).size > 100


def test_the_demo_leaves_a_folder_of_others_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It removes what a demo left, and nothing else."""
    (tmp_path / "letter.txt").write_text("dear")

    assert main(["demo", "video", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_all_real_films_are_read_to_their_last_frame(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one command; every file has as many frames as ffprobe counted, or is refused for what is wrong with it."""
    out = tmp_path / "all.bx"
    folders = [shared_data / "video", *(shared_data / "hostile" / name for name in ("video", "truncated", "bitflips"))]
    report = run(capsys, "ingest", "video", *folders, "--out", out, "--size", 32, 32, "--max-bad", 0.5, "--workers", 2)
    store = Store.open(str(out))
    counted = _counted(shared_data)
    found = {video.source: video.frames for video in all_videos(store)}
    refused = {row["path"]: row["reason"] for row in store.quarantine()}

    assert sorted(refused) == sorted(REFUSED)
    assert [path for path, reason in refused.items() if not reason.startswith(REFUSED[path])] == []
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(found) + len(refused) == report["files_in"] == len(files)
    assert (report["videos"], report["frames"]) == (len(found), sum(found.values()))
    assert found == {source: counted[source] for source in found}


def _counted(shared_data: Path) -> dict[str, int]:
    """Return how many frames `SOURCES.tsv` counts in each video, by the name that ingestion gives it."""
    counts = {}
    for line in (shared_data / "SOURCES.tsv").read_text("utf-8").splitlines():
        name, what = line.split("\t")[0], line.split("\t")[-1]
        found = re.search(r"([\d,]+) frames decoded", what)
        if found:
            counts[name.removeprefix("hostile/")] = int(found[1].replace(",", ""))
    return counts


def _iou(one: Any, two: Any) -> float:
    """Return the area that two boxes share over the area that they cover."""
    low, high = np.maximum(one[:2], two[:2]), np.minimum(one[2:], two[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    area = sum(float(np.prod(box[2:] - box[:2])) for box in (one, two))
    return shared / (area - shared)
