"""Reading one part by blocks, each checked once.

    zarr.json, checked against the manifest's hash -> size of the array, checksums of a raw one
    raw array: map the chunk file -> block = a view -> crc32c, on first touch
    zstd array: map the shard, check its index -> block = inner chunk -> crc32c, then decode

zarr-python reads the same files; this reader exists because it answers a block in microseconds instead of milliseconds.
"""

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from bytropix.datasets.store.part_writer import CHECKSUMS
from bytropix.datasets.store.schema import BLOCK_BYTES, PartRecord
from bytropix.errors import StoreError

CRC_BYTES = 4
INDEX_ENTRY = np.dtype([("offset", "<u8"), ("stored", "<u8")])


@dataclass(frozen=True, slots=True, eq=False)
class ArrayFile:
    """An array of a part, mapped."""

    data: NDArray[np.uint8]
    """Its chunk or shard file."""
    n_bytes: int
    """Raw bytes of the array."""
    crcs: tuple[int, ...]
    """crc32c of each block of a raw array."""
    index: NDArray[np.void]
    """Where the inner chunks of a compressed array lie, as `INDEX_ENTRY`."""


class Part:
    """One part of a store, open for reading; safe for threads.

    Args:
        root: Folder of the store.
        record: Its row in the manifest.
    """

    def __init__(self, root: Path, record: PartRecord) -> None:
        self.record = record
        self.split, self.name = record.split, record.name
        self.n_bytes, self.compressed = record.n_bytes, record.compressed
        self.path = root / "parts" / record.split / record.name
        self._sizes = {"bytes": self.n_bytes, "entropy": self.n_bytes, "starts": (self.n_bytes + 7) // 8}
        self._sizes["doc_ends"] = 8 * record.documents
        self._files: dict[str, ArrayFile] = {}
        self._checked: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._codec = Zstd()
        self._doc_ends: NDArray[np.int64] | None = None

    def block_bytes(self, name: str) -> int:
        """Return the raw size of every block of an array but the last."""
        return BLOCK_BYTES

    def block(self, name: str, index: int) -> NDArray[np.uint8]:
        """Return block `index` of an array, u8, contiguous.

        Raises:
            StoreError: The block's checksum is wrong, or the file is shorter than it should be.
        """
        file = self._file(name)
        begin = index * BLOCK_BYTES
        length = min(BLOCK_BYTES, file.n_bytes - begin)
        if self.compressed:
            return self._decoded(name, index, file)[:length]
        view = file.data[begin : begin + length]
        if (name, index) not in self._checked:
            if google_crc32c.value(view.tobytes()) != file.crcs[index]:
                raise self._damaged(name, index)
            with self._lock:
                self._checked.add((name, index))
        return view

    def read(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Return stored bytes `start` to `stop` of an array, copied."""
        out = np.empty(stop - start, np.uint8)
        for index in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
            first = index * BLOCK_BYTES
            low, high = max(start, first), min(stop, first + BLOCK_BYTES)
            out[low - start : high - start] = self.block(name, index)[low - first : high - first]
        return out

    @property
    def doc_ends(self) -> NDArray[np.int64]:
        """End of each document, i64 (d,)."""
        if self._doc_ends is None:
            self._doc_ends = self.read("doc_ends", 0, self._sizes["doc_ends"]).view("<i8").astype(np.int64, copy=False)
        return self._doc_ends

    def doc_meta(self) -> list[dict[str, Any]]:
        """Return one row per document: its source, and the offset of its first byte there."""
        lines = self.read("doc_meta", 0, self._file("doc_meta").n_bytes).tobytes().splitlines()
        return [json.loads(line) for line in lines]

    def _decoded(self, name: str, index: int, file: ArrayFile) -> NDArray[np.uint8]:
        """Return a whole inner chunk of a compressed array; the array's last one is padded."""
        offset, stored = (int(value) for value in file.index[index])
        chunk = file.data[offset : offset + stored]
        if len(chunk) != stored or stored <= CRC_BYTES:
            raise self._damaged(name, index)
        if google_crc32c.value(chunk[:-CRC_BYTES].tobytes()) != _number(chunk[-CRC_BYTES:]):
            raise self._damaged(name, index)
        try:
            block = np.frombuffer(self._codec.decode(chunk[:-CRC_BYTES]), np.uint8)
        except (RuntimeError, ValueError) as error:
            raise self._damaged(name, index) from error
        if len(block) != BLOCK_BYTES:
            raise self._damaged(name, index)
        return block

    def _file(self, name: str) -> ArrayFile:
        """Return an array's file, mapped and checked on first use, and once only: its blocks are views of that map."""
        with self._lock:
            found = self._files.get(name)
            if found is None:
                found = self._files[name] = self._open(name)
            return found

    def _open(self, name: str) -> ArrayFile:
        """Map and check an array's file."""
        path = self.path / name / "c" / "0"
        self._checked_json("zarr.json")
        meta = self._checked_json(f"{name}/zarr.json")
        size = int(meta["shape"][0]) * (8 if meta["data_type"] == "int64" else 1)
        if size != self._sizes.get(name, size):
            raise StoreError(f"{self.path}: '{name}' has {size} bytes, not {self._sizes[name]}; ingest again")
        try:
            data = np.memmap(path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read ({error}); restore it or ingest again") from error
        index = self._index(name, data, size) if self.compressed else np.empty(0, INDEX_ENTRY)
        found = ArrayFile(data, size, tuple(meta.get("attributes", {}).get(CHECKSUMS, ())), index)
        if not self.compressed and (len(data) != size or len(found.crcs) != -(-size // BLOCK_BYTES)):
            raise StoreError(f"{path}: holds {len(data)} bytes, not {size}; restore the part or ingest again")
        return found

    def _checked_json(self, name: str) -> dict[str, Any]:
        """Return what a zarr.json says, if it is the file that was written."""
        path = self.path / name
        hashes = [file.sha256 for file in self.record.files if file.path == name]
        try:
            text = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}); restore it or ingest again") from error
        if hashes != [hashlib.sha256(text).hexdigest()]:
            raise StoreError(f"{path}: damaged (its hash is wrong); restore the part from a copy or ingest again")
        found: dict[str, Any] = json.loads(text)
        return found

    def _index(self, name: str, file: NDArray[np.uint8], size: int) -> NDArray[np.void]:
        """Return where the inner chunks lie, from the checked end of the shard file."""
        chunks = -(-size // BLOCK_BYTES)
        tail = file[-(INDEX_ENTRY.itemsize * chunks + CRC_BYTES) :]
        whole = len(tail) == INDEX_ENTRY.itemsize * chunks + CRC_BYTES
        if not whole or google_crc32c.value(tail[:-CRC_BYTES].tobytes()) != _number(tail[-CRC_BYTES:]):
            raise StoreError(f"{self.path}: the shard index of '{name}' is damaged; restore the part or ingest again")
        return np.frombuffer(tail[:-CRC_BYTES].tobytes(), INDEX_ENTRY)

    def _damaged(self, name: str, index: int) -> StoreError:
        return StoreError(
            f"{self.path}: block {index} of '{name}' is damaged (its checksum is wrong); "
            "restore the part from a copy or ingest again"
        )


def _number(crc: NDArray[np.uint8]) -> int:
    """Return a stored checksum."""
    return int.from_bytes(crc.tobytes(), "little")
