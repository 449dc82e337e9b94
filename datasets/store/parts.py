"""The parts of a split, opened one by one as they are asked for.

manifest -> numbers and sizes of a split's parts, as arrays -> parts[i] -> its record, its files' sizes -> Part

A store may have millions of parts: what is kept of all of them is a few bytes each.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.part_files import PartFiles
from bytropix.datasets.store.rows import Rows
from bytropix.datasets.store.schema import FileRecord, PartRecord
from bytropix.datasets.store.storage import Storage
from bytropix.errors import StoreError

OPEN_PARTS = 256  # of all splits and stores; each takes some of the 1,024 files that a process may have open by default
FEW_FILES = 2  # asked for one by one; of more, a remote folder is listed

P = TypeVar("P", bound=PartFiles)

_ALL: "weakref.WeakSet[Parts[Any]]" = weakref.WeakSet()


class Parts(Sequence[P]):
    """The parts of one split, in order, as a sequence; safe for threads.

    Part i is opened when it is first asked for, and only the parts used last stay open. Where the records of parts lie
    in lists, its list is read then and the sizes of its files are checked, before any of it is delivered. Asking raises
    StoreError, which names the list or the file, if one is missing or damaged.

    Args:
        storage: The store's.
        records: Of all parts of the store.
        numbers: i64 [p], which of them are these.
        sizes: i64 [p], their bytes.
        opener: Opens one.

    Attributes:
        sizes: i64 [p], bytes of each part, known without opening any.
    """

    def __init__(
        self,
        storage: Storage,
        records: Sequence[PartRecord],
        numbers: NDArray[np.int64],
        sizes: NDArray[np.int64],
        opener: Callable[[Storage, PartRecord], P],
    ) -> None:
        self.sizes = sizes
        self._storage, self._records, self._numbers, self._opener = storage, records, numbers, opener
        self._listed = isinstance(records, Rows)
        self._whole = np.zeros(len(numbers), np.bool_)  # whether a part's files were there with their sizes
        self._open: OrderedDict[int, P] = OrderedDict()
        _ALL.add(self)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._numbers)

    @overload
    def __getitem__(self, key: int) -> P: ...
    @overload
    def __getitem__(self, key: slice) -> list[P]: ...
    def __getitem__(self, key: int | slice) -> P | list[P]:
        """Return a part, or some."""
        if isinstance(key, slice):
            return [self[place] for place in range(*key.indices(len(self)))]
        place = range(len(self))[key]
        with self._lock:
            found = self._open.get(place)
            if found is not None:
                self._open.move_to_end(place)
                return found
        opened = self._opened(place)
        with self._lock:
            found = self._open.setdefault(place, opened)  # another thread may have been faster
            most = OPEN_PARTS // (opened.weight * sum(1 for parts in list(_ALL) if parts._open))
            while len(self._open) > max(1, most):
                self._open.popitem(last=False)
        return found

    def records(self) -> Iterator[PartRecord]:
        """Give the parts' rows in the manifest; no part is opened for it."""
        return (self._records[number] for number in self._numbers.tolist())

    def _opened(self, place: int) -> P:
        """Open a part."""
        record = self._records[int(self._numbers[place])]
        if self._listed and not self._whole[place]:
            below = record.folder if len(record.files) > FEW_FILES else None
            check_sizes(self._storage, [(record.folder, record.files)], below=below)
            self._whole[place] = True
        return self._opener(self._storage, record)


def parts_by_split(
    storage: Storage, records: Sequence[PartRecord], opener: Callable[[Storage, PartRecord], P]
) -> dict[str, Parts[P]]:
    """Return the parts of each split that has some; no list is read."""
    if isinstance(records, Rows):
        runs = [(one.head.split, one.part_bytes) for one in records.lists]
    else:
        runs = [(record.split, np.array([record.n_bytes], np.int64)) for record in records]
    first = np.concatenate(([0], np.cumsum([len(sizes) for _, sizes in runs], dtype=np.int64)))
    found: dict[str, list[int]] = {}
    for run, (split, _) in enumerate(runs):
        found.setdefault(split, []).append(run)
    return {
        split: Parts(
            storage,
            records,
            np.concatenate([np.arange(first[run], first[run + 1]) for run in of_split]),
            np.concatenate([runs[run][1] for run in of_split]),
            opener,
        )
        for split, of_split in sorted(found.items())
    }


def check_sizes(
    storage: Storage, groups: Iterable[tuple[str, Sequence[FileRecord]]], *, below: str | None = None
) -> None:
    """Refuse files that are missing or of another size; of a storage that cannot tell, none: reading them will.

    Args:
        storage: The store's.
        groups: Folders, and the files that should be in each.
        below: A folder that holds all of them: where the store is remote, one listing of it answers in place of a
            question for each file.

    Raises:
        StoreError: A file is; the message names it.
    """
    if not storage.listed:
        return
    there = storage.sizes(below) if below is not None and storage.local is None else None
    for folder, files in groups:
        for file in files:
            name = f"{folder}/{file.path}" if folder else file.path
            size = storage.size(name) if there is None else there.get(name)
            if size != file.size:
                found = "missing" if size is None else f"{size} bytes instead of {file.size}"
                raise StoreError(
                    f"{storage.url}/{name}: {found}; the store is damaged: mend it with `bytropix verify --repair`, "
                    "restore the file, or ingest again"
                )
