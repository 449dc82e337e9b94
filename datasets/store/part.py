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

from bytropix.datasets.store.ranges import Ranges
from bytropix.datasets.store.remote_file import later
from bytropix.datasets.store.schema import BLOCK_BYTES, FileRecord, PartRecord
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


class Part(ABC):
    """One part of a store, open for reading; safe for threads. See `open_part`.

    Attributes:
        record: Its row in the manifest.
        split: Name of its split.
        name: Its folder or tar below parts/<split>/.
        n_bytes: Bytes of text.
        url: Where it lies.
        mapped: Whether a block is a view of a local file, valid as long as the part; if not, it is memory of its own.
        remote: Whether blocks come over a network.
    """

    def __init__(self, storage: Storage, record: PartRecord, *, mapped: bool) -> None:
        self.storage, self.record, self.mapped = storage, record, mapped
        self.remote = storage.local is None
        self.split, self.name, self.n_bytes = record.split, record.name, record.n_bytes
        self.url = f"{storage.url}/parts/{record.split}/{record.name}"

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

    def checked_file(self, name: str) -> NDArray[np.uint8]:
        """Return a small file of the part, below its folder, if it is the one that was written.

        Raises:
            StoreError: It is not.
        """
        record, file = self.file_record(name), self.ranges(name)
        for read in (file.range, file.anew):
            data = read(0, file.size)
            if record.hash_of(data.data) == record.sha256:
                return data
        raise StoreError(
            f"{self.storage.url}/{self.record.folder}/{name}: damaged (its hash is wrong); mend it with "
            "`bytropix verify --repair`, restore it from a copy, or ingest again"
        )

    def file_record(self, name: str) -> FileRecord:
        """Return what the manifest says of a file of the part, below its folder.

        Raises:
            StoreError: It says nothing.
        """
        for file in self.record.files:
            if file.path == name:
                return file
        raise self.nonsense("list of files", f"{name} is not in it")

    def ranges(self, name: str) -> Ranges:
        """Return a file of the part, below its folder, to be read by ranges; none of it is checked."""
        return self.storage.ranges(f"{self.record.folder}/{name}", self.file_record(name))

    def nonsense(self, what: str, why: str) -> StoreError:
        """Return the error about something that is as it was written, and cannot be what a writer of ours wrote."""
        return StoreError(f"{self.url}: its {what} makes no sense ({why}); do not trust it; ingest again")

    def damaged(self, file: str, offset: int, what: str) -> StoreError:
        """Return the error about bytes of a file that are not what was written."""
        error = StoreError(
            f"{self.storage.url}/{self.record.folder}/{file}: {what}, at byte {offset} of the file, is damaged "
            "(its checksum is wrong); mend it with `bytropix verify --repair`, restore the part from a copy, or ingest "
            "again"
        )
        error.offset = offset
        return error


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
