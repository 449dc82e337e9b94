"""When a frame is shown, and which frame is shown at a given time.

time stamps as stored (missing, doubled, jumping) -> Clock -> seconds from the first frame, rising
(frame, seconds) one by one -> Picker -> (frame, target times at which it is the one shown)
"""

import math
from collections.abc import Iterator

# Below this step a frame is shown for no time at all; it only keeps the order.
LEAST_STEP = 1e-6
# A stamp that lies before the last frame's by more than both of these begins another recording, joined on behind.
JOINED_SECONDS = 0.5
JOINED_STEPS = 8
# A gap that is longer is a broken stamp, not a still picture, unless the header says that the film is as long.
LONGEST_GAP = 600.0
# Containers such as Matroska round times to milliseconds: a frame that comes so much late is meant to be there.
ROUNDING = 1e-3


class Clock:
    """Turns the time stamps of one video into seconds from its first frame, rising.

    Args:
        step: Seconds from one frame to the next where a stamp is missing.
        length: Seconds of the film by its header; 0 where it says nothing.
    """

    def __init__(self, step: float, length: float = 0.0) -> None:
        self._step = step if step > 0 else 1 / 25
        self._length = length
        self._back = max(JOINED_SECONDS, JOINED_STEPS * self._step)
        self._offset = 0.0
        self._last = -math.inf

    def seconds(self, stamp: float | None) -> float:
        """Return when a frame is shown, given its stamp in seconds (None: it has none)."""
        if self._last == -math.inf:
            self._offset = -(stamp or 0.0)
            self._last = 0.0
            return 0.0
        time = self._last + self._step if stamp is None else stamp + self._offset
        if time < self._last - self._back or time > self._latest():  # the stamps start anew
            self._offset += self._last + self._step - time
            time = self._last + self._step
        self._last = max(time, self._last + LEAST_STEP)
        return self._last

    def end(self, duration: float) -> float:
        """Return when the last frame ends, given how many seconds it is shown by its own account."""
        return min(self._last + duration, self._latest())

    def _latest(self) -> float:
        """Return the latest time that is believed of what comes next."""
        return max(self._last + LONGEST_GAP, self._length + ROUNDING)


class Picker:
    """Says how often each frame is given out, and for which times.

    Args:
        fps: Target times are k / fps; 0 gives out every frame once, at its own time.

    A frame is shown from its time until the next one's, so it is known only then: `until` is called with the next
    frame's time (or the last frame's end) for the frame handed in before.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._early = min(ROUNDING, 0.25 / fps) if fps else 0.0
        self._next = 0

    def until(self, begin: float, end: float) -> Iterator[float]:
        """Give the target times at which a frame shown from `begin` to `end` is the one to see."""
        if not self._fps:
            yield begin
            return
        while (time := self._next / self._fps) + self._early < end:
            yield time
            self._next += 1
