"""Rows of a manifest that are too many for it: they lie in lists, and a list is read when one of its rows is wanted.

    rows -> lists of about 256 KiB, a JSON line a row -> manifest.json has sha256 and size of each list, and of parts
            their bytes, which is all that an order needs
    rows[i] -> the list that holds it, fetched and hashed -> its line -> the row, checked against what the manifest says

A list is named by its hash: what one version wrote is never written anew, and a later version adds lists of its own.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store.schema import FileRecord, PartRecord, plain_row
from bytropix.datasets.store.storage import Storage
from bytropix.datasets.store.trust import check_inside, check_part, check_total
from bytropix.errors import ConfigError, StoreError

T = TypeVar("T")

LISTS = "lists"
READ_LISTS = 32  # kept in memory, the last used ones
MOST_LIST = 1 << 40  # bytes of a list


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """When rows lie in lists, and in how long ones."""

    inline: int = 1024
    """Most rows of one kind that manifest.json holds itself; it is what opening a store reads and checks at once."""
    list_bytes: int = 1 << 18
    """A list ends with the row that brings it to so many bytes: a reader fetches this much for the sake of one row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListHead:
    """What manifest.json says of a list."""

    path: str
    """Of its file, below the store."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file."""
    rows: int
    """How many it holds."""
    split: str = ""
    """Of all its parts; empty for a list of something else."""


@dataclass(frozen=True, slots=True, eq=False)
class RowList:
    """A list of rows, unread."""

    head: ListHead
    part_bytes: NDArray[np.int64]
    """i64 [rows], raw bytes of each part; empty for a list of something else."""

    @property
    def file(self) -> FileRecord:
        """Its file, below the store."""
        return FileRecord(path=self.head.path, size=self.head.size, sha256=self.head.sha256)

    def plain(self) -> dict[str, Any]:
        """Return its entry in manifest.json."""
        plain: dict[str, Any] = to_plain(self.head)
        if self.head.split:
            return plain | {"part_bytes": self.part_bytes.tolist()}
        del plain["split"]
        return plain


class Rows(Sequence[T]):
    """Rows in lists, as a sequence that reads what it is asked for; safe for threads.

    Looking at a row, or going through them, raises StoreError, naming the list, where that is missing, damaged, or says
    something else than manifest.json.

    Args:
        storage: The store's.
        kind: What a row is.
        lists: In order.
        new: Rows behind those of the lists, which no list holds yet.
    """

    def __init__(self, storage: Storage, kind: type[T], lists: Sequence[RowList], new: Sequence[T] = ()) -> None:
        self.storage, self.kind, self.lists, self.new = storage, kind, tuple(lists), tuple(new)
        self._first = np.concatenate(([0], np.cumsum([one.head.rows for one in self.lists], dtype=np.int64)))
        self._read_lists: OrderedDict[int, list[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many there are."""
        return int(self._first[-1]) + len(self.new)

    @overload
    def __getitem__(self, key: int) -> T: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[T, ...]: ...
    def __getitem__(self, key: int | slice) -> T | tuple[T, ...]:
        """Return a row, or some."""
        if isinstance(key, slice):
            return tuple(self[place] for place in range(*key.indices(len(self))))
        place = range(len(self))[key]
        if place >= self._first[-1]:
            return self.new[place - int(self._first[-1])]
        number = int(np.searchsorted(self._first, place, side="right")) - 1
        within = place - int(self._first[number])
        return self._row(self.lists[number], within, self._lines(number)[within])

    def __iter__(self) -> Iterator[T]:
        """Give all rows, with one list in memory at a time."""
        for one in self.lists:
            for within, line in enumerate(self._fetch(one)):
                yield self._row(one, within, line)
        yield from self.new

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence has the same rows."""
        if not isinstance(other, Rows | tuple):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of any sequence that compares by content

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The files of the lists."""
        return tuple(one.file for one in self.lists)

    def _lines(self, number: int) -> list[bytes]:
        """Return the lines of a list, from memory if it was read lately."""
        with self._lock:
            found = self._read_lists.get(number)
            if found is not None:
                self._read_lists.move_to_end(number)
                return found
        found = self._fetch(self.lists[number])
        with self._lock:
            self._read_lists[number] = found
            if len(self._read_lists) > READ_LISTS:
                self._read_lists.popitem(last=False)
        return found

    def _fetch(self, one: RowList) -> list[bytes]:
        """Return the lines of a list, hashed."""
        place = f"{self.storage.url}/{one.head.path}"
        data = self.storage.read(one.head.path).tobytes()
        if len(data) != one.head.size or hashlib.sha256(data).hexdigest() != one.head.sha256:
            raise StoreError(f"{place}: damaged (its hash is wrong); restore it from a copy or ingest again")
        lines = data.split(b"\n")
        if len(lines) != one.head.rows + 1 or lines.pop():
            raise StoreError(f"{place}: does not hold the {one.head.rows} lines of manifest.json; do not trust it")
        return lines

    def _row(self, one: RowList, within: int, line: bytes) -> T:
        """Return the row of a line, checked."""
        place = f"{self.storage.url}/{one.head.path}, line {within + 1}"
        try:
            row = from_plain(self.kind, json.loads(line))
        except (ValueError, RecursionError, ConfigError) as error:
            raise StoreError(f"{place}: no {self.kind.__name__} ({error}); do not trust it") from error
        if isinstance(row, PartRecord):
            check_part(place, row)
            if (row.split, row.n_bytes) != (one.head.split, one.part_bytes[within]):
                raise StoreError(
                    f"{place}: part {row.split}/{row.name} of {row.n_bytes} bytes, where manifest.json has one of "
                    f"{one.part_bytes[within]} in {one.head.split}; do not trust it"
                )
        return row


def part_bytes(parts: Sequence[PartRecord]) -> NDArray[np.int64]:
    """Return the bytes of each part of a manifest, i64 [parts]; no list is read."""
    if isinstance(parts, Rows):
        return np.concatenate([*(one.part_bytes for one in parts.lists), part_bytes(parts.new)])
    return np.array([part.n_bytes for part in parts], np.int64)


def grown(rows: Sequence[T], new: Sequence[T], key: Callable[[T], Any]) -> Sequence[T]:
    """Return rows of a manifest and new ones, sorted by `key`; where the old ones lie in lists, the new come last."""
    if isinstance(rows, Rows):  # which are neither read nor written anew
        return Rows(rows.storage, rows.kind, rows.lists, (*rows.new, *sorted(new, key=key)))
    return tuple(sorted((*rows, *new), key=key))


def listed(storage: Storage, kind: type[T], rows: Sequence[T], listing: Listing) -> Sequence[T]:
    """Write rows that are in no list yet to lists, unless they are few and none is in one.

    Returns:
        The rows, by split where they are parts, and otherwise in their order.

    Raises:
        StoreError: The disk is full, or the place cannot be written.
    """
    if isinstance(rows, Rows):
        if rows.storage.url != storage.url:  # of the store that this one is made from
            return listed(storage, kind, tuple(rows), listing)
        lists, new = rows.lists, rows.new
    else:
        lists, new = (), tuple(rows)
        if len(new) <= listing.inline:
            return new
    written = [
        _write(storage, chunk)
        for _, group in groupby(sorted(new, key=_split), _split)
        for chunk in _chunks(group, listing.list_bytes)
    ]
    return Rows(storage, kind, sorted((*lists, *written), key=lambda one: one.head.split))


def lists_from_plain(storage: Storage, place: str, kind: type[T], plain: Any) -> Rows[T]:
    """Return the rows whose lists manifest.json names.

    Args:
        storage: The store's.
        place: The manifest, for messages.
        kind: What a row is.
        plain: What `RowList.plain` gave, of each list.

    Raises:
        ConfigError: It is not that.
        StoreError: A name lies outside the store, or parts have more bytes than can be counted.
    """
    if not isinstance(plain, list) or not all(isinstance(item, dict) for item in plain):
        raise ConfigError("lists must be a list of tables")
    parts = kind is PartRecord
    lists = []
    for item in plain:
        sizes = item.get("part_bytes", [])
        head = from_plain(ListHead, {key: value for key, value in item.items() if key != "part_bytes"})
        check_inside(place, head.path)
        if not 1 <= head.rows <= head.size < MOST_LIST or bool(head.split) != parts or not isinstance(sizes, list):
            raise ConfigError(f"{head.path}: {head.rows} rows of split {head.split!r} in {head.size} bytes")
        if len(sizes) != (head.rows if parts else 0) or set(map(type, sizes)) - {int}:
            raise ConfigError(f"{head.path}: part_bytes must be {head.rows} numbers")
        try:
            lists.append(RowList(head, np.array(sizes, np.int64)))
        except OverflowError as error:
            raise ConfigError(f"{head.path}: part_bytes holds a number beyond all sizes") from error
    every = np.concatenate([np.empty(0, np.int64), *(one.part_bytes for one in lists)])
    if every.min(initial=1) < 1:
        raise ConfigError("a list has a part of no bytes")
    check_total(place, every)
    return Rows(storage, kind, lists)


def _split(row: object) -> str:
    return row.split if isinstance(row, PartRecord) else ""


def _chunks(rows: Iterator[T], list_bytes: int) -> Iterator[tuple[list[T], bytes]]:
    """Give the rows of each list and its text."""
    chunk: list[T] = []
    text = bytearray()
    for row in rows:
        chunk.append(row)
        text += json.dumps(plain_row(row), sort_keys=True).encode() + b"\n"
        if len(text) >= list_bytes:
            yield chunk, bytes(text)
            chunk, text = [], bytearray()
    if chunk:
        yield chunk, bytes(text)


def _write(storage: Storage, chunk: tuple[list[T], bytes]) -> RowList:
    """Write a list."""
    rows, text = chunk
    sha256 = FileRecord.hash_of(text)
    head = ListHead(
        path=f"{LISTS}/{sha256[:32]}.jsonl", size=len(text), sha256=sha256, rows=len(rows), split=_split(rows[0])
    )
    storage.write(head.path, text)
    return RowList(head, np.array([row.n_bytes for row in rows if isinstance(row, PartRecord)], np.int64))
