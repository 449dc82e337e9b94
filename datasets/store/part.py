"""What a part is, whatever its format: five arrays, read by blocks, each block checked when it is first touched.

    PartArrays -> a format's encode -> files        files -> a format's Part -> block -> read

Blocks have 256 KiB whatever the format, so that streams gather from any of them in the same way.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.part_files import PartFiles
from bytropix.datasets.store.remote_file import later
from bytropix.datasets.store.schema import BLOCK_BYTES, PartRecord
from bytropix.datasets.store.storage import Storage
from bytropix.errors import StoreError


@dataclass(frozen=True, slots=True)
class PartArrays:
    """The arrays of a part in memory."""

    text: NDArray[np.uint8]
    entropy: NDArray[np.uint8]
    starts: NDArray[np.bool_]
    doc_ends: NDArray[np.int64]
    doc_meta: bytes
    """One line of `doc_meta_line` for each document."""


class Part(PartFiles, ABC):
    """One part of a store of bytes, open for reading; safe for threads. See `open_part`, and `PartFiles`.

    Attributes:
        n_bytes: Bytes of text.
    """

    def __init__(self, storage: Storage, record: PartRecord, *, mapped: bool) -> None:
        super().__init__(storage, record, mapped=mapped)
        self.n_bytes = record.n_bytes

    def block_bytes(self, name: str) -> int:
        """Return the raw size of every block of an array but the last."""
        return BLOCK_BYTES

    @abstractmethod
    def block(self, name: str, index: int) -> NDArray[np.uint8]:
        """Return block `index` of `bytes`, `entropy` or `starts` (packed, lowest bit first), u8, contiguous.

        Raises:
            StoreError: The block's checksum is wrong, or the file is shorter than it should be.
        """

    def whole(self, name: str) -> NDArray[np.uint8]:
        """Return an array of a mapped part as one view, none of which has been checked."""
        raise NotImplementedError(f"{self.url}: is not mapped; read it by blocks")

    def prefetch(self, name: str, first: int, stop: int) -> None:
        """Take note that blocks `first` to `stop` of an array will be wanted soon, and return at once.

        Where they are local, do nothing. What goes wrong is told when the blocks are read.
        """
        if self.remote:
            later(lambda: self.prefetch_pages(name, first, stop))

    @abstractmethod
    def prefetch_pages(self, name: str, first: int, stop: int) -> None:
        """Have the pages fetched ahead that blocks `first` to `stop` of an array lie in.

        Raises:
            StoreError: The part cannot be opened.
        """

    @property
    @abstractmethod
    def doc_ends(self) -> NDArray[np.int64]:
        """End of each document, i64 (d,), read at each call: all of a large split would fill the memory."""

    @abstractmethod
    def doc_meta_lines(self) -> bytes:
        """Return one JSON line per document, see `doc_meta_line`."""

    @abstractmethod
    def first_damage(self, file: str) -> int | None:
        """Return where the first damaged block of one of the part's files begins, `None` if no checksum tells."""

    def read(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Return stored bytes `start` to `stop` of an array, copied."""
        out = np.empty(0, np.uint8)
        self.prefetch(name, start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))
        for index in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
            block = self.block(name, index)
            if not len(out):  # not before the part has shown that it holds so much
                out = np.empty(stop - start, np.uint8)
            first = index * BLOCK_BYTES
            low, high = max(start, first), min(stop, first + BLOCK_BYTES)
            out[low - start : high - start] = block[low - first : high - first]
        return out

    def doc_meta(self) -> list[dict[str, Any]]:
        """Return one row per document: its source, its record if the source has records, its offset there.

        Raises:
            StoreError: They are damaged, or not what they should be.
        """
        rows = parse_rows(self.doc_meta_lines(), f"{self.url}, doc_meta")
        if len(rows) != self.record.documents:
            raise self.nonsense("doc_meta", f"{len(rows)} rows for {self.record.documents} documents")
        return rows

    def arrays(self) -> PartArrays:
        """Return everything the part holds, checked.

        Raises:
            StoreError: Some of it is damaged.
        """
        bits = self.read("starts", 0, (self.n_bytes + 7) // 8)
        return PartArrays(
            text=self.read("bytes", 0, self.n_bytes),
            entropy=self.read("entropy", 0, self.n_bytes),
            starts=np.unpackbits(bits, count=self.n_bytes, bitorder="little").view(np.bool_),
            doc_ends=self.doc_ends,
            doc_meta=self.doc_meta_lines(),
        )


def parse_rows(lines: bytes, place: str) -> list[dict[str, Any]]:
    """Return the rows of JSON lines.

    Raises:
        StoreError: A line is none; the message begins with `place`.
    """
    try:
        rows = [json.loads(line) for line in lines.splitlines()]
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{place}: holds a line that is no JSON ({error}); do not trust it; ingest again") from error
    if not all(isinstance(row, dict) for row in rows):
        raise StoreError(f"{place}: holds a line that is no row; do not trust it; ingest again")
    return rows
