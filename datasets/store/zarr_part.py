"""A part as a Zarr v3 group that plain zarr reads.

    bytes u8[n]   entropy u8[n]   starts u8[(n + 7) / 8], lowest bit first   doc_ends i64[d]   doc_meta u8, JSON lines

compressed: each array is one shard file of 256 KiB inner chunks, each compressed and then checksummed with crc32c.
none: each array is one raw chunk file, which readers map.
In both, the crc32c of each block as it lies in the file is an attribute of the array. The manifest holds the hash of
zarr.json, which so vouches for every byte: a shard of another part, whole in itself, is noticed too.

zarr-python writes the metadata. The chunk and shard files are made here, block after block: in its general way a
part takes three times as long and several copies of itself in memory.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.codecs import CODECS, decoder
from bytropix.datasets.store.part import Part, PartArrays
from bytropix.datasets.store.ranges import Ranges
from bytropix.datasets.store.schema import BLOCK_BYTES, NEXT, PartRecord, beside_name
from bytropix.datasets.store.storage import Storage, StoredFile
from bytropix.errors import StoreError

CHECKSUMS = "block_crc32c"
CRC_BYTES = 4
INDEX_ENTRY = np.dtype([("offset", "<u8"), ("stored", "<u8")])


def encode_part(arrays: PartArrays, codec: str, level: int | None) -> list[StoredFile]:
    """Return the files of a part."""
    return encode_group(
        {
            "bytes": arrays.text,
            "entropy": arrays.entropy,
            "starts": pack(arrays.starts),
            "doc_ends": arrays.doc_ends.astype("<i8", copy=False),
            "doc_meta": np.frombuffer(arrays.doc_meta, np.uint8),
        },
        codec,
        level,
    )


def pack(starts: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return starts as bits, the lowest first."""
    return np.packbits(starts, bitorder="little")


def encode_group(
    arrays: dict[str, NDArray[Any]], codec: str, level: int | None = None, attributes: dict[str, Any] | None = None
) -> list[StoredFile]:
    """Return the files of a Zarr group of one-dimensional arrays of at least one element, little-endian."""
    import zarr
    from zarr.storage import MemoryStore

    kept: dict[str, Any] = {}
    group = zarr.open_group(MemoryStore(kept), mode="w", attributes=attributes or {})
    files = []
    for name, values in arrays.items():
        raw = values.view(np.uint8)
        blocks = [raw[begin : begin + BLOCK_BYTES] for begin in range(0, len(raw), BLOCK_BYTES)]
        crcs: list[int]
        if codec == "none":
            pieces: list[bytes | memoryview] = [raw.data]
            crcs = [google_crc32c.value(block.tobytes()) for block in blocks]
        else:
            pieces, crcs = _shard(blocks, codec, level)
        options = _options(values, codec, level) | {"attributes": {CHECKSUMS: crcs}}
        group.create_array(
            name, shape=values.shape, dtype=values.dtype, compressors=None, filters=None, fill_value=0, **options
        )
        files.append(StoredFile(f"{name}/c/0", pieces))
    metadata = [StoredFile(name, [buffer.to_bytes()]) for name, buffer in kept.items()]
    return sorted([*files, *metadata], key=lambda file: file.name)


def _options(values: NDArray[Any], codec: str, level: int | None) -> dict[str, Any]:
    """Return how zarr describes the chunks of an array."""
    if codec == "none":
        return {"chunks": values.shape}
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

    inner = BLOCK_BYTES // values.dtype.itemsize
    how = CODECS[codec].to_zarr(CODECS[codec].default if level is None else level)
    return {
        "chunks": (-(-len(values) // inner) * inner,),
        "serializer": ShardingCodec(chunk_shape=(inner,), codecs=[BytesCodec(), how, Crc32cCodec()]),
    }


def _shard(
    blocks: list[NDArray[np.uint8]], codec: str, level: int | None
) -> tuple[list[bytes | memoryview], list[int]]:
    """Return inner chunks, then where each lies, as Zarr's sharding codec has them; and the chunks' checksums."""
    coder = CODECS[codec].make(CODECS[codec].default if level is None else level)
    index = np.empty(len(blocks), INDEX_ENTRY)
    pieces: list[bytes | memoryview] = []
    crcs = []
    offset = 0
    for number, block in enumerate(blocks):
        whole = np.pad(block, (0, BLOCK_BYTES - len(block))) if len(block) < BLOCK_BYTES else block
        chunk = bytes(coder.encode(whole))  # the last inner chunk is as long as the others
        crcs.append(int(google_crc32c.value(chunk)))
        pieces += [chunk, crcs[-1].to_bytes(CRC_BYTES, "little")]
        index[number] = offset, len(chunk) + CRC_BYTES
        offset += len(chunk) + CRC_BYTES
    pieces.append(with_crc(index.tobytes()))
    return pieces, crcs


def with_crc(data: bytes) -> bytes:
    """Return `data` and its crc32c, little-endian."""
    return data + int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


@dataclass(frozen=True, slots=True, eq=False)
class ArrayFile:
    """An array of a part, open for reading."""

    data: Ranges
    """Its chunk or shard file."""
    n_bytes: int
    """Raw bytes of the array."""
    crcs: tuple[int, ...]
    """crc32c of each block as it is stored; none of a compressed array of format version 1."""
    index: NDArray[np.void]
    """Where the inner chunks of a compressed array lie, as `INDEX_ENTRY`."""
    decode: Callable[[Any], NDArray[np.uint8]]
    """What decodes an inner chunk."""


class ZarrPart(Part):
    """A part that is a Zarr group; see `Part`.

    zarr-python reads the same files; this reader answers a block in microseconds instead of milliseconds.
    """

    def __init__(self, storage: Storage, record: PartRecord) -> None:
        super().__init__(storage, record, mapped=not record.compressed and storage.local is not None)
        self._sizes = {"bytes": self.n_bytes, "entropy": self.n_bytes, "starts": (self.n_bytes + 7) // 8}
        self._sizes["doc_ends"] = 8 * record.documents
        self._files: dict[str, ArrayFile] = {}
        self._checked: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def block(self, name: str, index: int) -> NDArray[np.uint8]:
        """Return block `index` of an array."""
        file = self._file(name)
        begin = index * BLOCK_BYTES
        length = min(BLOCK_BYTES, file.n_bytes - begin)
        if self.record.compressed:
            return self._decoded(name, index, file)[:length]
        if (name, index) in self._checked:
            return file.data.range(begin, begin + length)
        for read in (file.data.range, file.data.anew):
            view = read(begin, begin + length)
            content = view.tobytes()
            if google_crc32c.value(content) == file.crcs[index]:
                if not self.mapped:  # memory of its own: a view would keep all of a page
                    return np.frombuffer(content, np.uint8)
                with self._lock:
                    self._checked.add((name, index))
                return view
        raise self._damaged(name, index, begin)

    def whole(self, name: str) -> NDArray[np.uint8]:
        """Return an array of a mapped part as one view, none of which has been checked."""
        if not self.mapped:
            return super().whole(name)
        data = self._file(name).data
        return data.range(0, data.size)

    def prefetch_pages(self, name: str, first: int, stop: int) -> None:
        """Have the pages fetched ahead that blocks `first` to `stop` of an array lie in."""
        file = self._file(name)
        if not self.record.compressed:
            file.data.prefetch(first * BLOCK_BYTES, stop * BLOCK_BYTES)
        elif first < min(stop, len(file.index)):
            last = file.index[min(stop, len(file.index)) - 1]
            file.data.prefetch(int(file.index["offset"][first]), int(last["offset"]) + int(last["stored"]))

    @property
    def doc_ends(self) -> NDArray[np.int64]:
        """End of each document."""
        ends = self.read("doc_ends", 0, self._sizes["doc_ends"]).view("<i8").astype(np.int64, copy=False)
        if not (ends[0] > 0 and ends[-1] == self.n_bytes and (ends[1:] > ends[:-1]).all()):
            raise self.nonsense("doc_ends", "doc_ends do not ascend to the end of the part")
        return ends

    def doc_meta_lines(self) -> bytes:
        """Return one JSON line per document."""
        return self.read("doc_meta", 0, self._file("doc_meta").n_bytes).tobytes()

    def first_damage(self, file: str) -> int | None:
        """Return where the first damaged block of a file begins."""
        name = file.removesuffix("/c/0").removesuffix(NEXT)
        try:
            if file.endswith("/c/0"):
                for index in range(-(-self._file(name).n_bytes // BLOCK_BYTES)):
                    self.block(name, index)
        except StoreError as error:
            return error.offset
        return None

    def _decoded(self, name: str, index: int, file: ArrayFile) -> NDArray[np.uint8]:
        """Return a whole inner chunk of a compressed array; the array's last one is padded."""
        offset, stored = (int(value) for value in file.index[index])
        for read in (file.data.range, file.data.anew):
            chunk = read(offset, offset + stored)
            if len(chunk) != stored or stored <= CRC_BYTES:
                continue
            crc = int(google_crc32c.value(chunk[:-CRC_BYTES].tobytes()))
            if crc == int.from_bytes(chunk[-CRC_BYTES:].tobytes(), "little") and (
                not file.crcs or crc == file.crcs[index]
            ):
                try:
                    return file.decode(chunk[:-CRC_BYTES])
                except (RuntimeError, ValueError) as error:
                    raise self._damaged(name, index, offset) from error
        raise self._damaged(name, index, offset)

    def _file(self, name: str) -> ArrayFile:
        """Return an array's file, opened and checked on first use, and once only: its blocks are views of one map."""
        with self._lock:
            found = self._files.get(name)
            if found is None:
                found = self._files[name] = self._open(name)
            return found

    def _open(self, name: str) -> ArrayFile:
        """Open an array's file and check what it says of itself."""
        if not self._files:
            self.checked_file("zarr.json")
        text = self.checked_file(f"{self._place(name)}/zarr.json").tobytes()
        try:
            meta = json.loads(text)
            size = int(meta["shape"][0]) * (8 if meta["data_type"] == "int64" else 1)
            crcs = tuple(meta.get("attributes", {}).get(CHECKSUMS, ()))
            inner = meta["codecs"][0]["configuration"]["codecs"] if self.record.compressed else []
            decode = decoder(inner, BLOCK_BYTES) if self.record.compressed else np.asarray
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self.nonsense(f"{self._place(name)}/zarr.json", repr(error)) from error
        blocks = -(-size // BLOCK_BYTES)
        if (
            size < 1
            or size != self._sizes.get(name, size)
            or len(crcs) not in ({0, blocks} if self.record.compressed else {blocks})
        ):
            raise self.nonsense(f"{self._place(name)}/zarr.json", f"{size} bytes under {len(crcs)} checksums")
        data = self.ranges(f"{self._place(name)}/c/0")
        if self.record.compressed:
            return ArrayFile(data, size, crcs, self._index(name, data, blocks), decode)
        if data.size != size:
            raise StoreError(
                f"{self.url}/{self._place(name)}/c/0: holds {data.size} bytes, not {size}; mend it with "
                "`bytropix verify --repair` or restore the part"
            )
        return ArrayFile(data, size, crcs, np.empty(0, INDEX_ENTRY), decode)

    def _index(self, name: str, file: Ranges, blocks: int) -> NDArray[np.void]:
        """Return where the inner chunks lie, from the checked end of the shard file."""
        length = INDEX_ENTRY.itemsize * blocks + CRC_BYTES
        begin = max(0, file.size - length)
        for read in (file.range, file.anew):
            tail = read(begin, file.size).tobytes()
            if len(tail) == length and with_crc(tail[:-CRC_BYTES]) == tail:
                return np.frombuffer(tail[:-CRC_BYTES], INDEX_ENTRY)
        raise self.damaged(f"{self._place(name)}/c/0", begin, f"the shard index of '{name}'")

    def _damaged(self, name: str, index: int, offset: int) -> StoreError:
        return self.damaged(f"{self._place(name)}/c/0", offset, f"block {index} of '{name}'")

    def _place(self, name: str) -> str:
        """Return the folder of an array in the group."""
        return beside_name(name) if name == "starts" and self.record.beside else name
