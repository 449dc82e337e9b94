"""Films that begin like something else: they are stored, and what they begin like is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.pipelines.video.sniff import HEAD_BYTES, why_no_video

PICTURES = [Image.fromarray(np.full((48, 64, 3), 20 * number, np.uint8)) for number in range(4)]
PNG, HEADER = b"\x89PNG\r\n\x1a\n", b"\0\0\0\rIHDR" + bytes(17)
JFIF = b"\xff\xd8\xff\xe0\0\x10JFIF\0"


def coded(picture: Image.Image, **options: Any) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def dark_y4m(frames: int) -> bytes:
    """Return a raw film whose bytes are all those of printable characters."""
    luma = b"\x20" * (48 * 64) + b"\x7e" * (48 * 64 // 2)
    return b"YUV4MPEG2 W64 H48 F10:1 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + luma) * frames


def test_films_that_begin_like_pictures_or_text(tmp_path: Path) -> None:
    """Each is stored whole under whatever name; a single picture is a still image, and so is a photo of two."""
    folder = tmp_path / "in"
    folder.mkdir()
    jpegs = [coded(picture, format="JPEG") for picture in PICTURES]
    marks = Image.Exif()
    marks[0x010F] = "a camera's maker"
    photo = coded(PICTURES[1], format="JPEG", exif=marks)
    files = {
        "dark.y4m": dark_y4m(5),
        "raw.mjpeg": b"".join(jpegs),
        "named.mp4": b"".join(jpegs[1:]),
        "moving.png": coded(PICTURES[0], format="PNG", save_all=True, append_images=PICTURES[1:], duration=100),
        "still.jpg": jpegs[1],
        "still.mp4": jpegs[1],
        "photo.jpg": photo + jpegs[0],
        "still.png": coded(PICTURES[1], format="PNG"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    config = VideoConfig(size=(32, 48), clip_frames=2, val_fraction=0.0)
    store = ingest_video([folder], tmp_path / "s.bx", config, max_bad=1.0).store
    rows = [row for part in store.video_parts("train") for row in part.video_meta()]

    assert {row["source"]: row["frames"] for row in rows} == {
        "in/dark.y4m": 5,
        "in/raw.mjpeg": 4,
        "in/named.mp4": 3,
        "in/moving.png": 4,
    }
    assert {row["path"]: row["reason"] for row in store.quarantine()} == {
        "in/still.jpg": "a still image",
        "in/still.mp4": "a still image",
        "in/photo.jpg": "a still image (JPEG)",
        "in/still.png": "a still image (PNG)",
    }


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (PNG + HEADER + b"\0\0\0\x08acTL", ""),
        (PNG + HEADER + b"\0\0\x01\0IDATxxacTL", "a still image (PNG)"),
        (PNG + HEADER, "a still image (PNG)"),
        ((PNG + HEADER).ljust(HEAD_BYTES, b"\1"), ""),
        (JFIF, ""),
        (JFIF + b"\xff\xe2\0\xffMPF\0", "a still image (JPEG)"),
        (b"\xff\xd8\xff\xe1\0\xffExif\0\0", "a still image (JPEG)"),
        (dark_y4m(1)[:HEAD_BYTES], ""),
        (b" " + dark_y4m(1)[:HEAD_BYTES], "no video but text"),
    ],
)
def test_first_bytes_of_pictures(head: bytes, what: str) -> None:
    """What is surely one picture has its name; of all else the decoder is asked."""
    assert why_no_video(head) == what
