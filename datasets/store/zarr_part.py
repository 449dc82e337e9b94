"""A part of bytes as a Zarr v3 group that plain zarr reads; see `encode_group` for what its files are.

bytes u8[n]   entropy u8[n]   starts u8[(n + 7) / 8], lowest bit first   doc_ends i64[d]   doc_meta u8, JSON lines
"""

import threading

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.part import Part, PartArrays
from bytropix.datasets.store.schema import BLOCK_BYTES, NEXT, PartRecord, beside_name
from bytropix.datasets.store.storage import Storage, StoredFile
from bytropix.datasets.store.zarr_array import ZarrArray
from bytropix.datasets.store.zarr_group import ArrayLayout, encode_group
from bytropix.errors import StoreError


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
        ArrayLayout(codec=codec, level=level),
    )


def pack(starts: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return starts as bits, the lowest first."""
    return np.packbits(starts, bitorder="little")


class ZarrPart(Part):
    """A part that is a Zarr group; see `Part`."""

    def __init__(self, storage: Storage, record: PartRecord) -> None:
        super().__init__(storage, record, mapped=not record.compressed and storage.local is not None)
        self._arrays: dict[str, ZarrArray] = {}
        self._lock = threading.Lock()

    def block(self, name: str, index: int) -> NDArray[np.uint8]:
        """Return block `index` of an array."""
        return self._array(name).block(index)

    def whole(self, name: str) -> NDArray[np.uint8]:
        """Return an array of a mapped part as one view, none of which has been checked."""
        return self._array(name).whole() if self.mapped else super().whole(name)

    def prefetch_pages(self, name: str, first: int, stop: int) -> None:
        """Have the pages fetched ahead that blocks `first` to `stop` of an array lie in."""
        self._array(name).prefetch(first * BLOCK_BYTES, stop * BLOCK_BYTES)

    @property
    def doc_ends(self) -> NDArray[np.int64]:
        """End of each document."""
        ends = self._array("doc_ends").read_rows(0, self.record.documents).astype(np.int64, copy=False)
        if not (ends[0] > 0 and ends[-1] == self.n_bytes and (ends[1:] > ends[:-1]).all()):
            raise self.nonsense("doc_ends", "doc_ends do not ascend to the end of the part")
        return ends

    def doc_meta_lines(self) -> bytes:
        """Return one JSON line per document."""
        return self.read("doc_meta", 0, self._array("doc_meta").n_bytes).tobytes()

    def first_damage(self, file: str) -> int | None:
        """Return where the first damaged block of a file begins."""
        name = file.removesuffix("/c/0").removesuffix(NEXT)
        try:
            if file.endswith("/c/0"):
                for index in range(self._array(name).blocks):
                    self.block(name, index)
        except StoreError as error:
            return error.offset
        return None

    def _array(self, name: str) -> ZarrArray:
        """Return an array, opened and checked on first use, and once only: its blocks are views of one map."""
        with self._lock:
            found = self._arrays.get(name)
            if found is None:
                if not self._arrays:
                    self.checked_file("zarr.json")
                lengths = {"bytes": self.n_bytes, "entropy": self.n_bytes, "starts": (self.n_bytes + 7) // 8}
                lengths["doc_ends"] = self.record.documents
                place = beside_name(name) if name == "starts" and self.record.beside else name
                dtype = "<i8" if name == "doc_ends" else "|u1"
                found = self._arrays[name] = ZarrArray(self, name, place, (lengths.get(name),), dtype)
            return found
