"""`bytropix convert-video` and the writer below it: size, rate, times, quality, and what goes wrong."""

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from bytropix.errors import ConfigError, SourceError, StoreError
from bytropix.jobs.cli import main
from bytropix.jobs.film import FilmSet, make_films
from bytropix.pipelines.video import encode
from bytropix.pipelines.video.convert_video import ConvertConfig, plan_conversions
from bytropix.pipelines.video.encode import choose_encoder, write_video


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> FilmSet:
    """Return the small films."""
    return make_films(tmp_path_factory.mktemp("films"))


def read(path: Path) -> tuple[NDArray[np.uint8], list[float], av.VideoCodecContext]:
    """Return the frames of a file, their times, and its codec."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert not container.streams.audio
    return (
        np.stack([frame.to_ndarray(format="rgb24") for frame in frames]),
        [float(f.time or 0) for f in frames],
        context,
    )


def convert(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict[str, object]]:
    """Run the command and return its exit code and report."""
    code = main(["convert-video", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_video_gets_the_size_the_rate_and_the_codec(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """H.264 in yuv420p, ten frames a second picked by time, the picture as it was."""
    film = films["shapes"]
    out = tmp_path / "small.mp4"
    code, report = convert(capsys, film.path, out, "--size", "90", "160", "--fps", "10", "--encoder", "cpu")
    images, times, context = read(out)

    assert (code, report["converted"], report["failed"]) == (0, 1, 0)
    assert (context.name, context.pix_fmt, images.shape) == ("h264", "yuv420p", (40, 90, 160, 3))
    assert times == pytest.approx(np.arange(40) / 10, abs=1e-4)
    picked = film.images[np.floor(np.arange(40) * 2.4 + 1e-6).astype(int)]
    halved = picked.reshape(40, 90, 2, 160, 2, 3).mean((2, 4))
    assert np.abs(halved - images).mean() < 4


def test_by_default_size_and_times_are_kept(films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every frame is there, at its time, also where the times are uneven."""
    uneven = tmp_path / "uneven.mp4"
    times = np.cumsum([0.0, 0.04, 0.1, 0.02, 0.3, 0.04, 0.04])
    with write_video(uneven, 96, 64, fps=25) as writer:
        writer.write(films["tall"].images[:7, :96, :64], times)
    code, _ = convert(capsys, uneven, tmp_path / "same.mp4")
    images, kept, _ = read(tmp_path / "same.mp4")

    assert code == 0
    assert images.shape == (7, 96, 64, 3)
    assert kept == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize(("fit", "corner"), [("pad", True), ("crop", False), ("stretch", False)])
def test_a_picture_of_another_shape_is_cut_padded_or_stretched(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], fit: str, corner: bool
) -> None:
    """Only padding leaves black at the sides of a tall picture in a wide frame."""
    convert(capsys, films["tall"].path, tmp_path / "wide.mp4", "--size", "90", "160", "--fit", fit)
    images, _, _ = read(tmp_path / "wide.mp4")

    assert bool(images[:, :, :40].max() < 16) is corner


def test_a_stretch_of_time_is_cut_out(films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the second scene's first frame on, for half a second, and the file begins at zero."""
    film = films["cuts"]
    convert(capsys, film.path, tmp_path / "part.mp4", "--start", "1.5", "--duration", "0.5")
    images, times, _ = read(tmp_path / "part.mp4")

    assert times == pytest.approx(np.arange(15) / 30, abs=1e-4)
    assert np.abs(images.astype(int) - film.images[45:60]).mean() < 8


def test_damage_behind_the_stretch_does_not_matter(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing behind it is read, so the first second of a file with a hole in its middle is converted."""
    damaged, _ = films.refused
    code, report = convert(capsys, damaged, tmp_path / "part.mp4", "--duration", "0.5")

    assert (code, report["converted"]) == (0, 1)
    assert len(read(tmp_path / "part.mp4")[1]) == 12


def test_nothing_is_shown_after_the_end(films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A start behind the end is a fault of that file, and no empty file is left."""
    code, report = convert(capsys, films["tall"].path, tmp_path / "none.mp4", "--start", "99")

    assert code == 2
    assert "smaller --start" in json.dumps(report)
    assert list(tmp_path.iterdir()) == []


def test_a_lower_crf_is_nearer_to_the_source(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Crf 40 makes a smaller and worse file than crf 4."""
    film, worse = films["shapes"], []
    for crf in ("4", "40"):
        convert(capsys, film.path, tmp_path / f"{crf}.mp4", "--crf", crf, "--duration", "1")
        images, _, _ = read(tmp_path / f"{crf}.mp4")
        worse.append(np.abs(images.astype(int) - film.images[:24]).mean())

    assert worse[0] < worse[1]
    assert (tmp_path / "4.mp4").stat().st_size > 2 * (tmp_path / "40.mp4").stat().st_size


def test_of_a_folder_what_can_be_read_is_done_and_the_rest_is_named(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, a line for each bad file, the good ones there under their names and nothing else."""
    out = tmp_path / "out"
    code = main(["convert-video", str(films["tall"].path.parent), str(out), "--size", "32", "32", "--fps", "5"])
    told = capsys.readouterr().err

    assert code == 2
    assert sorted(path.name for path in out.iterdir()) == ["cuts.mp4", "shapes.mp4", "tall.mp4", "zoom.mp4"]
    assert "damaged.mp4: damaged" in told
    assert "notes.mp4: not a video" in told
    assert "4 converted by" in told


@pytest.mark.parametrize(
    ("name", "there", "reason"),
    [("damaged.mp4", False, "damaged: "), ("notes.mp4", False, "not a video"), ("tall.mp4", True, "give --overwrite")],
)
def test_a_single_file_that_fails_is_one_line(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, there: bool, reason: str
) -> None:
    """With the program's name before it, like every error: no bar, no summary, and nothing is made."""
    out = tmp_path / "a.mp4"
    if there:
        out.write_bytes(b"mine")
    source = films["tall"].path.with_name(name)
    code = main(["convert-video", str(source), str(out)])
    said = capsys.readouterr()

    assert (code, said.out, said.err.count("\n"), said.err.count("\r")) == (2, "", 1, 0)
    assert said.err.startswith(f"bytropix: {source}: ")
    assert reason in said.err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"] * there


def test_a_store_is_no_folder_of_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line names the commands for stores."""
    (tmp_path / "films.bx").mkdir()
    (tmp_path / "films.bx" / "manifest.json").write_text("{}")
    code = main(["convert-video", str(tmp_path / "films.bx"), str(tmp_path / "out")])
    told = capsys.readouterr().err

    assert (code, told.count("\n")) == (2, 1)
    assert told.startswith(f"bytropix: {tmp_path / 'films.bx'}: is a store")
    assert "`bytropix convert`" in told
    assert "`bytropix preview`" in told
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_and_claims_nothing(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what there is and what it would become; its JSON counts neither files nor frames as made."""
    words = (films["zoom"].path, tmp_path / "a.mp4", "--size", "64", "96")
    assert main(["convert-video", *map(str, words), "--dry-run"]) == 0
    told = capsys.readouterr().err
    code, report = convert(capsys, *words, "--dry-run")
    assert list(tmp_path.iterdir()) == []
    _, made = convert(capsys, *words)
    target = {"height": 64, "source": str(words[0]), "target": str(words[1]), "width": 96}

    assert "240 x 240, 25 fps, 3.00 s) -> " in told
    assert "96 x 64)" in told
    assert (code, report["to_convert"], report["failed"], report["files"]) == (0, 1, 0, [target])
    assert "converted" not in report
    assert (made["converted"], made["files"]) == (1, [{**target, "frames": 75}])
    assert "to_convert" not in made


def test_what_is_there_stays_unless_told(films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there is kept, replaced on --overwrite, and never by itself."""
    out = tmp_path / "a.mp4"
    out.write_bytes(b"mine")
    code, report = convert(capsys, films["tall"].path, out)
    assert (code, out.read_bytes()) == (2, b"mine")
    assert "--overwrite" in json.dumps(report)

    assert convert(capsys, films["tall"].path, out, "--overwrite")[0] == 0
    whole = out.read_bytes()
    assert convert(capsys, out, out, "--overwrite")[0] == 2
    assert out.read_bytes() == whole


def test_an_odd_size_that_is_asked_for_names_the_next_even_one(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """H.264 in yuv420p has none, and what is asked for is not changed without a word."""
    assert main(["convert-video", str(films["tall"].path), str(tmp_path / "a.mp4"), "--size", "33", "64"]) == 2
    assert "--size 32 64" in capsys.readouterr().err


def test_a_source_of_odd_sides_loses_a_row_and_a_column(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --size the next lower even one is taken, the rest is as it was, and the line says so."""
    images = films["shapes"].images[:6, :95, :127]
    (tmp_path / "in").mkdir()
    with av.open(str(tmp_path / "in" / "odd.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 95, 127, "bgr0"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
    code = main(["convert-video", str(tmp_path / "in"), str(tmp_path / "out"), "--crf", "4"])
    told = capsys.readouterr().err
    made, _, _ = read(tmp_path / "out" / "odd.mp4")

    assert code == 0
    assert "127 x 95, 25 fps, 0.24 s) -> " in told
    assert "(126 x 94, a pixel less since H.264 needs even sides, 6 frames)" in told
    assert made.shape == (6, 94, 126, 3)
    assert np.abs(made.astype(int) - images[:, :94, :126]).mean() < 4


def test_the_same_input_gives_the_same_bytes(
    films: FilmSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice, and with the index before the pictures, so that players can begin at once."""
    for name in ("a.mp4", "b.mp4"):
        convert(capsys, films["tall"].path, tmp_path / name, "--encoder", "cpu")
    data = (tmp_path / "a.mp4").read_bytes()

    assert data == (tmp_path / "b.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_names_that_differ_in_their_suffix_stay_apart(tmp_path: Path) -> None:
    """Both keep it; a folder inside a folder stays one."""
    for name in ("a.mov", "a.webm", "deep/b.avi"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    planned = plan_conversions(str(tmp_path / "in"), tmp_path / "out")

    targets = [str(Path(one.target).relative_to(tmp_path / "out")) for one in planned]
    assert targets == ["a.mov.mp4", "a.webm.mp4", str(Path("deep", "b.mp4"))]


def test_places_that_cannot_work_are_refused(films: FilmSet, tmp_path: Path) -> None:
    """A missing source, a target of another kind, files of a folder into the same folder or into a file."""
    folder = films["tall"].path.parent
    file = tmp_path / "file"
    file.write_bytes(b"")

    with pytest.raises(SourceError, match="no such file"):
        plan_conversions(str(tmp_path / "nothing"), tmp_path)
    with pytest.raises(ConfigError, match=r"ends in \.mp4"):
        plan_conversions(str(films["tall"].path), tmp_path / "a.avi")
    with pytest.raises(ConfigError, match="beside it"):
        plan_conversions(str(folder), folder / "out")
    with pytest.raises(ConfigError, match="is a file"):
        plan_conversions(str(folder), file)


@pytest.mark.parametrize("wrong", [{"crf": 52}, {"fps": -1.0}, {"start": -1.0}, {"size": (64, 0)}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    """The message names the setting."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ConvertConfig(**wrong)  # type: ignore[arg-type]


def test_an_encoder_that_does_not_work_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auto goes on with the CPU, and NVENC by name is refused, with the reason.

    The codec that stands for NVENC is one that is compiled in everywhere and cannot encode such frames.
    """
    monkeypatch.setitem(encode.ENCODERS, "nvenc", encode.Encoder("mjpeg_vaapi", "qp", {}))
    encode._nvenc_fault.cache_clear()

    assert choose_encoder("auto") == "cpu"
    with pytest.raises(ConfigError, match="does not work on this machine"):
        choose_encoder("nvenc")
    encode._nvenc_fault.cache_clear()


def test_a_file_that_breaks_off_is_not_left_behind(tmp_path: Path) -> None:
    """Neither half a file nor what was written beside it; a file that was there stays."""
    target = tmp_path / "a.mp4"
    target.write_bytes(b"mine")

    def write_some() -> None:
        with write_video(target, 64, 64, fps=25) as writer:
            writer.write(np.zeros((3, 64, 64, 3), np.uint8), np.arange(3) / 25)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_some()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert target.read_bytes() == b"mine"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """One line that names the file; run in a process whose files may not grow beyond 20 kB."""
    program = f"""
import resource
from pathlib import Path
import numpy as np
from bytropix.errors import StoreError
from bytropix.pipelines.video.encode import write_video
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
images = np.random.default_rng(0).integers(0, 255, (20, 128, 128, 3), dtype=np.uint8)
try:
    with write_video(Path({str(tmp_path)!r}) / "a.mp4", 128, 128, fps=25, crf=1) as writer:
        writer.write(images, np.arange(20) / 25)
except StoreError as error:
    print(error)
"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)

    assert "a.mp4: cannot be written (File too large)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_told(tmp_path: Path) -> None:
    """As an error of the store's kind."""
    with pytest.raises(StoreError, match="cannot be written"), write_video(tmp_path / "no" / "a.mp4", 64, 64, fps=25):
        pass
