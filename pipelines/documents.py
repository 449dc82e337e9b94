"""Documents: where they end, where they lie, and how they are read again.

    bytes -> document_ends -> ranges of a source, or of a spool file, with their hashes -> FileDocuments
    FileDocuments -> spans that lie end to end, one read each -> every document checked by its hash -> u8[n]

Where a document ends depends on the bytes before that place alone, so a file that grows keeps the documents it had,
and a reader that goes byte by byte cuts where ingestion cut.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import Storage, doc_meta_line
from bytropix.errors import ChangedSourceError, StoreError
from bytropix.patching.limits import LONGEST_REST, PROMISED

SPAN_BYTES = 1 << 23  # most that one read brings
GAP_BYTES = 1 << 18  # read along and thrown away, sooner than asking a remote store twice

Read = Callable[[int, int], bytes]
"""Return the bytes from a place up to another, fewer where the file ends."""


def _none() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class FileDocuments:
    """Some documents of one file, in order, d of them: 28 bytes of memory for each, and its name if it has one."""

    source: str
    """Name of the file."""
    path: str
    """Where it is."""
    spool: str
    """The file of the store that holds documents which do not lie in the source as such; empty if there is none."""
    begins: NDArray[np.int64]
    """First byte of each in the source; where negative, its complement is the first byte in the spool file."""
    lengths: NDArray[np.uint32]
    """Bytes of each."""
    digests: NDArray[np.uint64]
    """The first eight bytes of each document's sha256, as a number."""
    seconds: NDArray[np.uint64]
    """The next eight."""
    base: int = 0
    """Where the first byte of a file without records lies, as in `begins`."""
    name_ends: NDArray[np.int64] = field(default_factory=_none)
    """End of each document's record name in `names`; empty for a file without records."""
    names: bytes = b""
    """Names of the records, UTF-8, end to end."""
    offsets: NDArray[np.int64] = field(default_factory=_none)
    """First byte of each in its record; empty if no record was cut."""
    wholes: NDArray[np.int64] = field(default_factory=_none)
    """Bytes of its record where that was cut, else 0; empty if none was."""

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def n_bytes(self) -> int:
        """Bytes of these documents."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def pieces(self) -> int:
        """How many of them are pieces of a record that was cut."""
        return int(np.count_nonzero(self.wholes))

    def take(self, chosen: NDArray[np.int64]) -> "FileDocuments":
        """Return the documents of these numbers, ascending."""

        def some(column: NDArray[np.int64]) -> NDArray[np.int64]:
            return column[chosen] if len(column) else column

        names = [self.names[begin:end] for begin, end in self._name_ranges(chosen)]
        return replace(
            self,
            begins=self.begins[chosen],
            lengths=self.lengths[chosen],
            digests=self.digests[chosen],
            seconds=self.seconds[chosen],
            name_ends=np.cumsum([len(name) for name in names], dtype=np.int64) if names else _none(),
            names=b"".join(names),
            offsets=some(self.offsets),
            wholes=some(self.wholes),
        )

    def record_names(self) -> list[str]:
        """Return the name of each document's record, empty for a file without records."""
        if not len(self.name_ends):
            return [""] * len(self)
        ranges = self._name_ranges(np.arange(len(self)))
        return [self.names[begin:end].decode("utf-8", "surrogatepass") for begin, end in ranges]

    def record_offsets(self) -> NDArray[np.int64]:
        """Return the first byte of each document in its record, or in the file where that has no records."""
        if not len(self.name_ends):
            return np.asarray(np.where(self.begins < 0, ~self.begins, self.begins) - _plain(self.base), np.int64)
        return self.offsets if len(self.offsets) else np.zeros(len(self), np.int64)

    def meta(self) -> bytes:
        """Return one JSON line for each document: its source, its record, the offset of its first byte there."""
        wholes = self.wholes.tolist() if len(self.wholes) else [0] * len(self)
        rows = zip(self.record_names(), self.record_offsets().tolist(), wholes, strict=True)
        return b"".join(
            doc_meta_line(source=self.source, offset=offset, record=name, of=whole) for name, offset, whole in rows
        )

    def _name_ranges(self, chosen: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Give begin and end of the names of some documents."""
        if len(self.name_ends):
            begins = np.where(chosen > 0, self.name_ends[chosen - 1], 0)
            yield from zip(begins.tolist(), self.name_ends[chosen].tolist(), strict=True)


def _plain(begin: int) -> int:
    """Return a place without the mark of the spool file."""
    return ~begin if begin < 0 else begin


def document_ends(data: bytes | bytearray, limit: int, *, whole: bool = True) -> list[int]:
    """Return where documents end in `data`, which begins one.

    A document ends after its first newline at or past byte limit // 2, at the latest at `limit` bytes and as many
    more, at most three, as the last character still promises.

    Args:
        data: Bytes of a file, from the beginning of a document.
        limit: Most bytes of a document, apart from that rest of a character.
        whole: Whether the file ends with `data`, and with it the last document. If not, only those ends are given
            that the bytes decide; what follows the last one belongs to a document that goes on.
    """
    ends: list[int] = []
    begin = 0
    while begin < len(data):
        newline = data.find(b"\n", begin + limit // 2, begin + limit)
        end = newline + 1 if newline >= 0 else _end_past(data, begin + limit)
        if end > len(data) or end < 0:
            if whole:
                ends.append(len(data))
            break
        ends.append(end)
        begin = end
    return ends


def _end_past(data: bytes | bytearray, limit: int) -> int:
    """Return the first place from `limit` on at which no character is under way, -1 if `data` ends before it."""
    if limit > len(data):
        return -1
    for end in range(limit, min(limit + LONGEST_REST, len(data) + 1)):
        if not _promised(data[end - LONGEST_REST : end]):
            return end
    return limit + LONGEST_REST


def _promised(tail: bytes | bytearray) -> int:
    """Return how many continuation bytes are promised after `tail`, the last three bytes."""
    for back, byte in enumerate(reversed(tail)):
        if byte & 0xC0 != 0x80:
            return max(0, int(PROMISED[byte]) - back)
    return 0


def digest_of(document: bytes | memoryview) -> tuple[int, int]:
    """Return the first eight bytes of the sha256 of a document, and the next eight, as numbers from 0 to 2^64 - 1."""
    digest = hashlib.sha256(document).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def read_documents(files: tuple[FileDocuments, ...], storage: Storage) -> NDArray[np.uint8]:
    """Return the bytes of documents, end to end.

    Args:
        files: The documents.
        storage: The store's, which holds the spool files.

    Raises:
        ChangedSourceError: A file has changed since it was scanned, or cannot be read any more.
        StoreError: A spool file is not what was written.
    """
    data = np.empty(sum(file.n_bytes for file in files), np.uint8)
    place = 0
    for file in files:
        _read_file(file, storage, data[place : place + file.n_bytes])
        place += file.n_bytes
    return data


def _read_file(file: FileDocuments, storage: Storage, out: NDArray[np.uint8]) -> None:
    """Read the documents of one file into `out`."""
    ends = np.cumsum(file.lengths, dtype=np.int64)
    for spooled in (False, True):
        chosen = np.flatnonzero((file.begins < 0) == spooled)
        if not len(chosen):
            continue
        begins = ~file.begins[chosen] if spooled else file.begins[chosen]
        with _spool_reader(file, storage) if spooled else _source_reader(file) as read:
            remote = spooled and storage.local is None
            for first, last in _spans(begins, file.lengths[chosen], GAP_BYTES if remote else 0):
                low = int(begins[first])
                span = memoryview(read(low, int(begins[last - 1]) + int(file.lengths[chosen[last - 1]])))
                for number, begin in zip(chosen[first:last].tolist(), (begins[first:last] - low).tolist(), strict=True):
                    length = int(file.lengths[number])
                    document = span[begin : begin + length]
                    if digest_of(document) != (int(file.digests[number]), int(file.seconds[number])):
                        raise _changed(file, spooled=spooled, storage=storage)
                    out[int(ends[number]) - length : int(ends[number])] = document


def _spans(begins: NDArray[np.int64], lengths: NDArray[np.uint32], gap: int) -> Iterator[tuple[int, int]]:
    """Give the ranges of documents that one read brings: they lie end to end, or nearly so."""
    ends = begins + lengths
    first = 0
    for number in range(1, len(begins) + 1):
        if (
            number == len(begins)
            or not 0 <= begins[number] - ends[number - 1] <= gap
            or ends[number] - begins[first] > SPAN_BYTES
        ):
            yield first, number
            first = number


@contextmanager
def _source_reader(file: FileDocuments) -> Iterator[Read]:
    """Give what reads ranges of a source."""
    try:
        with Path(file.path).open("rb", buffering=0) as stream:

            def read(begin: int, end: int) -> bytes:
                stream.seek(begin)
                return stream.read(end - begin) or b""

            yield read
    except OSError as error:
        raise ChangedSourceError(file.path, f"cannot be read any more ({error.strerror})") from error


@contextmanager
def _spool_reader(file: FileDocuments, storage: Storage) -> Iterator[Read]:
    """Give what reads ranges of a spool file."""
    yield lambda begin, end: storage.read_range(file.spool, begin, end)


def _changed(file: FileDocuments, *, spooled: bool, storage: Storage) -> Exception:
    """Return the error about a document that is not what was scanned."""
    if spooled:
        return StoreError(f"{storage.url}/{file.spool}: is not what was written there; run again with --resume")
    return ChangedSourceError(file.path, "changed while it was read")
