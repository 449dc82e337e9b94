"""Memory that comes back: a large fresh array costs more in page faults than the gather that fills it.

take(n) -> u8 [n], of memory that nobody can see any more -> views, tensors, ... -> the last one dies -> back

Pinned memory is torch's own to recycle: it knows which copies to a device still read from it.
"""

import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PAGE = 4096  # rows of whole pages, copied to 16 bytes behind a page's start, would take three times as long
_SPARE = 6  # more than a prefetch queue holds, few enough that a burst of kept batches is given back


class BufferPool:
    """Hands out memory to fill; safe to use from several threads.

    Memory is taken again only when the array that was handed out and every view of it are gone, so what is
    delivered never changes under its holder.

    Args:
        pinned: Whether a GPU can copy from it without waiting.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self.pinned = pinned
        self._spare: deque[NDArray[np.uint8]] = deque(maxlen=_SPARE)

    def take(self, size: int) -> Tensor:
        """Return u8 [size] with arbitrary content, at the start of a page."""
        if self.pinned:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = np.empty(0, dtype=np.uint8)
        if memory.size < size + _PAGE:
            memory = np.empty(size + _PAGE, dtype=np.uint8)
        # Over a memoryview, numpy lets views of `array` hold `array` itself and not the memory below it.
        array = np.frombuffer(memory.data, dtype=np.uint8, count=size, offset=-memory.ctypes.data % _PAGE)
        weakref.finalize(array, self._spare.append, memory).atexit = False
        return torch.from_numpy(array)
