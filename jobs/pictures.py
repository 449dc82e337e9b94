"""Frames as a file that anything shows: a film, an animation or a sheet of pictures, by the suffix of its name.

pictures u8 (h, w, 3), seconds -> .mp4 (H.264) | .webp | .gif | .png (Pillow) -> beside -> renamed
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bytropix.datasets.store.commit import BESIDE, flush_file, flush_folder, rename, room_for
from bytropix.errors import ConfigError
from bytropix.jobs.drawing import GROUND, Frame
from bytropix.pipelines.video.encode import write_video

LEAST_SECONDS = 0.02  # browsers slow down what is faster
CRF = 12  # of H.264: thin lines of one colour stay clear
SHEET_GAP = 8

Writer = Callable[[Path, Sequence[Frame], Sequence[float]], None]


def write_pictures(path: Path, pictures: Sequence[Frame], seconds: Sequence[float]) -> None:
    """Write pictures to a file of the kind that its suffix names, as a whole or not at all.

    Args:
        path: Where to; an earlier file is replaced.
        pictures: u8 (h, w, 3) each, all of one size, height and width even; at least one.
        seconds: How long each is shown.

    Raises:
        ConfigError: The suffix is none of ours, or the folder is missing.
        StoreError: The place cannot be written.
    """
    writer = writer_of(path)
    beside = path.with_name(f"{BESIDE}{path.name}")
    with room_for(path):
        try:
            writer(beside, pictures, seconds)
            flush_file(beside)
            rename(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        flush_folder(path.parent)


def writer_of(path: Path) -> Writer:
    """Return what writes a file of this name.

    Raises:
        ConfigError: The suffix is none of ours, the folder is missing, or a folder has this name.
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ConfigError(f"--out {path}: the name must end in one of {', '.join(WRITERS)}")
    if path.is_dir():
        raise ConfigError(f"--out {path}: is a folder; name a file in it, such as {path / 'clip.mp4'}")
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: there is no folder {path.parent}; make it first")
    return writer


def animation(pictures: Sequence[Frame], seconds: Sequence[float], quality: int) -> bytes:
    """Return pictures as an endless WebP animation.

    Args:
        pictures: u8 (h, w, 3) each, all of one size.
        seconds: How long each is shown.
        quality: 0 to 100.
    """
    out = io.BytesIO()
    first, *rest = map(Image.fromarray, pictures)
    first.save(
        out,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=_milliseconds(seconds),
        loop=0,
        quality=quality,
        method=4,
    )
    return out.getvalue()


def _write_webp(path: Path, pictures: Sequence[Frame], seconds: Sequence[float]) -> None:
    path.write_bytes(animation(pictures, seconds, 90))


def _write_gif(path: Path, pictures: Sequence[Frame], seconds: Sequence[float]) -> None:
    first, *rest = map(Image.fromarray, pictures)
    first.save(path, "GIF", save_all=True, append_images=rest, duration=_milliseconds(seconds), loop=0, optimize=False)


def _write_png(path: Path, pictures: Sequence[Frame], seconds: Sequence[float]) -> None:
    """Write all pictures side by side, in rows."""
    height, width = pictures[0].shape[:2]
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = -(-len(pictures) // columns)
    down, across = height + SHEET_GAP, width + SHEET_GAP
    sheet = np.empty((rows * down - SHEET_GAP, columns * across - SHEET_GAP, 3), np.uint8)
    sheet[:] = GROUND
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet[row * down : row * down + height, column * across : column * across + width] = picture
    Image.fromarray(sheet).save(path, "PNG")


def _write_mp4(path: Path, pictures: Sequence[Frame], seconds: Sequence[float]) -> None:
    height, width = pictures[0].shape[:2]
    times = np.concatenate(([0.0], np.cumsum(seconds)[:-1]))
    with write_video(path, height, width, fps=1 / float(np.median(seconds)), crf=CRF) as film:
        film.write(np.stack(pictures), times)


def _milliseconds(seconds: Sequence[float]) -> list[int]:
    return [round(1000 * max(span, LEAST_SECONDS)) for span in seconds]


WRITERS: dict[str, Writer] = {
    ".mp4": _write_mp4,
    ".webp": _write_webp,
    ".gif": _write_gif,
    ".png": _write_png,
}
