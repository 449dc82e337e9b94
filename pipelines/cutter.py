"""Records to documents, block by block.

    Block, Block, ... of a file -> where they lie: in the source, or in a spool file, to which they are written here
                                -> document_ends -> hash, UTF-8, signature -> columns, one entry a document

At most one document and one block are in memory. A record that turns out to be bad, too short or too long takes back
the documents that it had given.
"""

from array import array
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bytropix.patching.limits import LONGEST_REST
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import FileDocuments, digest_of, document_ends
from bytropix.pipelines.sources import BadRecord, Block

Signer = Callable[[memoryview], NDArray[np.uint32]]
TOO_SHORT, TOO_LONG, NOT_UTF8 = "too_short", "too_long", "not_utf8"


def record_limit(config: IngestConfig) -> int:
    """Return the most bytes of a document that is a record; with the rest of a character it fits into a part."""
    return min(config.max_document or config.part_bytes, config.part_bytes - LONGEST_REST)


class Cutter:
    """Cuts the records of one file.

    Attributes:
        bad: Name, reason and bytes read of each record that was refused.
        dropped: How many documents were left out, by cause.

    Args:
        config: How to cut, and what to leave out.
        spool: Keeps bytes for later and returns where, counted from 0.
        in_place: Whether bytes that lie in the source as such can be read again there.
        sign: Returns the MinHash of a document; `None` if none is wanted.
    """

    def __init__(
        self, config: IngestConfig, spool: Callable[[bytes], int], *, in_place: bool, sign: Signer | None = None
    ) -> None:
        self.bad: list[tuple[str, str, int]] = []
        self.dropped: Counter[str] = Counter()
        self._config, self._spool, self._in_place, self._sign = config, spool, in_place, sign
        self._begins, self._offsets, self._wholes, self._name_ends = array("q"), array("q"), array("q"), array("q")
        self._lengths, self._digests, self._seconds = array("I"), array("Q"), array("Q")
        self._names = bytearray()
        self._signatures: list[NDArray[np.uint32]] = []
        self._base: int | None = None
        self._under_way = False

    def take(self, item: Block | BadRecord) -> None:
        """Take what a reader gives next."""
        if isinstance(item, BadRecord):
            if self._under_way:
                self._take_back()
            self.bad.append((item.record, item.reason, item.bytes_read))
            return
        if not self._under_way:
            self._begin(item.record)
        self._size += len(item.data)
        if not 0 < self._config.clean.max_length < self._size:
            self._cut(item)
        if item.last:
            self._finish()

    def documents(self, source: str, path: str, spool: str) -> FileDocuments:
        """Return the documents of the whole file."""
        was_cut = any(self._wholes)
        return FileDocuments(
            source=source,
            path=path,
            spool=spool,
            begins=np.array(self._begins, np.int64),
            lengths=np.array(self._lengths, np.uint32),
            digests=np.array(self._digests, np.uint64),
            seconds=np.array(self._seconds, np.uint64),
            base=self._base or 0,
            name_ends=np.array(self._name_ends, np.int64),
            names=bytes(self._names),
            offsets=np.array(self._offsets if was_cut else [], np.int64),
            wholes=np.array(self._wholes if was_cut else [], np.int64),
        )

    def signatures(self) -> NDArray[np.uint32]:
        """Return the MinHash of each document, u32 [d, width]."""
        return np.stack(self._signatures) if self._signatures else np.empty((0, 0), np.uint32)

    def _begin(self, record: str) -> None:
        """Begin a record. A file without records is cut from its first byte on, a record once it is too long."""
        self._under_way = True
        self._name = record.encode("utf-8", "surrogatepass")
        self._limit = record_limit(self._config) if record else self._config.document_bytes
        self._cutting = not record
        self._first = len(self._begins)
        self._size = self._given = self._pieces = self._not_utf8 = 0
        self._held = bytearray()
        self._held_begin = 0

    def _cut(self, block: Block) -> None:
        """Give the documents that end in a block."""
        begin = block.place if self._in_place and block.place >= 0 else ~self._spool(block.data)
        if self._base is None and not self._name:
            self._base = begin
        text: bytes | bytearray = block.data
        if self._held:
            self._held += block.data
            text, begin = self._held, self._held_begin
        self._cutting |= self._size > self._limit
        if self._cutting:
            ends = document_ends(text, self._limit, whole=block.last)
        else:
            ends = [len(text)] if block.last else []
        with memoryview(text) as view:
            for first, last in zip([0, *ends], ends, strict=False):
                with view[first:last] as document:
                    self._add(document, begin - first if begin < 0 else begin + first)
        done = ends[-1] if ends else 0
        if text is self._held:
            del self._held[:done]
        else:
            self._held = bytearray(memoryview(text)[done:])
        self._held_begin = begin - done if begin < 0 else begin + done

    def _add(self, document: memoryview, begin: int) -> None:
        """Add a document unless it is to be left out."""
        offset = self._given
        self._given += len(document)
        self._pieces += 1
        if self._config.clean.utf8 == "drop" and not _is_utf8(document):
            self._not_utf8 += 1
            return
        digest, second = digest_of(document)
        self._begins.append(begin)
        self._lengths.append(len(document))
        self._digests.append(digest)
        self._seconds.append(second)
        self._offsets.append(offset)
        if self._name:
            self._names += self._name
            self._name_ends.append(len(self._names))
        if self._sign:
            self._signatures.append(self._sign(document))

    def _finish(self) -> None:
        """End a record."""
        clean = self._config.clean
        if self._size < clean.min_length or 0 < clean.max_length < self._size:
            self.dropped[TOO_SHORT if self._size < clean.min_length else TOO_LONG] += 1
            self._take_back()
            return
        if self._not_utf8:
            self.dropped[NOT_UTF8] += self._not_utf8
        whole = self._size if self._name and self._pieces > 1 else 0
        self._wholes.extend([whole] * (len(self._begins) - self._first))
        self._under_way = False

    def _take_back(self) -> None:
        """Forget the record that is under way."""
        columns = (self._begins, self._lengths, self._digests, self._seconds, self._offsets, self._name_ends)
        for column in (*columns, self._signatures):
            del column[self._first :]
        del self._names[self._name_ends[-1] if self._name_ends else 0 :]
        self._under_way = False


def _is_utf8(document: memoryview) -> bool:
    try:
        str(document, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
