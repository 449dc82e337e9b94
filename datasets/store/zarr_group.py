"""Arrays written as a Zarr v3 group that plain zarr reads; `ZarrArray` reads them back.

    arrays, how each lies -> blocks, their crc32c -> raw chunk files, or a shard file of compressed chunks -> zarr.json

raw: chunk files as they lie in memory, which readers map, of equally many rows: the last one is filled up with zeros.
compressed: one shard file of inner chunks of at least 256 KiB, each compressed and then checksummed with crc32c.
In both, the crc32c of each block as it lies in the file is an attribute of the array. The manifest holds the hash of
zarr.json, which so vouches for every byte: a shard of another part, whole in itself, is noticed too.

zarr-python writes the metadata. The chunk and shard files are made here, block after block: in its general way a
part takes three times as long and several copies of itself in memory.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.codecs import CODECS
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.datasets.store.storage import StoredFile

CHECKSUMS = "block_crc32c"
CRC_BYTES = 4
INDEX_ENTRY = np.dtype([("offset", "<u8"), ("stored", "<u8")])


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayLayout:
    """How an array lies in its files."""

    codec: str = "none"
    """What compresses its inner chunks; none: it is raw."""
    level: int | None = None
    """Of the codec; its default if `None`."""
    rows: int = 0
    """Along the first axis: of a chunk file of a raw array, 0 for all in one; of an inner chunk of a compressed one, 0
    for as many as have 256 KiB."""


RAW = ArrayLayout()


def encode_group(
    arrays: Mapping[str, NDArray[Any]],
    layout: ArrayLayout,
    *,
    others: Mapping[str, ArrayLayout] | None = None,
    attributes: dict[str, Any] | None = None,
) -> list[StoredFile]:
    """Return the files of a Zarr group, sorted by name.

    Args:
        arrays: Little-endian, contiguous; one without elements has no chunk file.
        layout: How they lie.
        others: How some lie otherwise, by name.
        attributes: Of the group.
    """
    import zarr
    from zarr.storage import MemoryStore

    kept: dict[str, Any] = {}
    group = zarr.open_group(MemoryStore(kept), mode="w", attributes=attributes or {})
    files = []
    for name, values in arrays.items():
        how = (others or {}).get(name, layout)
        data, crcs = _raw(name, values, how) if how.codec == "none" else _sharded(name, values, how)
        files += data
        group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            compressors=None,
            filters=None,
            fill_value=0,
            attributes={CHECKSUMS: crcs},
            **_options(values, how),
        )
    metadata = [StoredFile(name, [buffer.to_bytes()]) for name, buffer in kept.items()]
    return sorted([*files, *metadata], key=lambda file: file.name)


def chunk_file(name: str, number: int, axes: int) -> str:
    """Return the name of a chunk or shard file of an array that is cut along its first axis only."""
    return "/".join([name, "c", str(number), *["0"] * (axes - 1)])


def with_crc(data: bytes) -> bytes:
    """Return `data` and its crc32c, little-endian."""
    return data + int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def _row_bytes(values: NDArray[Any]) -> int:
    return math.prod(values.shape[1:]) * values.dtype.itemsize


def _inner(values: NDArray[Any], how: ArrayLayout) -> int:
    """Return the rows of an inner chunk of a compressed array."""
    return how.rows or max(1, BLOCK_BYTES // max(1, _row_bytes(values)))


def _options(values: NDArray[Any], how: ArrayLayout) -> dict[str, Any]:
    """Return how zarr describes the chunks of an array."""
    rest = tuple(max(1, length) for length in values.shape[1:])
    if how.codec == "none":
        return {"chunks": (how.rows or max(1, len(values)), *rest)}
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

    inner = _inner(values, how)
    packed = CODECS[how.codec].to_zarr(CODECS[how.codec].default if how.level is None else how.level)
    return {
        "chunks": (max(1, -(-len(values) // inner)) * inner, *rest),
        "serializer": ShardingCodec(chunk_shape=(inner, *rest), codecs=[BytesCodec(), packed, Crc32cCodec()]),
    }


def _bytes_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an array as its bytes."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _raw(name: str, values: NDArray[Any], how: ArrayLayout) -> tuple[list[StoredFile], list[int]]:
    """Return the chunk files of a raw array, and the checksums of their blocks."""
    raw = _bytes_of(values)
    size = (how.rows or len(values)) * _row_bytes(values)
    files, crcs = [], []
    for number, begin in enumerate(range(0, len(raw), size or 1)):
        part = raw[begin : begin + size]
        missing = bytes(size - len(part))
        files.append(
            StoredFile(chunk_file(name, number, values.ndim), [part.data, missing] if missing else [part.data])
        )
        for place in range(0, size, BLOCK_BYTES):
            block = part[place : place + BLOCK_BYTES]
            crc = google_crc32c.value(block)
            crcs.append(int(google_crc32c.extend(crc, bytes(min(BLOCK_BYTES, size - place) - len(block)))))
    return files, crcs


def _sharded(name: str, values: NDArray[Any], how: ArrayLayout) -> tuple[list[StoredFile], list[int]]:
    """Return the shard file of a compressed array, as Zarr's sharding codec has it, and its chunks' checksums."""
    raw = _bytes_of(values)
    size = _inner(values, how) * _row_bytes(values)
    blocks = [raw[begin : begin + size] for begin in range(0, len(raw), size or 1)]
    coder = CODECS[how.codec].make(CODECS[how.codec].default if how.level is None else how.level)
    index = np.empty(len(blocks), INDEX_ENTRY)
    pieces: list[bytes | memoryview] = []
    crcs = []
    offset = 0
    for number, block in enumerate(blocks):
        whole = np.pad(block, (0, size - len(block))) if len(block) < size else block
        chunk = bytes(coder.encode(whole))  # the last inner chunk is as long as the others
        crcs.append(int(google_crc32c.value(chunk)))
        pieces += [chunk, crcs[-1].to_bytes(CRC_BYTES, "little")]
        index[number] = offset, len(chunk) + CRC_BYTES
        offset += len(chunk) + CRC_BYTES
    pieces.append(with_crc(index.tobytes()))
    return [StoredFile(chunk_file(name, 0, values.ndim), pieces)] if blocks else [], crcs
