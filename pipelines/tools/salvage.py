"""Damaged parts mended from what is left of them.

    bytes, doc_ends, doc_meta whole?  -> scored and cut anew by the store's table \
    a tar whole?                      -> its index read off it                     -> encoded -> hashes as recorded?
                                                                                  -> the damaged files written

Entropies, starts, the group's own metadata and indexes follow from the rest, so they need no source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from bytropix.datasets.store import (
    PartArrays,
    PartLayout,
    PartRecord,
    Storage,
    StoredFile,
    open_part,
    open_storage,
    settled,
)
from bytropix.datasets.store.formats import encode
from bytropix.datasets.store.schema import FileRecord
from bytropix.datasets.store.tar_part import read_index
from bytropix.datasets.store.tar_writer import index_name
from bytropix.datasets.store.zarr_group import RAW, encode_group
from bytropix.errors import StoreError
from bytropix.patching import Patcher
from bytropix.pipelines.tools.part_check import ReadOnce, patcher_of

NEEDED = ("bytes/", "doc_ends/", "doc_meta/")  # arrays of a Zarr part that follow from nothing else


@dataclass(frozen=True, kw_only=True, slots=True)
class SalvageTask:
    """One damaged part."""

    url: str
    record: PartRecord
    layout: PartLayout
    patcher: str
    """See `patcher_of`."""
    bad: tuple[str, ...]
    """Its damaged files, below the part's folder."""

    def __str__(self) -> str:
        return f"{self.record.split}/{self.record.name}"


def do_salvage(task: SalvageTask) -> bool:
    """Mend a part from what is left of it; return whether that was enough.

    Raises:
        StoreError: The disk is full, or the table is damaged.
    """
    storage, record = open_storage(task.url), task.record
    if record.format == "zarr" and any(name.startswith(NEEDED) for name in task.bad):
        return False
    patcher = patcher_of(task.url, task.patcher)
    try:
        arrays = _left(storage, record, task.bad, patcher)
    except StoreError:
        return False
    return write_damaged(storage, record, encode(arrays, task.layout, record.name), task.bad)


def write_damaged(storage: Storage, record: PartRecord, files: list[StoredFile], bad: tuple[str, ...]) -> bool:
    """Write the damaged files of a part that was made anew, if it is the one that the record says; return whether.

    Raises:
        StoreError: The disk is full, or the place cannot be written.
    """
    own = settled(record)[0].files if record.beside else record.files
    names = {file.path: recorded for file, recorded in zip(own, record.files, strict=True)}
    if names.keys() != {file.name for file in files}:
        return False
    if any(FileRecord.hash_of(*file.pieces) != names[file.name].sha256 for file in files):
        return False
    for file in files:
        name = names[file.name].path
        if name in bad:
            with storage.open_write(f"{record.folder}/{name}") as target:
                for piece in file.pieces:
                    target.write(piece)
    return True


def _left(storage: Storage, record: PartRecord, bad: tuple[str, ...], patcher: Patcher) -> PartArrays:
    """Return the arrays of a part, those that follow from others made anew.

    Raises:
        StoreError: Others are damaged.
    """
    once = ReadOnce(storage, _made_anew(storage, record, bad))
    part = open_part(cast(Storage, once), record)
    text, ends = part.read("bytes", 0, part.n_bytes), part.doc_ends
    entropy, starts = patcher.patch(text, ends)
    return PartArrays(text, entropy, starts, ends, part.doc_meta_lines())


def _made_anew(storage: Storage, record: PartRecord, bad: tuple[str, ...]) -> Mapping[str, bytes]:
    """Return the contents of small files of a part that others tell, by their names below the store."""
    if record.format == "zarr":
        group = encode_group({"starts": np.zeros(1, np.uint8)}, RAW)
        return {f"{record.folder}/zarr.json": b"".join(group[-1].pieces)} if "zarr.json" in bad else {}
    tar = next(file.path for file in record.files if file.path.endswith(".tar"))
    if tar in bad:
        raise StoreError(f"{storage.url}/{record.folder}/{tar}: damaged")
    index = read_index(storage.read(f"{record.folder}/{tar}"))
    return {f"{record.folder}/{index_name(tar)}": index}
