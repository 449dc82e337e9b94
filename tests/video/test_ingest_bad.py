"""Bad input of every kind: named in the quarantine with the reason, and nothing of it in the store."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from bytropix.datasets.store import Store
from bytropix.errors import SourceError, TooManyBadError
from bytropix.jobs.film import FilmSet
from bytropix.pipelines.decoders.contract import Frames, VideoInfo, Wanted
from bytropix.pipelines.decoders.process import DecoderProcess
from bytropix.pipelines.video import job as job_module
from bytropix.pipelines.video import part_task, scan
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.encode import write_video
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.pipelines.video.part_task import GroupDone, GroupTask
from bytropix.pipelines.video.sniff import why_no_video

Tree = Callable[[Path], dict[str, bytes]]


def quarantine(store: Store) -> dict[str, dict[str, Any]]:
    """Return the rows of quarantine by the last step of their path."""
    return {row["path"].rpartition("/")[2]: row for row in store.quarantine()}


def audio_only(path: Path) -> None:
    """Write a tenth of a second of silence as an MP4."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)


def png(path: Path) -> None:
    """Write a picture."""
    Image.new("RGB", (64, 48)).save(path, "PNG")


def absurd(path: Path) -> None:
    """Write an AVI of three uncompressed pictures whose header says that they are 60000 x 60000."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("rawvideo", rate=10, width=64, height=48, pix_fmt="bgr24")
        for _ in range(3):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")):
                out.mux(packet)
    data = bytearray(path.read_bytes())
    place = data.index(b"strf") + 12
    data[place : place + 8] = 2 * (60000).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.fixture
def bad_folder(tmp_path: Path, film_set: FilmSet) -> Path:
    """Return a folder of one good film and one bad file of each kind."""
    folder = tmp_path / "in"
    folder.mkdir()
    good = film_set["shapes"].path
    data = good.read_bytes()
    shutil.copy(good, folder / "good.mp4")
    shutil.copy(good, folder / "film_named.txt")
    shutil.copy(film_set["cuts"].path.with_name("damaged.mp4"), folder / "middle.mp4")
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a film\n" * 9)
    (folder / "playlist.m3u8").write_text(f"#EXTM3U\n#EXTINF:4,\n{good}\n")
    (folder / "zeros.mp4").write_bytes(bytes(50_000))
    (folder / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(50_000))
    audio_only(folder / "sound.mp4")
    png(folder / "picture.mp4")
    absurd(folder / "absurd.avi")
    with write_video(folder / "one.mp4", 48, 64, fps=10.0) as writer:
        writer.write(np.full((1, 48, 64, 3), 99, np.uint8), np.zeros(1))
    return folder


def test_each_kind_is_named(bad_folder: Path, small_video: VideoConfig, tmp_path: Path) -> None:
    """The good film, the one under another name and the film of one frame are stored; all else has its reason."""
    store = ingest_video([bad_folder], tmp_path / "s.bx", small_video, max_bad=1.0).store
    rows = quarantine(store)
    reasons = {name: row["reason"] for name, row in rows.items()}
    spans = {span.source for part in store.manifest.parts for span in part.spans}

    assert spans == {"in/good.mp4", "in/film_named.txt", "in/one.mp4"}
    assert reasons.keys() == {path.name for path in bad_folder.iterdir()} - {"good.mp4", "film_named.txt", "one.mp4"}
    assert reasons["empty.mp4"] == "empty"
    assert reasons["text.mp4"] == reasons["playlist.m3u8"] == "no video but text"
    assert reasons["picture.mp4"] == "a still image (PNG)"
    for name, word in (
        ("sound.mp4", "no video stream"),
        ("zeros.mp4", "not a video"),
        ("noise.mkv", "video"),
        ("truncated.mp4", ""),
        ("middle.mp4", "damaged"),
        ("absurd.avi", "60000 x 60000 pixels"),
    ):
        assert word in reasons[name], (name, reasons[name])
    assert rows["middle.mp4"]["frames_read"] > 20
    assert all(row["bytes_read"] == (bad_folder / name).stat().st_size for name, row in rows.items())


def test_frames_before_a_fault_are_kept_on_request(film_folder: Path, small_video: VideoConfig, tmp_path: Path) -> None:
    """With --keep-partial they are stored, and the quarantine says how many; without, nothing of the film is."""
    sources = [film_folder / "damaged.mp4", film_folder / "tall.mp4"]
    kept = ingest_video(sources, tmp_path / "kept.bx", replace(small_video, keep_partial=True), max_bad=0.5).store
    plain = ingest_video(sources, tmp_path / "plain.bx", small_video, max_bad=0.5).store
    (row,) = kept.quarantine()
    frames = sum(part.frames for part in kept.manifest.parts) - sum(part.frames for part in plain.manifest.parts)

    assert row["frames_kept"] == row["frames_read"] == frames > 20
    assert {span.source for part in plain.manifest.parts for span in part.spans} == {"tall.mp4"}
    assert "frames_kept" not in plain.quarantine()[0]


def test_thousands_of_things_that_are_no_video(
    tmp_path: Path, small_video: VideoConfig, film_set: FilmSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told by their first bytes, here: no decoder is asked about any, and each is listed."""
    folder = tmp_path / "in"
    folder.mkdir()
    heads = (b"text\n", b"\x89PNG\r\n", b"%PDF-", b"PK\x03\x04")
    for number in range(2000):
        (folder / f"{number:05d}.mp4").write_bytes(heads[number % 4] * 40)
    shutil.copy(film_set["tall"].path, folder / "film.mp4")
    asked = []
    real = scan.decoder_process
    monkeypatch.setattr(scan, "decoder_process", lambda: asked.append(1) or real())
    store = ingest_video([folder], tmp_path / "s.bx", small_video, max_bad=1.0).store

    assert len(asked) == 1
    assert store.manifest.quarantined == 2000
    assert {row["reason"] for row in store.quarantine()} == {
        "no video but text",
        "a still image (PNG)",
        "no video but a PDF",
        "no video but an archive (ZIP)",
    }


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"plain words\n", "no video but text"),
        ("зима ".encode() * 1000, "no video but text"),
        (("зима ".encode() * 1000)[:4096], "no video but text"),
        (b"\x1b[31mcoloured\x1b[0m", "no video but text"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio only (WAV)"),
        (b"RIFF\0\0\0\0AVI LIST", ""),
        (b"\0\0\0\x18ftypmp42", ""),
        (b"\0\0\0\x18ftypavif", "a still image (AVIF)"),
        (b"\x1aE\xdf\xa3", ""),
        (b"GIF89a\x40\0", ""),
        (b"\x47\x40\0\x10" + bytes(184), ""),
        (b"caf\xe9 au lait", ""),
    ],
)
def test_first_bytes(head: bytes, what: str) -> None:
    """Known beginnings have their name; what may be a film, or cannot be told, is left to the decoder."""
    assert why_no_video(head) == what


def test_strict_stops_at_the_first(film_folder: Path, small_video: VideoConfig, tmp_path: Path) -> None:
    """Found by the scan or while decoding: one line with file, reason and remedy, and no store."""
    for name, reason in (("notes.mp4", "no video but text"), ("damaged.mp4", "damaged")):
        with pytest.raises(SourceError, match=rf"{name}: {reason}.*without --strict"):
            ingest_video(
                [film_folder / name, film_folder / "tall.mp4"], tmp_path / f"{name}.bx", small_video, strict=True
            )
        assert not (tmp_path / f"{name}.bx" / "manifest.json").exists()


def test_too_many_bad_after_decoding(film_folder: Path, small_video: VideoConfig, tmp_path: Path, tree: Tree) -> None:
    """Faults that decoding finds count too: nothing is published, all are listed; with more allowed nothing is lost."""
    sources = [film_folder / "damaged.mp4", film_folder / "tall.mp4", film_folder / "zoom.mp4"]
    with pytest.raises(TooManyBadError, match=r"1 of 3 files are bad, more than --max-bad 0.2.*quarantine.jsonl"):
        ingest_video(sources, tmp_path / "s.bx", small_video, max_bad=0.2)
    listed = [json.loads(line) for line in (tmp_path / "s.bx/quarantine.jsonl").read_text().splitlines()]
    published = (tmp_path / "s.bx/manifest.json").exists()
    summary = ingest_video(sources, tmp_path / "s.bx", small_video, max_bad=0.4, resume=True)
    ingest_video(sources, tmp_path / "t.bx", small_video, max_bad=0.4)

    assert [row["path"] for row in listed] == ["damaged.mp4"]
    assert not published
    assert summary.skipped == len(summary.store.manifest.parts)
    assert tree(tmp_path / "s.bx") == tree(tmp_path / "t.bx")


def test_too_many_bad_after_the_scan(film_folder: Path, small_video: VideoConfig, tmp_path: Path) -> None:
    """No film is decoded where the headers alone are too many bad ones."""
    with pytest.raises(TooManyBadError, match="1 of 2 files are bad"):
        ingest_video([film_folder / "notes.mp4", film_folder / "tall.mp4"], tmp_path / "s.bx", small_video)
    assert not (tmp_path / "s.bx/parts").exists()


def test_the_share_to_allow_is_written_out(film_folder: Path, small_video: VideoConfig, tmp_path: Path) -> None:
    """One stray text beside a few films: the message gives a --max-bad with which the same run ends well.

    Where every file is bad none is given, since nothing would be left.
    """
    sources = [film_folder / name for name in ("notes.mp4", "tall.mp4", "zoom.mp4")]
    with pytest.raises(TooManyBadError, match="1 of 3 files are bad") as caught:
        ingest_video(sources, tmp_path / "s.bx", small_video)
    given = re.search(r"\(allow more, for instance with --max-bad (\S+)\)", str(caught.value))
    with pytest.raises(TooManyBadError, match=r"1 of 1 files are bad, more than --max-bad 0\.05 allows; most"):
        ingest_video(sources[:1], tmp_path / "t.bx", small_video)

    assert given is not None
    assert given[1] == "0.4"
    summary = ingest_video(sources, tmp_path / "s.bx", small_video, max_bad=float(given[1]), resume=True)
    assert [row["path"] for row in summary.store.quarantine()] == ["notes.mp4"]


def test_nothing_left_is_said(film_folder: Path, small_video: VideoConfig, tmp_path: Path) -> None:
    """The first reason is named, and no store is left."""
    with pytest.raises(SourceError, match=r"damaged\.mp4: damaged.*no video is left"):
        ingest_video([film_folder / "damaged.mp4"], tmp_path / "s.bx", small_video, max_bad=1.0)
    assert not (tmp_path / "s.bx/manifest.json").exists()


@pytest.mark.parametrize("how", ["grown", "other", "gone"])
def test_a_file_that_changes_under_way_is_refused(
    film_folder: Path, small_video: VideoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Between scan and decoding: the reason is the change, whatever the decoder makes of it, and the rest is stored."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("tall", "zoom"):
        shutil.copy(film_folder / f"{name}.mp4", folder)

    def change(task: GroupTask) -> GroupDone:
        if how == "gone":
            (folder / "zoom.mp4").unlink(missing_ok=True)
        elif how == "grown":
            (folder / "zoom.mp4").write_bytes((film_folder / "zoom.mp4").read_bytes() + b"\0\0\0\x08free")
        else:
            shutil.copy(film_folder / "shapes.mp4", folder / "zoom.mp4")
        return part_task.do_group(task)

    monkeypatch.setattr(job_module, "do_group", change)
    store = ingest_video([folder], tmp_path / "s.bx", small_video, max_bad=0.5).store

    assert quarantine(store)["zoom.mp4"]["reason"] == "has changed since it was scanned"
    assert {span.source for part in store.manifest.parts for span in part.spans} == {"in/tall.mp4"}


def test_a_file_that_grows_under_the_scan_is_refused(
    film_folder: Path, small_video: VideoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that goes on is told from its size."""
    film = tmp_path / "recording.mp4"
    shutil.copy(film_folder / "tall.mp4", film)

    class Writing(DecoderProcess):
        def probe(self, path: Any, wanted: Wanted | None = None) -> VideoInfo:
            with film.open("ab") as file:
                file.write(b"\0\0\0\x08free")
            return super().probe(path, wanted)

    with Writing() as decoder:
        monkeypatch.setattr(scan, "decoder_process", lambda: decoder)
        with pytest.raises(SourceError, match="is still being written: 27,"):
            ingest_video([film], tmp_path / "s.bx", small_video, max_bad=1.0)


class Dying(DecoderProcess):
    """A decoding process that gets a signal in the middle of a film, as long as certain decoders do the work."""

    def __init__(self, decoders: tuple[str, ...], what: signal.Signals = signal.SIGKILL) -> None:
        super().__init__()
        self.decoders, self.what = decoders, what
        self.asked: list[str] = []

    def frames(self, path: Any, wanted: Wanted) -> Iterator[Frames]:
        """Give frames, and send the signal after a batch."""
        self.asked.append(wanted.decoder)
        for number, frames in enumerate(super().frames(path, replace(wanted, decoder="pyav"))):
            if number == 1 and wanted.decoder in self.decoders:
                assert self.pid
                os.kill(self.pid, self.what)
            yield frames


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_a_decoder_that_crashes_or_is_stuck_gives_way_to_the_next(
    film_set: FilmSet, small_video: VideoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: signal.Signals
) -> None:
    """Its frames are taken back, parts that it had filled too; the film is stored once, and its rows say by whom."""
    monkeypatch.setattr(part_task, "installed", lambda: ["pyav", "decord"])
    sources = [film_set["cuts"].path, film_set["tall"].path]
    config = replace(small_video, val_fraction=0.0, stall_seconds=1.0)
    with Dying(("pyav",), what) as decoder:
        monkeypatch.setattr(part_task, "decoder_process", lambda: decoder)
        store = ingest_video(sources, tmp_path / "s.bx", config).store
    rows = [row for part in store.video_parts("train") for row in part.video_meta()]

    assert decoder.asked == ["pyav", "decord", "pyav"]  # the second film is over in one batch
    assert sum(row["frames"] for row in rows) == 150 + 30
    assert {(row["source"], row["decoder"]) for row in rows} == {("cuts.mp4", "decord"), ("tall.mp4", "pyav")}


def test_a_film_that_breaks_every_decoder_is_refused(
    film_set: FilmSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs itself alone; all reasons are told; and a later run tries again, since a crash may have been chance."""
    monkeypatch.setattr(part_task, "installed", lambda: ["pyav", "decord"])
    real, whole = part_task.decoder_process, VideoConfig(size=(32, 48), part_bytes=1 << 24, val_fraction=0.0)
    with Dying(("pyav", "decord")) as decoder:
        monkeypatch.setattr(part_task, "decoder_process", lambda: decoder)
        with pytest.raises(TooManyBadError, match=r"pyav: .*signal 9.*; decord: .*signal 9"):
            ingest_video([film_set["cuts"].path], tmp_path / "s.bx", whole, max_bad=0.5)
    monkeypatch.setattr(part_task, "decoder_process", real)
    summary = ingest_video([film_set["cuts"].path], tmp_path / "s.bx", whole, resume=True)

    assert (summary.skipped, summary.store.manifest.quarantined) == (0, 0)
