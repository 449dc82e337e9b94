"""Bad input: every file that cannot be read, or not whole, is named with a short reason; no neighbour suffers."""

import os
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from bytropix.pipelines.decoders import DecoderProcess, VideoFault, Wanted
from tests.decoders.conftest import Read, grey_film, make_film, moving, read

SMALL = Wanted(height=48, width=64)

# What comes of each of the hostile files: the beginning of the reason ("" where it is read) and the frames before it.
HOSTILE = {
    "video/corrupted.mp4": ("damaged: 1 packets unreadable", 49),
    "video/invalid-bitstream.webm": ("damaged: 51 packets unreadable", 0),
    "video/invalid-codec.webm": ("no decoder for its codec", 0),
    "video/sample_fragmented_clearkey.mp4": ("not a video that can be read: error reading header", 0),
    "video/sample_fragmented_sideloaded_track.mp4": ("not a video that can be read: error reading header", 0),
    "video/sample_malformed_free_box.mp4": ("no index (moov): cut off, still being written, or damaged", 0),
    "video/sample_mdat_too_long.mp4": ("", 30),
    "video/sample_missing_stsd.mp4": ("", 30),
    "video/sample_with_invalid_nalu.mp4": ("damaged: 1 packets unreadable", 29),
    "video/sample_with_junk": ("damaged: 0 packets unreadable, 3 of 3 frames corrupt", 3),
    "video/video_with_failing_audio.mp4": ("", 280),
    "wrong_extension/fireworks.jpeg": ("a still image", 0),
    "wrong_extension/jpeg_named.mp4": ("a still image", 0),
    "wrong_extension/mp4_named.txt": ("", 36),
    "wrong_extension/text_named.gz": ("not a video", 0),
    "wrong_extension/text_named.mp4": ("not a video", 0),
    "zero_length/empty.mp4": ("empty file", 0),
    "zero_length/empty.txt.gz": ("not a video", 0),
}


def reason(found: Read) -> str:
    """Return why a file could not be read whole."""
    return found.fault.reason if found.fault else ""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_named(name: str, decoder: DecoderProcess, shared_data: Path) -> None:
    """With the reason, and with the frames that could be read before it."""
    begin, frames = HOSTILE[name]

    found = read(decoder, shared_data / "hostile" / name, SMALL)

    assert reason(found).startswith(begin)
    assert bool(reason(found)) == bool(begin)
    assert len(found.images) == frames
    assert found.fault is None or (found.fault.frames_before, found.fault.retry) == (frames, False)


def test_every_hostile_video_is_listed(shared_data: Path) -> None:
    """So that a new one is looked at."""
    files = {f"video/{path.name}" for path in (shared_data / "hostile" / "video").iterdir()}

    assert files == {name for name in HOSTILE if name.startswith("video/")}


def _sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _picture(path: Path) -> None:
    Image.fromarray(moving(1)[0]).save(path, format={"mp4": "JPEG"}.get(path.suffix[1:]))


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(9999))


def _zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(500))


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("empty.mp4", Path.touch, "empty file"),
        ("text.txt", lambda path: path.write_text("Once upon a time\n" * 99), "not a video"),
        ("text.mp4", lambda path: path.write_text("Once upon a time\n" * 99), "not a video"),
        ("noise.bin", _noise, "not a video"),
        ("noise.mkv", _noise, "not a video that can be read: EBML header parsing failed"),
        ("zeros.mp4", lambda path: path.write_bytes(bytes(9999)), "not a video"),
        ("archive.avi", _zip, "not a video"),
        ("sound.wav", _sound, "no video stream"),
        ("picture.png", _picture, "a still image"),
        ("picture.jpg", _picture, "a still image"),
        ("picture.webp", _picture, "a still image"),
        ("picture.bmp", _picture, "a still image"),
        ("picture.gif", _picture, "a still image"),
        ("picture.mp4", _picture, "a still image"),
        ("folder.mp4", Path.mkdir, "not a regular file"),
        ("pipe.mp4", lambda path: os.mkfifo(path), "not a regular file"),
        ("absent.mp4", lambda path: None, "cannot be opened: No such file or directory"),
    ],
)  # fmt: skip
def test_what_is_no_video_is_named(
    name: str, make: Any, expected: str, decoder: DecoderProcess, tmp_path: Path
) -> None:
    """By both questions that can be asked of a file, and not as something that another decoder should try."""
    path = tmp_path / name
    make(path)

    found = read(decoder, path, SMALL)

    assert reason(found) == expected
    assert found.fault is not None
    assert not found.fault.retry
    assert str(found.fault) == f"{path}: {expected}"
    if name != "picture.gif":  # one frame or many is known only at the end
        with pytest.raises(VideoFault):
            decoder.probe(path)


def test_a_playlist_opens_nothing(decoder: DecoderProcess, tmp_path: Path) -> None:
    """FFmpeg would read the files that it names; they may be anybody's."""
    film = grey_film(tmp_path / "film.ts", [50] * 30)
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{film}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile film.ts\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{film}\n#EXT-X-ENDLIST\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        assert reason(read(decoder, tmp_path / name, SMALL)) == "not a video"


@pytest.mark.parametrize(
    "name", ["a: b.mp4", "http:x.mp4", "%03d.mp4", "-i.mp4", "a\nb.mp4", "ä€😀.mp4", "b\udcff.mp4"]
)
def test_a_name_is_only_a_name(name: str, decoder: DecoderProcess, tmp_path: Path) -> None:
    """Colons, patterns, line ends and bytes that are no text."""
    grey_film(tmp_path / "film.mp4", [50] * 3).rename(tmp_path / name)

    assert len(read(decoder, tmp_path / name, SMALL).times) == 3


@pytest.mark.parametrize("name", ["pyav", "decord", "ffmpeg"])
def test_an_absurd_size_is_refused_by_the_header(name: str, decoder: DecoderProcess, tmp_path: Path) -> None:
    """A header of 60000 x 60000 pixels costs nothing."""
    path = grey_film(tmp_path / "huge.avi", [50] * 3, codec="rawvideo", pix_fmt="yuv420p")
    content = path.read_bytes()
    at = content.index(b"strf") + 12
    assert struct.unpack("<II", content[at : at + 8]) == (64, 48)
    path.write_bytes(content[:at] + struct.pack("<II", 60000, 60000) + content[at + 8 :])

    found = read(decoder, path, Wanted(height=48, width=64, decoder=name))  # type: ignore[arg-type]

    if name == "ffmpeg" and "no ffmpeg" in reason(found):
        pytest.skip("there is no ffmpeg program")
    assert reason(found) == "60000 x 60000 pixels, more than 67108864 in a frame"
    with pytest.raises(VideoFault, match="60000 x 60000"):
        decoder.probe(path)


def test_an_absurd_size_is_refused_by_the_frame(decoder: DecoderProcess, tmp_path: Path) -> None:
    """A stream may grow after its header."""
    small = grey_film(tmp_path / "small.h264", [50] * 5)
    large = grey_film(tmp_path / "large.h264", [50] * 5, height=480, width=640)
    path = tmp_path / "grows.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())

    found = read(decoder, path, Wanted(height=48, width=64, most_pixels=64 * 48))

    assert len(found.times) <= 5
    assert reason(found).startswith(("640 x 480 pixels, more than 3072 in a frame", "damaged"))


CONTAINERS: dict[str, dict[str, Any]] = {
    "film.mp4": {},
    "film_faststart.mp4": {"container_options": {"movflags": "faststart"}},
    "film_fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "10"}},
    "film.mkv": {},
    "film.webm": {"codec": "libvpx", "options": {"deadline": "realtime"}},
    "film.avi": {"codec": "mpeg4"},
    "film.ts": {},
    "film.flv": {},
    "film.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "film.ogv": {"codec": "libtheora"},
}
# Bytes at the end without which every frame is still there: trailing indices, or nothing that says where the end is.
QUIET = {"film.flv", "film.ogv", "film.ts"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_film_that_is_cut_off_is_named(name: str, decoder: DecoderProcess, tmp_path: Path) -> None:
    """At any place: the frames before the cut are those of the whole film, then comes the fault."""
    if CONTAINERS[name].get("codec") not in {None, *av.codecs_available}:
        pytest.skip(f"this build of FFmpeg cannot write {name}")
    path = make_film(tmp_path / name, moving(60), **CONTAINERS[name])
    content = path.read_bytes()
    whole = read(decoder, path, SMALL)
    assert whole.fault is None
    assert len(whole.times) == 60
    for place in np.random.default_rng(len(name)).integers(1, len(content) - 1, 8).tolist():
        path.write_bytes(content[:place])

        found = read(decoder, path, SMALL)

        complete = len(found.images) == 60 or name in QUIET
        assert found.fault is not None or complete, f"cut at {place} of {len(content)}: {len(found.images)} frames"
        shared = max(0, len(found.images) - 2)
        assert np.abs(found.images[:shared].astype(int) - whole.images[:shared]).max(initial=0) == 0
        if found.fault is not None:
            assert found.fault.frames_before == len(found.images)
            assert not found.fault.retry


def test_a_cut_says_how_much_is_there(decoder: DecoderProcess, tmp_path: Path) -> None:
    """And a file that is still being written has no index yet."""
    path = make_film(tmp_path / "film.mkv", moving(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = read(decoder, path, SMALL)
    assert reason(found) == f"cut off: {len(found.images)} frames could be read"
    assert 10 < len(found.images) < 60

    path = make_film(tmp_path / "film.mp4", moving(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert reason(read(decoder, path, SMALL)) == "no index (moov): cut off, still being written, or damaged"


def test_an_mp4_file_that_goes_on_to_the_end_says_how_long_it_is(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Its box of frames may have no length, but its index states the film's."""
    path = make_film(tmp_path / "film.mp4", moving(60), container_options={"movflags": "faststart"})
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") - 4
    content[begin : begin + 4] = bytes(4)
    path.write_bytes(content)
    assert reason(read(decoder, path, SMALL)) == ""
    path.write_bytes(content[: begin + (len(content) - begin) * 2 // 3])

    found = read(decoder, path, SMALL)

    assert reason(found) == f"cut off: {len(found.images)} frames could be read"


@pytest.mark.parametrize("seed", range(12))
def test_broken_bytes_cost_one_file(seed: int, decoder: DecoderProcess, tmp_path: Path) -> None:
    """Whatever is overwritten, headers too, the file is read or named, and the next one is read."""
    names = sorted(set(CONTAINERS) - {"film.ogv"})
    name = names[seed % len(names)]
    path = make_film(tmp_path / name, moving(12), **CONTAINERS[name])
    content = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    for place in generator.integers(0, len(content), 40).tolist():
        content[place] = int(generator.integers(0, 256))
    path.write_bytes(content)

    found = read(decoder, path, SMALL)

    assert found.fault is None or found.fault.reason
    assert np.all(np.diff(found.times) > 0)
    assert len(read(decoder, grey_film(tmp_path / "next.mp4", [50] * 3), SMALL).times) == 3


@pytest.mark.parametrize("name", ["pyav", "decord"])
def test_an_absurd_rate_says_nothing(name: Any, decoder: DecoderProcess, tmp_path: Path) -> None:
    """The frames of an AVI file at a million a second are taken at 25; decord hands it on."""
    path = grey_film(tmp_path / "film.avi", [40, 200, 90], codec="mpeg4")
    content = path.read_bytes()
    at = content.index(b"strh") + 28
    path.write_bytes(content[:at] + struct.pack("<II", 1, 10**6) + content[at + 8 :])

    found = read(decoder, path, Wanted(height=48, width=64, decoder=name))

    if name == "decord":
        assert found.fault is not None
        assert found.fault.retry
    else:
        np.testing.assert_allclose(found.times, [0, 0.04, 0.08])


def test_no_rate_in_the_header_is_no_fault(decoder: DecoderProcess, tmp_path: Path) -> None:
    """A rate of 0 leaves the stamps, and a raw stream without stamps goes by the rate that FFmpeg takes."""
    path = grey_film(tmp_path / "film.avi", [40, 200, 90], codec="mpeg4")
    content = path.read_bytes()
    at = content.index(b"strh") + 28
    path.write_bytes(content[:at] + struct.pack("<II", 0, 0) + content[at + 8 :])

    found = read(decoder, path, SMALL)

    assert len(found.times) == 3
    assert np.all(np.diff(found.times) > 0)


def test_a_folder_of_other_files_is_gone_through_quickly(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Each is named, all by one process."""
    for number in range(300):
        (tmp_path / f"{number}.mp4").write_text(f"not a film but number {number}")
    decoder.probe(grey_film(tmp_path / "film.mkv", [50] * 3))
    before = decoder.pid

    reasons = {reason(read(decoder, tmp_path / f"{number}.mp4", SMALL)) for number in range(300)}

    assert reasons == {"not a video"}
    assert decoder.pid == before
