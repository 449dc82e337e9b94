"""The decoders by name, in the order in which they are tried."""

from bytropix.pipelines.decoders.decord import decode_decord
from bytropix.pipelines.decoders.ffmpeg import decode_ffmpeg
from bytropix.pipelines.decoders.pyav import decode_pyav
from bytropix.pipelines.decoders.source import Decoder

DECODERS: dict[str, Decoder] = {"pyav": decode_pyav, "decord": decode_decord, "ffmpeg": decode_ffmpeg}
