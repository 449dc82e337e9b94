"""When a frame is shown, and which frame is shown at a given time.

time stamps as stored (missing, doubled, jumping) -> Clock -> seconds from the first frame, rising
(frame, seconds) one by one -> Picker -> (frame, target times at which it is the one shown)
"""

import math
from collections.abc import Iterator

# Below this step a frame is shown for no time at all; it only keeps the order.
LEAST_STEP = 1e-6
# MPEG streams are cut and joined: their time stamps may start anew, as FFmpeg also takes it at this distance.
JOINED_JUMP = 10.0
# A gap that is longer is a broken stamp, not a still picture.
LONGEST_GAP = 600.0
# Containers such as Matroska round times to milliseconds: a frame that comes so much late is meant to be there.
ROUNDING = 1e-3


class Clock:
    """Turns the time stamps of one video into seconds from its first frame, rising.

    Args:
        step: Seconds from one frame to the next where a stamp is missing.
        joined: Whether the container may start its time stamps anew in the middle.
    """

    def __init__(self, step: float, *, joined: bool) -> None:
        self._step = step if step > 0 else 1 / 25
        self._gap = JOINED_JUMP if joined else LONGEST_GAP
        self._offset = 0.0
        self._last = -math.inf

    def seconds(self, stamp: float | None) -> float:
        """Return when a frame is shown, given its stamp in seconds (None: it has none)."""
        if self._last == -math.inf:
            self._offset = -(stamp or 0.0)
            self._last = 0.0
            return 0.0
        time = self._last + self._step if stamp is None else stamp + self._offset
        if abs(time - self._last) > self._gap:  # the stamps start anew
            self._offset += self._last + self._step - time
            time = self._last + self._step
        self._last = max(time, self._last + LEAST_STEP)
        return self._last


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
