"""The formats of a part, and how one is written and opened.

PartArrays + PartLayout -> encode -> write -> PartRecord -> open_part -> Part

A new format is a file with an encoder and a Part, and one line in `open_part` and in `_encode`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from bytropix.datasets.store import tar_part, zarr_part
from bytropix.datasets.store.codecs import CodecName, check_codec
from bytropix.datasets.store.part import Part, PartArrays
from bytropix.datasets.store.schema import NEXT, FileRecord, PartRecord, SourceSpan, beside_name
from bytropix.datasets.store.storage import Storage, StoredFile
from bytropix.datasets.store.zarr_group import ArrayLayout, encode_group
from bytropix.errors import ConfigError, StoreError

FormatName = Literal["zarr", "webdataset"]
SUFFIXES: dict[str, str] = {"zarr": ".zarr", "webdataset": ".tar"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PartLayout:
    """How a part lies on disk."""

    format: FormatName = "zarr"
    """zarr: a Zarr group; webdataset: a tar of samples."""
    codec: CodecName | None = None
    """Compression, by its numcodecs name; zstd of zarr parts, none of tars, which are never compressed."""
    codec_level: int | None = None
    """zstd -7 to 22, lz4 1 (densest) to 1000, blosc-zstd 0 to 9; 1 by default."""

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise ConfigError(f"format must be one of {', '.join(SUFFIXES)}, got {self.format!r}")
        if self.format == "webdataset" and self.codec not in (None, "none"):
            raise ConfigError(f"codec {self.codec}: tars are not compressed; leave it out or use --format zarr")
        check_codec(self.used_codec, self.codec_level)

    @property
    def used_codec(self) -> CodecName:
        """The codec that is meant."""
        return self.codec or ("zstd" if self.format == "zarr" else "none")

    def part_name(self, number: int) -> str:
        """Return the name of a part below parts/<split>/."""
        return f"{number:05d}{SUFFIXES[self.format]}"


def encode(arrays: PartArrays, layout: PartLayout, name: str) -> list[StoredFile]:
    """Return the files of a part, below its record's folder."""
    if layout.format == "webdataset":
        return tar_part.encode_part(arrays, name)
    return zarr_part.encode_part(arrays, layout.used_codec, layout.codec_level)


def write_part(
    storage: Storage,
    split: str,
    name: str,
    arrays: PartArrays,
    *,
    layout: PartLayout,
    spans: tuple[SourceSpan, ...],
    patch_lengths: tuple[int, ...],
    pieces: int = 0,
    version: int = 1,
) -> PartRecord:
    """Write a part below parts/`split` and return its record.

    A zarr part appears as a whole; of a tar the index appears first, and neither counts without a record.

    Args:
        storage: The store's.
        split: train or val.
        name: As `PartLayout.part_name` gives it.
        arrays: What it holds.
        layout: How it lies there.
        spans: Where its bytes come from.
        patch_lengths: How many patches have 0, 1, 2 ... bytes.
        pieces: Documents that are a piece of a longer one.
        version: The version of the store that it is added in.

    Raises:
        StoreError: The disk is full, or the place cannot be written.
    """
    files = encode(arrays, layout, name)
    record = PartRecord(
        split=split,
        name=name,
        n_bytes=len(arrays.text),
        documents=len(arrays.doc_ends),
        compressed=layout.used_codec != "none",
        files=records_of(files),
        spans=spans,
        patch_lengths=patch_lengths,
        format=layout.format,
        codec=layout.used_codec,
        pieces=pieces,
        version=version,
    )
    write_encoded(storage, record, files)
    return record


def write_starts(
    storage: Storage,
    record: PartRecord,
    arrays: PartArrays,
    *,
    layout: PartLayout,
    spans: tuple[SourceSpan, ...],
    patch_lengths: tuple[int, ...],
) -> PartRecord:
    """Write other starts of a part under their second name, see `beside_name`, and return its record with them.

    In a Zarr part they are one array of five; a tar is written anew, with its index.

    Raises:
        StoreError: The disk is full, or the place cannot be written.
    """
    if record.format == "webdataset":
        files = tar_part.encode_part(arrays, record.name)
    else:
        packed = {"starts": zarr_part.pack(arrays.starts)}
        group = encode_group(packed, ArrayLayout(codec=layout.used_codec, level=layout.codec_level))
        files = [file for file in group if file.name.startswith("starts/")]
    beside = [StoredFile(beside_name(file.name), file.pieces) for file in files]
    for item in beside:
        _write(storage, f"{record.folder}/{item.name}", item)
    written = dict(zip((file.name for file in files), records_of(beside), strict=True))
    return replace(
        record,
        beside=True,
        files=tuple(written.get(file.path, file) for file in record.files),
        spans=spans,
        patch_lengths=patch_lengths,
    )


def settled(record: PartRecord) -> tuple[PartRecord, list[tuple[str, str]]]:
    """Return the record of a part whose starts have their own name again, and the second and the own name of each file.

    The names are those below the store.
    """
    own = {beside_name(name): name for name in (file.path.replace(NEXT, "", 1) for file in record.files)}
    moved = [(file.path, own[file.path]) for file in record.files if file.path in own]
    files = tuple(replace(file, path=own.get(file.path, file.path)) for file in record.files)
    folder = record.folder
    return replace(record, beside=False, files=files), [(f"{folder}/{old}", f"{folder}/{new}") for old, new in moved]


def write_encoded(storage: Storage, record: PartRecord, files: list[StoredFile]) -> None:
    """Write the files of a part where its record says."""
    if record.format == "zarr":
        storage.write_folder(record.folder, files)
        return
    for item in files:
        _write(storage, f"{record.folder}/{item.name}", item)


def _write(storage: Storage, name: str, item: StoredFile) -> None:
    """Write a file that is in memory."""
    with storage.open_write(name) as file:
        for piece in item.pieces:
            file.write(piece)


def records_of(files: list[StoredFile]) -> tuple[FileRecord, ...]:
    """Return name, size and hash of files in memory."""
    return tuple(FileRecord(path=file.name, size=file.size, sha256=FileRecord.hash_of(*file.pieces)) for file in files)


def open_part(storage: Storage, record: PartRecord) -> Part:
    """Return a part of bytes, open for reading.

    Raises:
        StoreError: It is one of video.
    """
    if record.frames:
        raise StoreError(
            f"{storage.url}/parts/{record.split}/{record.name}: holds video, not bytes; read it with ClipStream"
        )
    kinds: dict[str, type[tar_part.TarPart] | type[zarr_part.ZarrPart]] = {
        "zarr": zarr_part.ZarrPart,
        "webdataset": tar_part.TarPart,
    }
    return kinds[record.format](storage, record)
