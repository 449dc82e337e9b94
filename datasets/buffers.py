"""Memory that comes back: a large fresh array costs more in page faults than the gather that fills it.

take(n) -> u8 [n], of memory that nobody can see any more -> views, tensors, ... -> the last one dies -> back
"""

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

_SPARE = 12  # more than a prefetch queue holds, few enough that a burst of kept batches is given back


class BufferPool:
    """Hands out arrays over recycled memory; safe to use from several threads.

    Memory is taken again only when the array that was handed out and every view of it are gone, so what is
    delivered never changes under its holder.
    """

    def __init__(self) -> None:
        self._spare: deque[NDArray[np.uint8]] = deque(maxlen=_SPARE)

    def take(self, size: int) -> NDArray[np.uint8]:
        """Return a u8 array of `size` bytes with arbitrary content."""
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = np.empty(0, dtype=np.uint8)
        if memory.size < size:
            memory = np.empty(size, dtype=np.uint8)
        # Over a memoryview, numpy lets views of `array` hold `array` itself and not the memory below it.
        array = np.frombuffer(memory.data, dtype=np.uint8, count=size)
        weakref.finalize(array, self._spare.append, memory).atexit = False
        return array
