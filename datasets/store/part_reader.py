"""Reading one part by blocks, each checked once.

    raw array: map the chunk file -> block = a view -> crc32c against the manifest, on first touch
    zstd array: read the shard's index -> block = inner chunk -> crc32c, then decode

zarr-python reads the same files; this reader exists because it answers a block in microseconds instead of milliseconds.
"""

import json
import threading
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from bytropix.datasets.store.schema import BLOCK_BYTES, PartRecord
from bytropix.errors import StoreError

MISSING = 2**64 - 1  # offset and length in a shard index of a chunk that was not written


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
        self._sizes = {
            "bytes": record.n_bytes,
            "entropy": record.n_bytes,
            "starts": (record.n_bytes + 7) // 8,
        }
        self._crcs = {"bytes": record.crc_bytes, "starts": record.crc_starts}
        self._checked: set[tuple[str, int]] = set()
        self._maps: dict[str, NDArray[np.uint8]] = {}
        self._indices: dict[str, NDArray[np.uint64]] = {}
        self._lock = threading.Lock()
        self._codec = Zstd()
        self._doc_ends: NDArray[np.int64] | None = None

    def block_bytes(self, name: str) -> int:
        """Return the raw size of every block of an array but the last."""
        return BLOCK_BYTES

    def block(self, name: str, index: int) -> NDArray[np.uint8]:
        """Return block `index` of an array, u8.

        Raises:
            StoreError: The block's checksum is wrong, or the file is shorter than it should be.
        """
        file = self._file(name)
        size = self._sizes[name]
        begin = index * BLOCK_BYTES
        length = min(BLOCK_BYTES, size - begin)
        if not self.compressed:
            view = file[begin : begin + length]
            self._check_raw(name, index, view)
            return view
        offset, stored = (int(value) for value in self._index(name, file)[index])
        if offset == MISSING or offset + stored > len(file):
            raise self._damaged(name, index)
        chunk = file[offset : offset + stored]
        if google_crc32c.value(chunk[:-4].tobytes()) != int.from_bytes(chunk[-4:].tobytes(), "little"):
            raise self._damaged(name, index)
        return np.frombuffer(self._codec.decode(chunk[:-4]), np.uint8)[:length]

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
            self._doc_ends = self._whole("doc_ends", 8 * self.record.documents).view(np.int64)
        return self._doc_ends

    def doc_meta(self) -> list[dict[str, Any]]:
        """Return what is known of each document: its source and offset there."""
        shape = json.loads((self.path / "doc_meta" / "zarr.json").read_text("utf-8"))["shape"]
        lines = self._whole("doc_meta", int(shape[0])).tobytes().splitlines()
        return [json.loads(line) for line in lines]

    def _whole(self, name: str, size: int) -> NDArray[np.uint8]:
        """Return all of a small array."""
        self._sizes[name] = size
        return self.read(name, 0, size)

    def _file(self, name: str) -> NDArray[np.uint8]:
        """Map the only chunk or shard file of an array."""
        if name not in self._maps:
            path = self.path / name / "c" / "0"
            try:
                self._maps[name] = np.memmap(path, np.uint8, mode="r")
            except (OSError, ValueError) as error:
                raise StoreError(f"{path}: cannot be read ({error}); restore it or ingest again") from error
        return self._maps[name]

    def _index(self, name: str, file: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Return offset and length (chunks, 2) of the inner chunks, from the checked end of the shard file."""
        if name not in self._indices:
            chunks = -(-self._sizes[name] // BLOCK_BYTES)
            tail = file[len(file) - 16 * chunks - 4 :].tobytes()
            if google_crc32c.value(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
                raise StoreError(
                    f"{self.path}: the shard index of '{name}' is damaged; restore the part or ingest again"
                )
            self._indices[name] = np.frombuffer(tail[:-4], "<u8").reshape(chunks, 2)
        return self._indices[name]

    def _check_raw(self, name: str, index: int, view: NDArray[np.uint8]) -> None:
        """Compare a mapped block with the manifest's checksum, the first time it is touched."""
        crcs = self._crcs.get(name)
        if crcs is None or (name, index) in self._checked:
            return
        if google_crc32c.value(view.tobytes()) != crcs[index]:
            raise self._damaged(name, index)
        with self._lock:
            self._checked.add((name, index))

    def _damaged(self, name: str, index: int) -> StoreError:
        return StoreError(
            f"{self.path}: block {index} of '{name}' is damaged (its checksum is wrong); "
            "restore the part from a copy or ingest again"
        )
