"""Video decoders, each behind one interface, in a process of their own.

DecoderProcess.frames(path, Wanted) -> Frames ... -> DecodeReport | VideoFault
    child process: DECODERS[name] -> frames of full size at their times -> picked by time -> shaped
"""

from bytropix.pipelines.decoders.contract import DecodeReport, DecoderName, Fit, Frames, VideoFault, VideoInfo, Wanted
from bytropix.pipelines.decoders.process import DecoderProcess
from bytropix.pipelines.decoders.registry import DECODERS

__all__ = [
    "DECODERS",
    "DecodeReport",
    "DecoderName",
    "DecoderProcess",
    "Fit",
    "Frames",
    "VideoFault",
    "VideoInfo",
    "Wanted",
]
