"""The decoding process: requests on stdin, frames on the pipe that was its stdout.

    {"do": "frames" | "probe", "path", "wanted"} -> frames ... -> {"end": report} | {"fault": reason, ...}

Run as `python -m bytropix.pipelines.decoders.child PARENT`. It ends when its stdin ends or the process PARENT is gone.
It never outlives a hang by much either: an alarm, set anew with every decoded frame, ends it from outside Python.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from typing import Any, NoReturn

import av
import numpy as np

from bytropix.pipelines.decoders.clock import Picker
from bytropix.pipelines.decoders.contract import VideoFault, Wanted
from bytropix.pipelines.decoders.opening import header_info, opened, rotation_of
from bytropix.pipelines.decoders.pyav import decoded_frames
from bytropix.pipelines.decoders.registry import DECODERS
from bytropix.pipelines.decoders.shaper import Shaper
from bytropix.pipelines.decoders.source import Tally
from bytropix.pipelines.decoders.wire import batch_frames, send, send_frames

# A sign of life is sent this often while no frame is picked.
BEAT_SECONDS = 1.0
ORPHAN_SECONDS = 1.0
# The asking process kills a hanging one; the alarm is for the case that it is gone as well.
ALARM_AFTER = 2.0


class Child:
    """Answers requests, one after the other.

    Args:
        pipe: Descriptor that the answers are written to.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._stall = 60.0
        self._sent = 0.0

    def answer(self, request: dict[str, Any]) -> None:
        """Do one request, whatever comes of it."""
        wanted = Wanted(**request["wanted"])
        tally = Tally(decoder="pyav" if wanted.decoder == "auto" else wanted.decoder, beat=self._beat)
        self._stall = wanted.stall_seconds
        self._sent = time.monotonic()
        _limit_memory(wanted.memory_bytes)
        self._arm()
        memory = f"needed more than {wanted.memory_bytes >> 20} MiB of memory"
        try:
            if request["do"] == "probe":
                answer: dict[str, Any] = {"info": probe(request["path"], wanted, tally)}
            else:
                self._frames(request["path"], wanted, tally)
                answer = {}
        except VideoFault as fault:
            answer = {"fault": fault.reason, "retry": fault.retry}
        except MemoryError:
            answer = {"fault": memory, "retry": True, "last": True}
        except Exception as error:  # a bug of a library must not pass for the end of the file
            answer = {"fault": f"the decoder failed: {type(error).__name__}: {error}", "retry": True}
        self._tell(answer | {"report": asdict(tally.report())})
        if answer.get("last"):
            os._exit(0)  # after a refused allocation nothing of the libraries can be relied on

    def _frames(self, path: str, wanted: Wanted, tally: Tally) -> None:
        """Send the frames of a file."""
        picker = Picker(wanted.fps)
        shaper: Shaper | None = None
        images = np.empty((batch_frames(wanted.height, wanted.width), wanted.height, wanted.width, 3), np.uint8)
        times: list[float] = []
        try:
            for frame, begin, end in DECODERS[tally.decoder](path, wanted, tally):
                if shaper is None:
                    shaper = Shaper(
                        wanted, pixel_aspect=tally.pixel_aspect, rotation=tally.rotation, mirrored=tally.mirrored
                    )
                shaped: np.ndarray | None = None
                for moment in picker.until(begin, end):
                    if shaped is None:
                        shaper.shape(frame, images[len(times)])
                    else:
                        images[len(times)] = shaped
                    shaped = images[len(times)]
                    times.append(moment)
                    if len(times) == len(images):
                        self._send(times, images)
        finally:
            if times:
                self._send(times, images)

    def _send(self, times: list[float], images: np.ndarray) -> None:
        """Send a batch and empty it."""
        signal.setitimer(signal.ITIMER_REAL, 0)  # waiting for the other side is no hang
        send_frames(self._pipe, np.array(times), images[: len(times)])
        times.clear()
        self._sent = time.monotonic()
        self._arm()

    def _tell(self, words: dict[str, Any]) -> None:
        """Send a message of words."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(self._pipe, words)

    def _beat(self) -> None:
        """Note that the work goes on, and say so now and then."""
        self._arm()
        if time.monotonic() - self._sent > BEAT_SECONDS:
            self._tell({"alive": True})
            self._sent = time.monotonic()
            self._arm()

    def _arm(self) -> None:
        """Put the alarm off."""
        signal.setitimer(signal.ITIMER_REAL, ALARM_AFTER * self._stall)


def probe(path: str, wanted: Wanted, tally: Tally) -> dict[str, Any]:
    """Return what the header and the first frame of a file say, as a row of VideoInfo."""
    with opened(path, wanted.most_pixels) as (container, stream):
        stream.codec_context.thread_count = 1
        first = next(decoded_frames(container, stream, tally), None)
        return asdict(header_info(container, stream, rotation_of(first) if first is not None else 0))


def _limit_memory(n_bytes: int) -> None:
    """Limit the address space of this process, where the system can."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard), hard))


def _end_with(parent: int) -> NoReturn:
    """End this process soon after its parent has, whatever it is doing."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # with whatever program a decoder has started
    os._exit(1)


def main() -> None:
    """Answer requests until there are no more."""
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    pipe = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not get among the frames
    av.logging.set_level(av.logging.PANIC)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the asking process, which then ends this one
    child = Child(pipe)
    send(pipe, {"ready": True})
    for line in sys.stdin.buffer:
        send(pipe, {"alive": True})  # the request is read: what happens from here on is this file's doing
        child.answer(json.loads(line))


if __name__ == "__main__":
    main()
