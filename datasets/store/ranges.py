"""Reading a file by ranges, so that a part need not know where it lies.

start, stop -> MappedFile: a view of the map        RemoteFile: pages, out of a cache or fetched
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Ranges(Protocol):
    """A file of a part. Safe for threads."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        ...

    def range(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return bytes `start` to `stop`, u8; fewer where the file ends before.

        Raises:
            StoreError: They cannot be had.
        """
        ...

    def anew(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the same from where the file lies, past every copy kept of it: those that were had are wrong."""
        ...

    def prefetch(self, start: int, stop: int) -> None:
        """Take note that bytes `start` to `stop` will be wanted soon; return at once."""
        ...


class MappedFile:
    """A file on a disk of this machine, see `Ranges`; what it gives are views, valid as long as any of them."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self.content = content.view(np.ndarray)  # slicing a memmap itself takes four times as long
        self.size = len(content)

    def range(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return bytes `start` to `stop`."""
        return self.content[start:stop]

    def anew(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the same: there is no copy."""
        return self.content[start:stop]

    def prefetch(self, start: int, stop: int) -> None:
        """Do nothing: the system reads ahead by itself."""
