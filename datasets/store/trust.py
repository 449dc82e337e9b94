"""What a manifest and its lists may say: they come from outside, and a right checksum proves no good intent.

names -> inside the store?      part -> a format that is known? of at least one byte?      all parts -> still a number?
"""

import numpy as np
from numpy.typing import ArrayLike

from bytropix.datasets.store.formats import SUFFIXES
from bytropix.datasets.store.schema import PartRecord
from bytropix.errors import StoreError

MOST_BYTES = 1 << 62  # of all parts: what is added up to this fits an i64


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
    if part.n_bytes < 1 or part.documents < 1:
        raise StoreError(
            f"{place}: part {part.split}/{part.name} of {part.n_bytes} bytes in {part.documents} documents; "
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
