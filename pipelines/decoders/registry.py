"""The decoders by name, in the order in which they are tried."""

import importlib.util
import shutil

from bytropix.pipelines.decoders.contract import DecoderName
from bytropix.pipelines.decoders.decord import decode_decord
from bytropix.pipelines.decoders.ffmpeg import decode_ffmpeg
from bytropix.pipelines.decoders.pyav import decode_pyav
from bytropix.pipelines.decoders.source import Decoder

DECODERS: dict[str, Decoder] = {"pyav": decode_pyav, "decord": decode_decord, "ffmpeg": decode_ffmpeg}


def installed() -> list[DecoderName]:
    """Return the names of those that this machine has, in the order in which they are tried."""
    found: list[DecoderName] = ["pyav"]
    found += ["decord"] if importlib.util.find_spec("decord") else []
    found += ["ffmpeg"] if shutil.which("ffmpeg") else []
    return found
