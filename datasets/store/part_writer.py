"""Writing one part, a Zarr v3 group that plain zarr reads.

    bytes u8[n]   entropy u8[n]   starts u8[(n + 7) / 8], lowest bit first   doc_ends i64[d]   doc_meta u8, JSON lines

zstd: each array is one shard file of 256 KiB inner chunks, each compressed and then checksummed with crc32c.
none: each array is one raw chunk file, which readers map; the checksums of its blocks stand in the manifest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from bytropix.datasets.store.commit import new_folder, sha256_of
from bytropix.datasets.store.schema import BLOCK_BYTES, FileRecord, PartRecord, SourceSpan

ZSTD_LEVEL = 1  # level 3 saves two percent more on prose and takes twice the time
CODECS = ("zstd", "none")


@dataclass(frozen=True, slots=True)
class PartArrays:
    """The arrays of a part in memory."""

    bytes: NDArray[np.uint8]
    entropy: NDArray[np.uint8]
    starts: NDArray[np.bool_]
    doc_ends: NDArray[np.int64]
    doc_meta: bytes


def write_part(
    root: Path, split: str, name: str, arrays: PartArrays, *, codec: str, spans: tuple[SourceSpan, ...]
) -> PartRecord:
    """Write a part below `root`/parts/`split` and return its record; it is there as a whole or not at all.

    Raises:
        StoreError: The disk is full.
    """
    packed = np.packbits(arrays.starts, bitorder="little")
    folder = root / "parts" / split / name
    with new_folder(folder) as beside:
        group = zarr.open_group(beside, mode="w")
        columns: dict[str, NDArray[Any]] = {
            "bytes": arrays.bytes,
            "entropy": arrays.entropy,
            "starts": packed,
            "doc_ends": arrays.doc_ends,
            "doc_meta": np.frombuffer(arrays.doc_meta, np.uint8),
        }
        for column, values in columns.items():
            write_array(group, column, values, codec=codec)
        files = tuple(
            FileRecord(path=file.relative_to(beside).as_posix(), size=file.stat().st_size, sha256=sha256_of(file))
            for file in sorted(beside.rglob("*"))
            if file.is_file()
        )
    raw = codec == "none"
    return PartRecord(
        split=split,
        name=name,
        n_bytes=len(arrays.bytes),
        documents=len(arrays.doc_ends),
        compressed=not raw,
        files=files,
        spans=spans,
        crc_bytes=block_checksums(arrays.bytes) if raw else (),
        crc_starts=block_checksums(packed) if raw else (),
    )


def write_array(group: zarr.Group, name: str, values: NDArray[Any], *, codec: str) -> None:
    """Write a one-dimensional array as a single chunk or shard file."""
    size = max(1, len(values))
    options: dict[str, Any] = {"chunks": (size,), "compressors": None, "filters": None}
    if codec == "zstd":
        inner = max(1, BLOCK_BYTES // values.dtype.itemsize)
        shard = -(-size // inner) * inner
        options = {
            "chunks": (shard,),
            "compressors": None,
            "filters": None,
            "serializer": ShardingCodec(
                chunk_shape=(inner,), codecs=[BytesCodec(), ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()]
            ),
        }
    array = group.create_array(
        name, shape=values.shape, dtype=values.dtype, config={"write_empty_chunks": True}, **options
    )
    if len(values):
        array[:] = values


def block_checksums(values: NDArray[np.uint8]) -> tuple[int, ...]:
    """Return the crc32c of each block of `values`."""
    return tuple(
        google_crc32c.value(values[begin : begin + BLOCK_BYTES].tobytes())
        for begin in range(0, len(values), BLOCK_BYTES)
    )
