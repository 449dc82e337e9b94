"""Frames out of coded units: those that a range touches are decoded, and the ones used last are kept.

start, stop, step -> units -> kept? -> else bytes -> decode -> frames, copied
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.frame_codecs import decode_unit
from bytropix.datasets.store.video_part import VideoPart

KEPT_BYTES = 4 << 20  # of decoded units of a part: those that clips which follow each other share


class UnitReader:
    """Decodes units of one part; safe for threads.

    Args:
        part: The part.
        stops: i64 [u], the frame behind each unit's last.
        data: Returns the bytes of a unit, checked.
    """

    def __init__(self, part: VideoPart, stops: NDArray[np.int64], data: Callable[[int], bytes]) -> None:
        self._part, self._stops, self._data = part, stops, data
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, start: int, stop: int, step: int, out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """Return frames, see `VideoPart.read_frames`."""
        count = -(-(stop - start) // step)
        if out is None:
            out = np.empty((count, *self._part.shape[1:]), np.uint8)
        done = 0
        number = int(np.searchsorted(self._stops, start, side="right"))
        while done < count:
            end = int(self._stops[number])
            first = int(self._stops[number - 1]) if number else 0
            if start < end:
                here = -(-(min(stop, end) - start) // step)
                target = out[done : done + here]
                if here == end - first and step == 1 and number not in self._kept:
                    self._decode(number, target)  # wanted as a whole: nothing to keep
                else:
                    target[:] = self._unit(number, end - first)[start - first : min(stop, end) - first : step]
                done, start = done + here, start + here * step
            number += 1
        return out

    def _unit(self, number: int, count: int) -> NDArray[np.uint8]:
        """Return a unit, decoded."""
        with self._lock:
            found = self._kept.get(number)
            if found is not None:
                self._kept.move_to_end(number)
                return found
        unit = np.empty((count, *self._part.shape[1:]), np.uint8)
        self._decode(number, unit)
        with self._lock:
            self._kept[number] = unit
            held = sum(one.nbytes for one in self._kept.values())
            while held > KEPT_BYTES and self._kept:
                held -= self._kept.popitem(last=False)[1].nbytes
        return unit

    def _decode(self, number: int, out: NDArray[np.uint8]) -> None:
        try:
            decode_unit(self._part.record.codec, self._data(number), out)
        except ValueError as error:
            raise self._part.nonsense(f"unit {number} of the frames", str(error)) from error
