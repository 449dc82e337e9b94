"""What counts as damage or a cut, what does not, and that a reason is about the file that it names."""

from pathlib import Path

import numpy as np
import pytest

from bytropix.pipelines.decoders import DecoderProcess
from tests.decoders.conftest import make_film, moving, read
from tests.decoders.test_bad_files import CONTAINERS, SMALL, reason

CLUSTER = b"\x1f\x43\xb6\x75"


def test_a_reason_never_tells_of_the_file_before(tmp_path: Path) -> None:
    """What FFmpeg logs of one file, in its header or its frames, has no part in the next one's reason."""
    before = [
        make_film(tmp_path / "before.mxf", moving(30), codec="mpeg2video"),
        make_film(tmp_path / "before.mkv", moving(30)),
        make_film(tmp_path / "before.nut", moving(30), codec="mpeg4"),
    ]
    for path in before:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    before[2].write_bytes(before[2].read_bytes()[:80])
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(9999))
    last = make_film(tmp_path / "last.wmv", moving(30), codec="wmv2")
    last.write_bytes(last.read_bytes()[:400])
    (tmp_path / "text.mp4").write_text("Once upon a time\n" * 99)

    def reasons(*paths: Path) -> list[str]:
        with DecoderProcess() as process:
            return [reason(read(process, path, SMALL)) for path in paths][-2:]

    alone = [reasons(last)[0], reasons(tmp_path / "text.mp4")[0]]
    assert reasons(*before, tmp_path / "noise.mkv", last, tmp_path / "text.mp4") == alone
    assert reasons(before[0], last, tmp_path / "text.mp4") == alone


@pytest.mark.parametrize(
    ("name", "more"),
    [("film.gif", b"\n"), ("film.gif", b"\0\r\n"), ("film_fragments.mp4", b"\n"), ("film_fragments.mp4", b"\r\n" * 6)],
)  # fmt: skip
def test_bytes_behind_the_end_are_no_cut(name: str, more: bytes, decoder: DecoderProcess, tmp_path: Path) -> None:
    """A line's end that a tool has added takes nothing away."""
    path = make_film(tmp_path / name, moving(30), **CONTAINERS[name])
    path.write_bytes(path.read_bytes() + more)

    found = read(decoder, path, SMALL)

    assert reason(found) == ""
    assert len(found.times) == 30


def test_a_cut_in_the_length_of_a_box_is_named(decoder: DecoderProcess, tmp_path: Path) -> None:
    """Four bytes of the next fragment say that there was one."""
    path = make_film(tmp_path / "film.mp4", moving(60), **CONTAINERS["film_fragments.mp4"])
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"moof")])

    assert reason(read(decoder, path, SMALL)).startswith("cut off: ")


@pytest.mark.parametrize("size", [16, 40, 100, 250])
def test_an_avi_header_that_is_cut_is_no_stranger(size: int, decoder: DecoderProcess, tmp_path: Path) -> None:
    """Its first bytes say what it was."""
    path = make_film(tmp_path / "film.avi", moving(10), codec="mpeg4")
    path.write_bytes(path.read_bytes()[:size])

    assert reason(read(decoder, path, SMALL)) == "cut off: 0 frames could be read"


def test_damage_in_the_middle_is_counted(decoder: DecoderProcess, tmp_path: Path) -> None:
    """A hole and scattered bits: all frames that the decoder still makes, then the fault, with counts in the report."""
    path = make_film(tmp_path / "film.mp4", moving(60), options={"g": "10"})
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    hole = bytearray(content)
    middle = (begin + end) // 2
    hole[middle : middle + (end - begin) // 6] = bytes((end - begin) // 6)
    path.write_bytes(hole)
    found = read(decoder, path, SMALL)
    assert reason(found).startswith("damaged: ")
    assert found.report is not None
    assert found.report.bad_packets > 0
    assert 30 < len(found.images) <= 60

    bits = bytearray(content)
    for place in np.random.default_rng(0).integers(begin + 200, end, 200).tolist():
        bits[place] ^= 1 << place % 8
    path.write_bytes(bits)
    found = read(decoder, path, SMALL)
    assert reason(found).startswith("damaged: ")
    assert found.report is not None
    assert found.report.corrupt > 0


def test_a_hole_in_a_matroska_file_is_named(decoder: DecoderProcess, tmp_path: Path) -> None:
    """FFmpeg passes over a cluster whose first byte is wrong, with a second of film, and only its log tells."""
    path = make_film(
        tmp_path / "film.mkv", moving(100), options={"g": "25"}, container_options={"cluster_time_limit": "1000"}
    )
    assert reason(read(decoder, path, SMALL)) == ""
    content = bytearray(path.read_bytes())
    at = content.index(CLUSTER, content.index(CLUSTER) + 4)
    content[at] ^= 0x10
    path.write_bytes(content)

    found = read(decoder, path, SMALL)

    assert reason(found).startswith("damaged: ")
    assert 50 < len(found.images) < 90


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_recordings_joined_are_whole_and_lost_packets_are_named(
    codec: str, decoder: DecoderProcess, tmp_path: Path
) -> None:
    """At both the numbers of an MPEG transport stream do not go on; at a join every frame is there all the same."""
    path = make_film(tmp_path / "film.ts", moving(60), codec=codec)
    content = path.read_bytes()
    path.write_bytes(content * 3)
    joined = read(decoder, path, SMALL)
    assert (reason(joined), len(joined.times)) == ("", 180)
    assert joined.report is not None
    assert joined.report.bad_packets == 0

    middle = len(content) // 188 // 2 * 188
    for lost in (5, 12):
        path.write_bytes(content[:middle] + content[middle + lost * 188 :] + content)
        assert reason(read(decoder, path, SMALL)).startswith("damaged: ")
