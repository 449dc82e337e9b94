"""The files of a part, found by its row in the manifest and checked: what parts of any kind and format are made of.

name -> its record in the manifest -> Ranges, unchecked        name -> a small file, hashed
"""

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.ranges import Ranges
from bytropix.datasets.store.schema import FileRecord, PartRecord
from bytropix.datasets.store.storage import Storage
from bytropix.errors import StoreError


class PartFiles:
    """The files of one part; safe for threads.

    Attributes:
        record: Its row in the manifest.
        split: Name of its split.
        name: Its folder or tar below parts/<split>/.
        url: Where it lies.
        mapped: Whether what is read is a view of a local file, valid as long as the part; if not, it is memory of its
            own.
        remote: Whether it comes over a network.
        weight: How many times the files of a part of bytes it may have open.
    """

    weight = 1

    def __init__(self, storage: Storage, record: PartRecord, *, mapped: bool) -> None:
        self.storage, self.record, self.mapped = storage, record, mapped
        self.remote = storage.local is None
        self.split, self.name = record.split, record.name
        self.url = f"{storage.url}/parts/{record.split}/{record.name}"

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
