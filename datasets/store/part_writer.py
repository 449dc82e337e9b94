"""Writing one part, a Zarr v3 group that plain zarr reads.

    bytes u8[n]   entropy u8[n]   starts u8[(n + 7) / 8], lowest bit first   doc_ends i64[d]   doc_meta u8, JSON lines

zstd: each array is one shard file of 256 KiB inner chunks, each compressed and then checksummed with crc32c.
none: each array is one raw chunk file, which readers map; the checksums of its blocks are an attribute of the array.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from bytropix.datasets.store.commit import new_folder, record_files
from bytropix.datasets.store.patch_lengths import count_lengths
from bytropix.datasets.store.schema import BLOCK_BYTES, PartRecord, SourceSpan

ZSTD_LEVEL = 1  # level 3 saves two percent more on prose and takes twice the time
CODECS = ("zstd", "none")
CHECKSUMS = "block_crc32c"  # attribute of a raw array: crc32c of each block


@dataclass(frozen=True, slots=True)
class PartArrays:
    """The arrays of a part in memory."""

    text: NDArray[np.uint8]
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
    with new_folder(root / "parts" / split / name) as beside:
        group = zarr.open_group(beside, mode="w")
        write_array(group, "bytes", arrays.text, codec=codec)
        write_array(group, "entropy", arrays.entropy, codec=codec)
        write_array(group, "starts", np.packbits(arrays.starts, bitorder="little"), codec=codec)
        write_array(group, "doc_ends", arrays.doc_ends.astype("<i8", copy=False), codec=codec)
        write_array(group, "doc_meta", np.frombuffer(arrays.doc_meta, np.uint8), codec=codec)
        files = record_files(beside)
    return PartRecord(
        split=split,
        name=name,
        n_bytes=len(arrays.text),
        documents=len(arrays.doc_ends),
        compressed=codec != "none",
        files=files,
        spans=spans,
        patch_lengths=tuple(count_lengths(arrays.starts, 0, len(arrays.starts)).tolist()),
    )


def write_array(group: zarr.Group, name: str, values: NDArray[Any], *, codec: str) -> None:
    """Write a one-dimensional array of at least one element as a single chunk or shard file."""
    options: dict[str, Any] = {"chunks": values.shape}
    if codec == "none":
        options["attributes"] = {CHECKSUMS: block_checksums(values.view(np.uint8))}
    else:
        inner = BLOCK_BYTES // values.dtype.itemsize
        options["chunks"] = (-(-len(values) // inner) * inner,)
        options["serializer"] = ShardingCodec(
            chunk_shape=(inner,), codecs=[BytesCodec(), ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()]
        )
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        compressors=None,
        filters=None,
        config={"write_empty_chunks": True},
        **options,
    )
    array[:] = values


def block_checksums(values: NDArray[np.uint8]) -> list[int]:
    """Return the crc32c of each block of `values`."""
    return [
        google_crc32c.value(values[begin : begin + BLOCK_BYTES].tobytes())
        for begin in range(0, len(values), BLOCK_BYTES)
    ]
