"""A part as a WebDataset tar that plain webdataset reads, and an index for random access beside it.

    00000.tar     one sample a document: KEY.bytes  KEY.entropy  KEY.starts  KEY.json; long documents in pieces of 1 MiB
    00000.index   a .npy table, one row a sample: where its members lie, how long they are, their crc32c

KEY.starts has one bit a byte of the sample, lowest first. KEY.json is the document's row of `doc_meta`; that of a piece
says which it is: "piece": [number, of how many]. Members lie uncompressed; times and owners are 0, so that the same
part is the same tar.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.part import Part, PartArrays
from bytropix.datasets.store.ranges import Ranges
from bytropix.datasets.store.schema import BLOCK_BYTES, PartRecord, beside_name, dump_row
from bytropix.datasets.store.storage import Storage, StoredFile
from bytropix.datasets.store.tar_writer import TAR_BLOCK, TarWriter, as_npy, from_npy, index_name
from bytropix.errors import StoreError

SAMPLE_BYTES = 1 << 20
MEMBERS = ("bytes", "entropy", "starts", "json")

ROW = np.dtype(
    [("document", "<i8"), ("n_bytes", "<i8"), ("n_json", "<i8")]
    + [(f"{member}_at", "<i8") for member in MEMBERS]
    + [(f"{member}_crc", "<u4") for member in MEMBERS]
)


def encode_part(arrays: PartArrays, name: str) -> list[StoredFile]:
    """Return the tar `name` of a part, and its index."""
    rows: list[tuple[int, ...]] = []
    tar = TarWriter()
    lines = arrays.doc_meta.splitlines(keepends=True)
    for document, begin, end, piece, of in _samples(arrays.doc_ends):
        key = f"{name.removesuffix('.tar')}-{document:08d}" + (f"-{piece:04d}" if of > 1 else "")
        meta = lines[document] if of == 1 else dump_row(json.loads(lines[document]) | {"piece": [piece, of]})
        bits = np.packbits(arrays.starts[begin:end], bitorder="little")
        contents: tuple[bytes | memoryview, ...] = (
            arrays.text[begin:end].data,
            arrays.entropy[begin:end].data,
            bits.data,
            meta,
        )
        found = [tar.add(f"{key}.{member}", content) for member, content in zip(MEMBERS, contents, strict=True)]
        places, _, crcs = zip(*found, strict=True)
        rows.append((document, end - begin, len(meta), *places, *crcs))
    return [StoredFile(index_name(name), [as_npy(np.array(rows, ROW))]), StoredFile(name, tar.finish())]


def read_index(tar: NDArray[np.uint8]) -> bytes:
    """Return the index of a tar that is whole, read off its headers."""
    rows, place = [], 0
    while tar[place]:
        row = np.zeros((), ROW)
        for member in MEMBERS:
            header = tar[place : place + TAR_BLOCK].tobytes()
            size = int(header[124:135], 8)
            row[f"{member}_at"] = place + TAR_BLOCK
            row[f"{member}_crc"] = google_crc32c.value(tar[place + TAR_BLOCK : place + TAR_BLOCK + size].tobytes())
            if member in ("bytes", "json"):
                row[f"n_{member}"] = size
            place += TAR_BLOCK + size + -size % TAR_BLOCK
        row["document"] = int(header.split(b"-")[1][:8])
        rows.append(row)
    return as_npy(np.array(rows, ROW))


def _samples(doc_ends: NDArray[np.int64]) -> Iterator[tuple[int, int, int, int, int]]:
    """Give (document, begin, end, piece, pieces) of each sample."""
    begin = 0
    for document, end in enumerate(doc_ends.tolist()):
        of = max(1, -(-(end - begin) // SAMPLE_BYTES))
        for piece in range(of):
            first = begin + piece * SAMPLE_BYTES
            yield document, first, min(end, first + SAMPLE_BYTES), piece, of
        begin = end


def _size_of(member: str, row: np.void) -> int:
    """Return the bytes of a member of a sample."""
    n_bytes = int(row["n_bytes"])
    return {"json": int(row["n_json"]), "starts": (n_bytes + 7) // 8}.get(member, n_bytes)


class TarPart(Part):
    """A part that is a WebDataset tar; see `Part`. Its blocks are put together from samples."""

    def __init__(self, storage: Storage, record: PartRecord) -> None:
        super().__init__(storage, record, mapped=False)
        self._tar = beside_name(self.name) if record.beside else self.name
        self._lock = threading.Lock()
        self._opened: tuple[Ranges, NDArray[np.void], NDArray[np.int64]] | None = None
        self._checked: dict[str, NDArray[np.bool_]] = {}

    def block(self, name: str, index: int) -> NDArray[np.uint8]:
        """Return block `index` of an array, put together."""
        first = index * BLOCK_BYTES
        if name != "starts":
            return self._range(name, first, min(self.n_bytes, first + BLOCK_BYTES))
        return np.packbits(
            self._range(name, 8 * first, min(self.n_bytes, 8 * (first + BLOCK_BYTES))), bitorder="little"
        )

    def prefetch_pages(self, name: str, first: int, stop: int) -> None:
        """Have the pages fetched ahead that blocks `first` to `stop` of an array lie in."""
        data, rows, ends = self._open()
        scale = 8 if name == "starts" else 1
        low, high = (np.searchsorted(ends, place * scale * BLOCK_BYTES, side="right") for place in (first, stop))
        for row in rows[low : high + 1]:
            place = int(row[f"{name}_at"])
            data.prefetch(place, place + _size_of(name, row))

    @property
    def doc_ends(self) -> NDArray[np.int64]:
        """End of each document."""
        _, rows, ends = self._open()
        last = np.append(rows["document"][1:] != rows["document"][:-1], np.True_)
        found: NDArray[np.int64] = ends[last]
        return found

    def doc_meta_lines(self) -> bytes:
        """Return one JSON line per document."""
        _, rows, _ = self._open()
        lines = []
        for number in range(len(rows)):
            line = self._member("json", number).tobytes()
            if b'"piece": [' in line:
                row, piece = self._piece(line)
                if piece:
                    continue  # the first piece speaks for the document
                line = dump_row(row)
            lines.append(line)
        return b"".join(lines)

    def _piece(self, line: bytes) -> tuple[dict[str, Any], int]:
        """Return the row of a sample without its number among the pieces of a document, and that number."""
        try:
            row: dict[str, Any] = json.loads(line)
            return row, int(row.pop("piece", [0])[0])
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self.nonsense("doc_meta", str(error)) from error

    def first_damage(self, file: str) -> int | None:
        """Return where the first damaged member of the tar begins, or which byte around members is not as written."""
        if file != self._tar:
            return None
        try:
            data, rows, _ = self._open()
            for number in range(len(rows)):
                for name in MEMBERS:
                    self._member(name, number)
            self.doc_meta()
            _, tar = encode_part(self.arrays(), self.name)
        except StoreError as error:
            return error.offset
        written = np.frombuffer(b"".join(tar.pieces), np.uint8)
        size = min(len(written), data.size)
        return int(np.argmax(np.append(written[:size] != data.range(0, size), np.True_)))

    def _range(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Return bytes, entropies or start flags `start` to `stop` of the part."""
        _, rows, ends = self._open()
        out = np.empty(stop - start, np.uint8)
        number = int(np.searchsorted(ends, start, side="right"))
        place = start
        while place < stop:
            begin = int(ends[number]) - int(rows["n_bytes"][number])
            end = min(stop, int(ends[number]))
            content = self._member(name, number)
            if name == "starts":
                content = np.unpackbits(content, bitorder="little")
            out[place - start : end - start] = content[place - begin : end - begin]
            place, number = end, number + 1
        return out

    def _member(self, name: str, number: int) -> NDArray[np.uint8]:
        """Return a member of a sample, checked when it is first touched."""
        data, rows, _ = self._open()
        row = rows[number]
        size = _size_of(name, row)
        place = int(row[f"{name}_at"])
        if self._checked[name][number]:
            return data.range(place, place + size)
        for read in (data.range, data.anew):
            content = read(place, place + size)
            if len(content) == size and google_crc32c.value(content.tobytes()) == int(row[f"{name}_crc"]):
                self._checked[name][number] = not self.remote  # what comes over a network is checked each time it comes
                return content
        raise self.damaged(self._tar, place, f"'{name}' of document {int(row['document'])}")

    def _open(self) -> tuple[Ranges, NDArray[np.void], NDArray[np.int64]]:
        """Return the tar, its index and the end of each sample in the part, read once."""
        with self._lock:
            if self._opened is None:
                rows, ends = self._index()
                self._checked = {name: np.zeros(len(rows), np.bool_) for name in MEMBERS}
                self._opened = self.ranges(self._tar), rows, ends
            return self._opened

    def _index(self) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """Return the index and the end of each sample in the part."""
        name = index_name(self._tar)
        try:
            rows = from_npy(self.checked_file(name).tobytes(), ROW)
        except ValueError as error:
            raise self.nonsense(name, str(error)) from error
        ends = np.cumsum(rows["n_bytes"])
        documents = rows["document"]
        steps = documents[1:] - documents[:-1]
        right = (
            len(rows)
            and (documents[0], documents[-1], ends[-1]) == (0, self.record.documents - 1, self.n_bytes)
            and ((steps == 0) | (steps == 1)).all()
            and all((rows[name] >= 0).all() for name in ROW.names or () if not name.endswith("crc"))
            and (np.diff(ends, prepend=0) > 0).all()
        )
        if not right:
            raise self.nonsense(name, "its rows are not those of the part")
        return rows, ends
