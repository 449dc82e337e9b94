"""What a manifest and its lists may say: they come from outside, and a right checksum proves no good intent.

names -> inside the store?      part -> a format that is known? of at least one byte?      all parts -> still a number?
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from bytropix.datasets.store.formats import SUFFIXES
from bytropix.datasets.store.schema import PartRecord
from bytropix.errors import StoreError

MOST_BYTES = 1 << 62  # of all parts: what is added up to this fits an i64
MOST_SIDE = 1 << 16  # pixels
MOST_CLIP = 1 << 20  # frames
FRAME_CODECS = ("raw", "zstd", "jpeg", "h264")


def check_inside(place: str, name: str) -> None:
    """Refuse a name that is no path inside the store.

    Raises:
        StoreError: It is not; the message begins with `place`.
    """
    steps = name.split("/")
    if not all(steps) or {".", ".."} & set(steps) or "\\" in name or ":" in name or "\0" in name:
        raise StoreError(f"{place}: names {name!r}, which is no path inside the store; do not trust it")


def check_part(place: str, part: PartRecord) -> None:
    """Refuse the record of a part that can be none.

    Raises:
        StoreError: It names something outside the store, is of an unknown format, or holds nothing.
    """
    for step in (part.folder, part.name, *(file.path for file in part.files)):
        check_inside(place, step)
    if part.format not in SUFFIXES:
        raise StoreError(f"{place}: a part of format {part.format!r}, which is unknown here; upgrade bytropix")
    if part.frames or part.frame_shape:
        _check_frames(place, part)
    if part.n_bytes < 1 or part.documents < 1:
        raise StoreError(
            f"{place}: part {part.split}/{part.name} of {part.n_bytes} bytes in {part.documents} documents; "
            "do not trust it"
        )


def check_kind(place: str, kind: str, part: PartRecord) -> None:
    """Refuse a part that is not of the kind that its store is of.

    Raises:
        StoreError: It is not.
    """
    if (kind == "video") != bool(part.frames):
        raise StoreError(
            f"{place}: part {part.split}/{part.name} of {part.frames} frames in a store of {kind}; do not trust it"
        )


def _check_frames(place: str, part: PartRecord) -> None:
    """Refuse the record of a part of video whose numbers do not fit each other."""
    shape = part.frame_shape
    right = (
        len(shape) == 2
        and all(1 <= length <= MOST_SIDE for length in shape)
        and part.n_bytes == part.frames * 3 * math.prod(shape)
        and 1 <= part.documents <= part.frames
        and 1 <= part.clip_frames <= MOST_CLIP
        and part.codec in FRAME_CODECS
        and not part.patch_lengths
        and part.n_bytes < MOST_BYTES
    )
    if not right:
        raise StoreError(
            f"{place}: part {part.split}/{part.name} of {part.n_bytes} bytes in {part.frames} frames of shape "
            f"{list(shape)}, {part.documents} videos, clips of {part.clip_frames}, codec {part.codec!r}; "
            "do not trust it"
        )


def check_total(place: str, part_bytes: ArrayLike) -> None:
    """Refuse parts that have more bytes together than can be counted.

    Raises:
        StoreError: They have.
    """
    total = np.asarray(part_bytes, np.float64).sum()
    if not total < MOST_BYTES:
        raise StoreError(f"{place}: parts of {total:.3g} bytes; do not trust it")
