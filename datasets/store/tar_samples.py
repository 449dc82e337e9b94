"""The samples of a WebDataset tar, read once and in order, each checked before it is given.

    source -> members -> those of one key: a sample -> is it whole, and the next one? does the index agree? -> TarSample

Of the tars that bytropix writes (see `tar_part`) it is known which sample comes next and how the tar ends, so that none
can be missing. Of others, each sample must have KEY.bytes and KEY.starts, of sizes that fit; other fields are left out.
A tar on its own has checksums of its headers only; those of its contents are in the index, if it lies beside the tar.
"""

import json
import re
import tarfile
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPException

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.tar_part import MEMBERS, ROW, SAMPLE_BYTES
from bytropix.datasets.store.tar_source import TarSource, index_beside, open_tar, source_name
from bytropix.datasets.store.tar_walk import TarFault, TarWalk
from bytropix.datasets.store.tar_writer import TAR_BLOCK, TAR_RECORD, from_npy
from bytropix.errors import StoreError

MOST_BYTES = 1 << 28  # of a member that is read
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")  # as webdataset tells key and field
_KEY = re.compile(r"(.+)-(\d{8})(?:-(\d{4,}))?")


@dataclass(frozen=True, slots=True)
class TarSample:
    """A document, or a piece of one.

    Attributes:
        key: Its name in the tar.
        text: u8 [n].
        starts: bool [n], where patches open.
    """

    key: str
    text: NDArray[np.uint8]
    starts: NDArray[np.bool_]


def read_samples(source: TarSource) -> Generator[TarSample, None, None]:
    """Give the samples of a source.

    Raises:
        StoreError: It cannot be read, is damaged, cut short or lacks something; it names source, member and offset.
    """
    with open_tar(source) as stream:
        walk = TarWalk(stream)
        try:
            with closing(_Reader(source, walk).samples()) as samples:
                yield from samples
        except TarFault as fault:
            raise _error(source, walk.header_at, str(fault)) from fault
        except (OSError, HTTPException) as error:
            raise _error(source, walk.place, f"cannot be read on from byte {walk.place:,} ({error})") from error


def _error(source: TarSource, offset: int, what: str) -> StoreError:
    error = StoreError(f"{source_name(source)}: {what}; restore it from a copy, or write it again")
    error.offset = offset
    return error


@dataclass(slots=True)
class _Group:
    """The members of a key, as far as they have come: field -> where its content begins, and the content if wanted."""

    key: str
    at: int
    gap: int
    end: int = 0
    members: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def content(self, name: str) -> bytes:
        return self.members[name][1]


class _Reader:
    """Puts members together to samples and checks that none is missing."""

    def __init__(self, source: TarSource, walk: TarWalk) -> None:
        self._source, self._walk = source, walk
        self._ours: bool | None = None  # not known before the first sample
        self._index: NDArray[np.void] | None = None
        self._count = 0
        self._begin = self._end = 0  # of the tar that is being read, so far; several may follow each other
        self._next = (0, 0)  # document and piece that must come now
        self._of = 0  # pieces of the document, 0 behind its last

    def samples(self) -> Generator[TarSample, None, None]:
        """Give all samples."""
        group: _Group | None = None
        for header in self._walk.members():
            at = self._walk.header_at
            named = _NAME.fullmatch(header.name)
            if not named or header.type not in _REGULAR:
                raise self._fault(at, header.name, "is no file KEY.FIELD")
            key, name = named[1], named[2].lower()
            if group is None or group.key != key or self._walk.gap:
                if group is not None:
                    yield self._sample(group)
                group = _Group(key, at, self._walk.gap)
            if name in group.members:
                raise self._fault(at, header.name, "comes twice")
            place = self._walk.place
            group.members[name] = place, self._content(header) if name in MEMBERS else b""
            group.end = place + header.size + -header.size % TAR_BLOCK
        if group is None:
            raise _error(self._source, self._walk.place, "holds no sample")
        yield self._sample(group)
        self._close(self._walk.zeros)
        if self._index is not None and len(self._index) != self._count:
            raise _error(
                self._source, self._end, f"holds {self._count} samples, its index {len(self._index)}: some are lost"
            )

    def _content(self, header: tarfile.TarInfo) -> bytes:
        if header.size > MOST_BYTES:
            raise self._fault(
                self._walk.header_at,
                header.name,
                f"has {header.size:,} bytes, more than {MOST_BYTES:,}; cut it smaller",
            )
        return self._walk.take(header.size)

    def _sample(self, group: _Group) -> TarSample:
        """Return a sample that is whole and the next one."""
        for name in ("bytes", "starts"):
            if name not in group.members:
                raise self._fault(group.at, group.key, f"has no member {group.key}.{name}")
        text = np.frombuffer(group.content("bytes"), np.uint8)
        packed = np.frombuffer(group.content("starts"), np.uint8)
        if len(packed) != (len(text) + 7) // 8:
            raise self._fault(
                group.at, f"{group.key}.starts", f"has {len(packed)} bytes, which is not a bit for each of {len(text)}"
            )
        named = _KEY.fullmatch(group.key) if tuple(group.members) == MEMBERS else None
        if self._ours is None:
            self._ours = named is not None
            self._index = self._read_index() if self._ours else None
        if self._ours != (named is not None):
            raise self._fault(group.at, group.key, f"has members {', '.join(group.members)}, unlike those before it")
        if named is not None:
            self._follow(group, int(named[2]), named[3], len(text))
        if self._index is not None:
            self._compare(group, self._index)
        self._count += 1
        self._end = group.end
        return TarSample(group.key, text, np.unpackbits(packed, count=len(text), bitorder="little").view(np.bool_))

    def _follow(self, group: _Group, document: int, told: str | None, n_bytes: int) -> None:
        """Check that a sample of ours is the one that must come now; `told` is the piece that its key speaks of."""
        if group.gap:
            self._close(group.gap)
            self._begin, self._next = group.at, (0, 0)
        piece, of = self._piece(group)
        if (document, piece) != self._next or self._of not in (0, of):
            wanted = "document {}, piece {}".format(*self._next)
            raise self._fault(group.at, group.key, f"is not the next sample, which is {wanted}: some are lost")
        last = piece == of - 1
        right = piece < of and (told is None) == (of == 1) and int(told or 0) == piece
        right = right and (0 < n_bytes <= SAMPLE_BYTES if last else n_bytes == SAMPLE_BYTES)
        if not right or len(group.content("entropy")) != n_bytes:
            raise self._fault(group.at, group.key, f"cannot be piece {piece} of {of}, with {n_bytes} bytes")
        self._of = 0 if last else of
        self._next = (document + 1, 0) if last else (document, piece + 1)

    def _piece(self, group: _Group) -> tuple[int, int]:
        """Return which piece of a document a sample is, and of how many."""
        try:
            piece, of = json.loads(group.content("json")).get("piece", (0, 1))
            return int(piece), int(of)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._fault(group.at, f"{group.key}.json", f"makes no sense ({error})") from error

    def _close(self, zeros: int) -> None:
        """Check that a tar of ours may end here."""
        if not self._ours:
            return
        if self._of:
            raise _error(self._source, self._end, f"ends at byte {self._end:,} in the middle of a document")
        size = self._end - self._begin + 2 * TAR_BLOCK
        if zeros != 2 * TAR_BLOCK + -size % TAR_RECORD:
            raise _error(
                self._source, self._end, f"has {zeros:,} zeros behind byte {self._end:,}: samples are lost there"
            )

    def _read_index(self) -> NDArray[np.void] | None:
        data = index_beside(self._source)
        try:
            return None if data is None else from_npy(data, ROW)
        except ValueError as error:
            raise _error(self._source, 0, f"its index makes no sense ({error})") from error

    def _compare(self, group: _Group, index: NDArray[np.void]) -> None:
        """Check a sample by its row of the index."""
        if self._count >= len(index):
            raise self._fault(group.at, group.key, f"is one more than the {len(index)} samples of the index")
        row = index[self._count]
        for name, (at, content) in group.members.items():
            if at != int(row[f"{name}_at"]) or google_crc32c.value(content) != int(row[f"{name}_crc"]):
                raise self._fault(at, f"{group.key}.{name}", "is damaged (the checksum in the index is another)")

    def _fault(self, offset: int, member: str, what: str) -> StoreError:
        return _error(self._source, offset, f"{member!r}, at byte {offset:,}, {what}")
