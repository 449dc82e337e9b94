"""How the decoding process answers, on its pipe.

message = length of the words, number of frames | words (JSON) | times f64[k] | images u8[k, height, width, 3]
"""

import json
import os
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<II")
# So many bytes of frames make a message: few enough to keep memory small, enough to make its cost vanish.
BATCH_BYTES = 2**20
MOST_FRAMES = 64


def batch_frames(height: int, width: int) -> int:
    """Return how many frames a message has at most."""
    return max(1, min(MOST_FRAMES, BATCH_BYTES // (height * width * 3)))


def send(pipe: int, words: dict[str, Any]) -> None:
    """Write a message without frames."""
    text = json.dumps(words).encode()
    _write(pipe, HEAD.pack(len(text), 0) + text)


def send_frames(pipe: int, times: NDArray[np.float64], images: NDArray[np.uint8]) -> None:
    """Write frames, u8[k, height, width, 3], with their times."""
    _write(pipe, HEAD.pack(0, len(times)) + times.tobytes())
    _write(pipe, images.data.cast("B"))


def _write(pipe: int, data: bytes | memoryview) -> None:
    """Write all of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]
