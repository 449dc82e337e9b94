"""`bytropix sample`: films, animations and strips of what a model makes, read back as anything would read them."""

import json
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bytropix.config import to_plain
from bytropix.datasets.store import Store
from bytropix.jobs.checkpoint import save_checkpoint
from bytropix.jobs.condition import Footage, stretch_of_film, stretch_of_store
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.video_recipe import build_video_model, read_video_recipe
from bytropix.jobs.videos import clip_place
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.encode import write_video

Cli = Callable[..., Any]
GIVEN, MADE, SIDE, FPS = 3, 2, 32, 24.0
QUICK = ("--steps", 2, "--guidance", 1, "--device", "cpu")


@pytest.fixture(autouse=True, scope="module")
def library() -> None:
    """Import the library where a warning of its own does not fail a test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers.schedulers.scheduling_dpmsolver_multistep  # noqa: F401


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 64 x 48 pixels, 24 frames a second, whose pictures get lighter from frame to frame."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    images = np.empty((24, 48, 64, 3), np.uint8)
    images[:] = (40 + 8 * np.arange(24, dtype=np.uint8))[:, None, None, None]
    with write_video(path, 48, 64, fps=FPS) as writer:
        writer.write(images, np.arange(24) / FPS)
    return path


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, tiny_video: Path) -> MakeRun:
    """Return what makes a run that was never trained: `make_run(size, fps, every, stage, **diffusion)`."""

    def make(
        size: tuple[int, int] = (SIDE, SIDE),
        fps: float = 0.0,
        every: int = 1,
        stage: str = "diffusion",
        **diffusion: Any,
    ) -> Path:
        recipe = read_video_recipe(tiny_video)
        video = replace(recipe.video, diffusion=replace(recipe.video.diffusion, **diffusion))
        train = replace(recipe.train, ema=0.0, frame_steps=(every,))
        recipe = replace(recipe, video=video, train=train, stage=stage)  # type: ignore[arg-type]
        run = RunFolder(tmp_path / "made-run")
        config = to_plain(VideoConfig(fps=fps, fit="pad"))
        run.keep(recipe, lambda folder: {"name": "made", "fingerprint": "", "config": config, "size": list(size)})
        torch.manual_seed(0)
        model = build_video_model(recipe)
        optimizer = torch.optim.AdamW(model.parameters())
        save_checkpoint(run.checkpoint(1), recipe, model, optimizer, {"step": 1, "stream": {}})
        return run.path

    return make


def decoded(path: Path) -> tuple[NDArray[np.uint8], float]:
    """Return the frames of a film, u8 (t, h, w, 3), and how many a second."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), float(
            stream.average_rate
        )


def test_a_film_has_the_asked_frames_size_and_rate(cli: Cli, trained_video: Path, film: Path, tmp_path: Path) -> None:
    """PyAV reads back as many frames as were asked for, of the model's size, at the rate of the condition."""
    out = tmp_path / "out.mp4"
    answer = cli("sample", "--run", trained_video, "--condition", film, "--frames", 5, *QUICK, "--out", out)
    frames, rate = decoded(out)

    assert answer.code == 0
    assert answer.out == ""
    assert frames.shape == (5, SIDE, SIDE, 3)
    assert rate == pytest.approx(FPS, rel=1e-6)
    assert "64 x 48 at 24 frames a second, taken as 32 x 32 at 24 (cut to shape)" in answer.err
    assert f"5 frames of 32 x 32 at 24 a second, from {film} from 0 s on" in answer.err


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_ffprobe_reads_it_too(cli: Cli, trained_video: Path, film: Path, tmp_path: Path) -> None:
    """A program of others counts the same frames."""
    out = tmp_path / "out.mp4"
    cli("sample", "--run", trained_video, "--condition", film, "--frames", 5, "--fps", 10, *QUICK, "--out", out)
    words = ["ffprobe", "-v", "error", "-count_frames", "-of", "json", "-show_streams", str(out)]
    said = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["streams"][0]

    assert (int(said["nb_read_frames"]), said["width"], said["height"]) == (5, SIDE, SIDE)
    assert said["codec_name"] == "h264"
    assert float(Fraction(said["avg_frame_rate"])) == pytest.approx(10.0)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_has_the_asked_frames_and_rate(
    cli: Cli, trained_video: Path, film: Path, tmp_path: Path, suffix: str
) -> None:
    """GIF and WebP hold the frames, side by side where there are several samples, at the rate that is asked."""
    out = tmp_path / f"out{suffix}"
    words = ("--condition", film, "--frames", 3, "--count", 2, "--fps", 10)
    cli("sample", "--run", trained_video, *words, *QUICK, "--out", out)
    with Image.open(out) as found:
        durations = []
        for number in range(found.n_frames):  # type: ignore[attr-defined]
            found.seek(number)
            found.load()
            durations.append(found.info["duration"])

        assert found.size == (2 * SIDE + 2, SIDE)
        assert durations == [100] * 3


def test_a_strip_has_a_row_for_each_sample(cli: Cli, trained_video: Path, film: Path, tmp_path: Path) -> None:
    """A PNG holds the frames from left to right and the samples from top to bottom; they differ by their noise."""
    out = tmp_path / "out.png"
    words = ("--condition", film, "--frames", 3, "--count", 2)
    cli("sample", "--run", trained_video, *words, *QUICK, "--out", out)
    picture = np.array(Image.open(out))
    first, second = picture[:SIDE], picture[SIDE + 2 :]

    assert picture.shape == (2 * SIDE + 2, 3 * SIDE + 4, 3)
    assert np.abs(first.astype(int) - second).max() > 8


def test_the_same_words_give_the_same_file(cli: Cli, trained_video: Path, film: Path, tmp_path: Path) -> None:
    """Another seed gives another one; how many samples are made at once does not matter to a byte more than one."""
    words = ("sample", "--run", trained_video, "--condition", film, "--count", 3, *QUICK)
    files = {}
    for name, more in {"a": (), "b": (), "seed": ("--seed", 1), "rows": ("--rows", 1)}.items():
        files[name] = tmp_path / f"{name}.png"
        assert cli(*words, *more, "--out", files[name]).code == 0
    pictures = {name: np.array(Image.open(file)).astype(int) for name, file in files.items()}

    assert files["a"].read_bytes() == files["b"].read_bytes()
    assert np.abs(pictures["a"] - pictures["seed"]).max() > 8
    assert np.abs(pictures["a"] - pictures["rows"]).max() <= 1


def test_json_says_what_was_made(cli: Cli, trained_video: Path, clip_store_path: Path, tmp_path: Path) -> None:
    """One object: what, from what, how, and the error beside that of holding the last given frame."""
    out = tmp_path / "out.gif"
    words = ("--condition", clip_store_path, "--split", "train", "--clip", 1, "--sampler", "ddim", "--eta", 0.5)
    found = cli("sample", "--run", trained_video, *words, *QUICK, "--seed", 3, "--out", out, "--json").json()

    assert {
        "kind": "prediction",
        "frames": MADE,
        "given": GIVEN,
        "count": 1,
        "height": SIDE,
        "width": SIDE,
        "sampler": "ddim",
        "eta": 0.5,
        "steps": 2,
        "seed": 3,
        "out": str(out),
        "source": f"train clip 1 of {clip_store_path}",
    }.items() <= found.items()
    assert 0 < found["psnr_db"] < 60
    assert 0 < found["copy_last_psnr_db"] < 60
    assert out.is_file()


def test_a_clip_of_a_store_is_the_one_that_preview_shows(trained_video: Path, clip_store: Store) -> None:
    """Its frames are the store's own, from the clip's first on, to the end of its scene at most."""
    footage = Footage.of(RunFolder(trained_video))
    place = clip_place(clip_store, "val", 1)
    part = clip_store.video_parts("val")[place.part]
    begin = place.frames[0]
    end = int(next(stop for stop in part.scene_ends if stop > begin))
    few = stretch_of_store(clip_store.url, "val", 1, footage, 4)
    all_of_it = stretch_of_store(clip_store.url, "val", 1, footage, 10_000)
    every_third = stretch_of_store(clip_store.url, "val", 1, replace(footage, every=3), 3)

    assert np.array_equal(few.images, part.read_frames(begin, begin + 4))
    assert np.array_equal(all_of_it.images, part.read_frames(begin, end))
    assert np.array_equal(every_third.images, part.read_frames(begin, begin + 9)[::3])
    assert every_third.fps == pytest.approx(few.fps / 3)


def test_a_film_is_taken_from_its_start_at_the_run_s_rate(film: Path) -> None:
    """The frames begin at the asked second, are those of the asked rate, and every n-th where clips have gaps."""
    footage = Footage(height=48, width=64, fit="crop", fps=0.0, every=1)
    light = [float(image.mean()) for image in stretch_of_film(film, footage, 0.0, 100).images]

    def shown(start: float, **changes: Any) -> tuple[list[int], float]:
        found = stretch_of_film(film, replace(footage, **changes), start, 3)
        return [int(np.argmin(np.abs(np.array(light) - image.mean()))) for image in found.images], found.fps

    assert len(light) == 24
    assert shown(0.0) == ([0, 1, 2], 24.0)
    assert shown(0.25) == ([6, 7, 8], 24.0)
    assert shown(0.25, every=4) == ([6, 10, 14], 6.0)
    assert shown(0.5, fps=6.0) == ([12, 16, 20], 6.0)
    assert shown(0.5, fps=12.0, every=2) == ([12, 16, 20], 6.0)
    assert len(stretch_of_film(film, footage, 0.9, 100).images) == 2
    assert stretch_of_film(film, footage, 0.0, 3).notice == ""


def test_another_rate_and_shape_are_said(cli: Cli, make_run: MakeRun, film: Path, tmp_path: Path) -> None:
    """The film is brought to the size, shape and rate of the run's store, on stderr, and the file has that rate."""
    out = tmp_path / "out.mp4"
    answer = cli("sample", "--run", make_run((20, 36), fps=8.0), "--condition", film, *QUICK, "--out", out)
    frames, rate = decoded(out)

    assert "64 x 48 at 24 frames a second, taken as 36 x 20 at 8 (black around it), as the run's own were" in answer.err
    assert frames.shape == (MADE, 20, 36, 3)
    assert rate == pytest.approx(8.0)


def test_a_gap_is_filled(cli: Cli, make_run: MakeRun, film: Path, tmp_path: Path) -> None:
    """The frames between are made; shown beside the truth, the given ones are those before the gap."""
    run, out = make_run(interpolation_share=0.5), tmp_path / "out.mp4"
    words = ("sample", "--run", run, "--condition", film, "--interpolate", *QUICK)
    found = cli(*words, "--out", out, "--json").json()
    other = cli(*words, "--compare", "--out", tmp_path / "strip.gif", "--json").json()
    with Image.open(tmp_path / "strip.gif") as strip:
        shown = strip.n_frames  # type: ignore[attr-defined]

    assert (found["kind"], found["given"], found["frames"]) == ("interpolation", GIVEN, MADE)
    assert decoded(out)[0].shape[0] == MADE
    assert other["psnr_db"] == found["psnr_db"]
    assert shown == 2 + MADE  # the frames before the gap, then the gap
    said = cli(*words, "--frames", 5, "--out", tmp_path / "more.mp4").refusal()
    assert "frames must be 2, the gap that this model fills, got 5" in said


def test_films_from_nothing_have_the_run_s_size(cli: Cli, make_run: MakeRun, tmp_path: Path) -> None:
    """Without a condition the frames are of the size and rate of the run's store."""
    out = tmp_path / "out.mp4"
    found = cli("sample", "--run", make_run((16, 24), fps=5.0), *QUICK, "--out", out, "--json").json()
    frames, rate = decoded(out)

    assert found["kind"] == "unconditional"
    assert found["source"] == "nothing"
    assert "psnr_db" not in found
    assert frames.shape == (MADE, 16, 24, 3)
    assert rate == pytest.approx(5.0)


@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_samples_beside_the_truth(cli: Cli, trained_video: Path, film: Path, tmp_path: Path, suffix: str) -> None:
    """A strip has given, true and made frames in a row; a film has three panes and the given frames first."""
    out = tmp_path / f"out{suffix}"
    words = ("--condition", film, "--frames", 3, "--compare", *QUICK)
    assert cli("sample", "--run", trained_video, *words, "--out", out).code == 0
    if suffix == ".mp4":
        frames, rate = decoded(out)

        assert len(frames) == GIVEN + 3
        assert frames.shape[2] > 3 * SIDE
        assert rate == pytest.approx(FPS)
    else:
        with Image.open(out) as picture:
            assert picture.width > (GIVEN + 3 + 3) * SIDE


def spoilt(path: Path) -> Path:
    """Return a text that calls itself a film."""
    path.write_text("This is not a film.\n" * 50, "utf-8")
    return path


def test_bad_flags_are_refused(
    cli: Cli, trained_video: Path, film: Path, clip_store_path: Path, tmp_path: Path
) -> None:
    """Each says which value, and what to do; no file is left behind."""
    run, out = ("sample", "--run", trained_video, *QUICK), tmp_path / "out.mp4"
    there = tmp_path / "there.png"
    there.write_bytes(b"mine")
    notes = spoilt(tmp_path / "notes.mp4")
    cases = {
        "--frames must be at least 1, got 0": (*run, "--frames", 0, "--out", out),
        "--count must lie in 1..64, got 0": (*run, "--count", 0, "--out", out),
        "--start must be 0 or more seconds, got -1": (*run, "--start", -1, "--out", out),
        "--interpolate needs --condition": (*run, "--interpolate", "--out", out),
        "--compare needs --condition": (*run, "--compare", "--out", out),
        "the name must end in one of .mp4": (*run, "--out", tmp_path / "out.avi"),
        "is there already; give --overwrite": (*run, "--out", there),
        "there is no such file or store": (*run, "--condition", tmp_path / "none.mp4", "--out", out),
        f"{notes}: ": (*run, "--condition", notes, "--out", out),
        "the model is given 3 frames, and there are 2; take": (*run, "--condition", film, "--start", 0.9, "--out", out),
        "given and made frames are 25 frames, and there are 24": (
            *(*run, "--condition", film, "--frames", 22, "--compare", "--out", out),
        ),
        "--start is for films": (*run, "--condition", clip_store_path, "--start", 1, "--out", out),
        "--clip is for stores": (*run, "--condition", film, "--clip", 1, "--out", out),
        "--clip must lie in 0..": (*run, "--condition", clip_store_path, "--clip", 999, "--out", out),
        "split 'test' holds no videos": (*run, "--condition", clip_store_path, "--split", "test", "--out", out),
        "interpolation_share above 0": (*run, "--condition", film, "--interpolate", "--out", out),
        "ask for at most 2 frames": (*run, "--frames", 9, "--out", out),
        "steps must be at most the 50 timesteps": ("sample", "--run", trained_video, "--steps", 51, "--out", out),
        "eta is ddim's": (*run, "--eta", 0.5, "--out", out),
    }
    for words, flags in cases.items():
        assert words in cli(*flags).refusal(), words
    assert not out.exists()
    assert there.read_bytes() == b"mine"
    assert cli(*run, "--condition", film, "--overwrite", "--out", there).code == 0
    assert there.read_bytes() != b"mine"


def test_h264_needs_even_sides(cli: Cli, make_run: MakeRun, tmp_path: Path) -> None:
    """An odd frame is refused as MP4 before any work, and written as what can hold it."""
    run, out = make_run((16, 21)), tmp_path / "out.mp4"
    said = cli("sample", "--run", run, *QUICK, "--out", out).refusal()

    assert "frames of 21 x 16, and H.264 needs even sides; take .webp, .gif or .png" in said
    assert cli("sample", "--run", run, *QUICK, "--count", 2, "--out", out).code == 0  # 21 + 2 + 21
    assert decoded(out)[0].shape == (MADE, 16, 44, 3)
    assert cli("sample", "--run", run, *QUICK, "--out", out.with_suffix(".gif")).code == 0


def test_runs_that_do_not_sample_are_refused(cli: Cli, trained: Path, trained_video: Path, tmp_path: Path) -> None:
    """A byte model, an autoencoder alone, and what is no run, each by name."""
    out = tmp_path / "out.png"
    cases = {
        trained: "a run of a bytes model",
        trained_video / "autoencoder": "a run of stage autoencoder",
        tmp_path: "no run there",
    }
    for run, words in cases.items():
        assert words in cli("sample", "--run", run, "--out", out).refusal()


def test_a_store_of_another_size_or_kind_is_refused(
    cli: Cli, make_run: MakeRun, trained_video: Path, clip_store_path: Path, store_path: Path, tmp_path: Path
) -> None:
    """Stored frames are not resampled: the film itself is; a store of bytes has none."""
    out = tmp_path / "out.png"
    sizes = cli("sample", "--run", make_run((16, 24)), "--condition", clip_store_path, *QUICK, "--out", out).refusal()
    kinds = cli("sample", "--run", trained_video, "--condition", store_path, *QUICK, "--out", out).refusal()

    assert "its frames are 32 x 32, those of the run 24 x 16: give the film itself" in sizes
    assert "a store of bytes, not of video" in kinds


def test_a_run_that_has_lost_its_store_s_facts_says_so(cli: Cli, make_run: MakeRun, tmp_path: Path) -> None:
    """store.json without a size, or without a config, is named."""
    run = make_run()
    for content in ("{}", '{"size": [32, 32]}', '{"size": 3, "config": {}}', "["):
        (run / "store.json").write_text(content, "utf-8")
        said = cli("sample", "--run", run, *QUICK, "--out", tmp_path / "out.png").refusal()

        assert "store.json: cannot be read" in said
