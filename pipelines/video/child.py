"""The decoder's process of this worker: started when it is first asked for, and kept for all videos to come."""

import atexit
import os

from bytropix.pipelines.decoders.process import DecoderProcess

_ours: dict[int, DecoderProcess] = {}


def decoder_process() -> DecoderProcess:
    """Return the decoder's process that belongs to this process; a fork of it gets one of its own."""
    process = os.getpid()
    if process not in _ours:  # that of a process which this one was forked from stays as it is, and is not ours
        _ours[process] = DecoderProcess()
        atexit.register(close_decoder)
    return _ours[process]


def close_decoder() -> None:
    """End the decoder's process of this process, if there is one."""
    if found := _ours.pop(os.getpid(), None):
        found.close()
