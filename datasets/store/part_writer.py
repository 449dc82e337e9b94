"""Writing one part, a Zarr v3 group that plain zarr reads.

    bytes u8[n]   entropy u8[n]   starts u8[(n + 7) / 8], lowest bit first   doc_ends i64[d]   doc_meta u8, JSON lines

zstd: each array is one shard file of 256 KiB inner chunks, each compressed and then checksummed with crc32c.
none: each array is one raw chunk file, which readers map; the checksums of its blocks are an attribute of the array.

zarr-python writes the metadata. The chunk and shard files are written here, block after block: in its general way a
part takes three times as long and several copies of itself in memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from bytropix.datasets.store.commit import new_folder, record_files
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
    root: Path,
    split: str,
    name: str,
    arrays: PartArrays,
    *,
    codec: str,
    spans: tuple[SourceSpan, ...],
    patch_lengths: tuple[int, ...],
) -> PartRecord:
    """Write a part below `root`/parts/`split` and return its record; it is there as a whole or not at all.

    Raises:
        StoreError: The disk is full.
    """
    with new_folder(root / "parts" / split / name) as beside:
        group = zarr.open_group(beside, mode="w")
        write_array(group, beside, "bytes", arrays.text, codec=codec)
        write_array(group, beside, "entropy", arrays.entropy, codec=codec)
        write_array(group, beside, "starts", np.packbits(arrays.starts, bitorder="little"), codec=codec)
        write_array(group, beside, "doc_ends", arrays.doc_ends.astype("<i8", copy=False), codec=codec)
        write_array(group, beside, "doc_meta", np.frombuffer(arrays.doc_meta, np.uint8), codec=codec)
        files = record_files(beside)
    return PartRecord(
        split=split,
        name=name,
        n_bytes=len(arrays.text),
        documents=len(arrays.doc_ends),
        compressed=codec != "none",
        files=files,
        spans=spans,
        patch_lengths=patch_lengths,
    )


def write_array(group: zarr.Group, folder: Path, name: str, values: NDArray[Any], *, codec: str) -> None:
    """Write a one-dimensional array of at least one element as a single chunk or shard file.

    Args:
        group: Where the array belongs.
        folder: Where the group lies.
        name: Of the array.
        values: The array, little-endian.
        codec: One of `CODECS`.
    """
    raw = values.view(np.uint8)
    blocks = [raw[begin : begin + BLOCK_BYTES] for begin in range(0, len(raw), BLOCK_BYTES)]
    options: dict[str, Any] = {"chunks": values.shape}
    if codec == "none":
        options["attributes"] = {CHECKSUMS: [google_crc32c.value(block.tobytes()) for block in blocks]}
    else:
        inner = BLOCK_BYTES // values.dtype.itemsize
        options["chunks"] = (-(-len(values) // inner) * inner,)
        options["serializer"] = ShardingCodec(
            chunk_shape=(inner,), codecs=[BytesCodec(), ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()]
        )
    group.create_array(
        name, shape=values.shape, dtype=values.dtype, compressors=None, filters=None, fill_value=0, **options
    )
    (folder / name / "c").mkdir()
    with (folder / name / "c" / "0").open("wb") as file:
        if codec == "none":
            file.write(raw.data)
        else:
            _write_shard(file, blocks)


def _write_shard(file: BinaryIO, blocks: list[NDArray[np.uint8]]) -> None:
    """Write inner chunks, then where each lies, as Zarr's sharding codec has them."""
    zstd = Zstd(level=ZSTD_LEVEL)
    index = np.empty((len(blocks), 2), "<u8")  # offset, stored bytes
    offset = 0
    for number, block in enumerate(blocks):
        whole = np.pad(block, (0, BLOCK_BYTES - len(block)))  # the last inner chunk is as long as the others
        chunk = with_crc(zstd.encode(whole))
        file.write(chunk)
        index[number] = offset, len(chunk)
        offset += len(chunk)
    file.write(with_crc(index.tobytes()))


def with_crc(data: bytes) -> bytes:
    """Return `data` and its crc32c, little-endian."""
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")
