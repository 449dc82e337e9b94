"""The codecs of compressed arrays, by their numcodecs and zarr names.

name, level -> encode a block, decode a block, and what zarr writes about it in zarr.json

A new codec is one entry of CODECS. Parts say in their zarr.json how they are compressed, so readers take it from there.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError

CodecName = Literal["zstd", "lz4", "blosc-zstd", "none"]
HEADER_BYTES = 18


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to compress."""

    least: int
    """Least level."""
    most: int
    """Greatest level."""
    default: int
    """Level unless another is asked for."""
    make: Callable[[int], Any]
    """Return the numcodecs codec of a level."""
    to_zarr: Callable[[int], Any]
    """Return the zarr codec of a level, which decodes what the other encodes."""
    raw_size: Callable[[bytes], int]
    """Return how long a block says to be raw, given its first `HEADER_BYTES`; -1 if it does not say."""


def _zstd(level: int) -> Any:
    import numcodecs  # here and below: opening a store should not wait for what only its blocks need

    return numcodecs.Zstd(level=level)


def _zarr_zstd(level: int) -> Any:
    from zarr.codecs import ZstdCodec

    return ZstdCodec(level=level)


def _blosc(level: int) -> Any:
    import numcodecs

    return numcodecs.Blosc("zstd", level, numcodecs.Blosc.BITSHUFFLE)


def _zarr_blosc(level: int) -> Any:
    from zarr.codecs import BloscCodec

    return BloscCodec(cname="zstd", clevel=level, typesize=1, shuffle="bitshuffle")


def _lz4(level: int) -> Any:
    import numcodecs

    return numcodecs.LZ4(acceleration=level)


def _zarr_lz4(level: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is no part of the Zarr specification yet: our docs say so
        from zarr.codecs.numcodecs import LZ4

        return LZ4(acceleration=level)


def _zstd_size(frame: bytes) -> int:
    flags = frame[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    at = 6 - single + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(frame[at : at + width], "little") + 256 * (width == 2) if width else -1


def _blosc_size(chunk: bytes) -> int:
    return int.from_bytes(chunk[4:8], "little")


def _lz4_size(chunk: bytes) -> int:
    return int.from_bytes(chunk[:4], "little")


# Level 3 of zstd saves two percent more on prose and takes twice the time of level 1.
CODECS: dict[str, Codec] = {
    "zstd": Codec(-7, 22, 1, _zstd, _zarr_zstd, _zstd_size),
    "lz4": Codec(1, 1000, 1, _lz4, _zarr_lz4, _lz4_size),
    "blosc-zstd": Codec(0, 9, 1, _blosc, _zarr_blosc, _blosc_size),
}


def check_codec(name: str, level: int | None) -> None:
    """Refuse a codec or level that does not exist.

    Raises:
        ConfigError: It does not.
    """
    if name != "none" and name not in CODECS:
        raise ConfigError(f"codec must be one of {', '.join(CODECS)}, none; got {name!r}")
    if level is None:
        return
    if name == "none":
        raise ConfigError(f"codec_level {level}: codec none has no level; leave it out or choose another codec")
    codec = CODECS[name]
    if not codec.least <= level <= codec.most:
        raise ConfigError(f"codec_level of {name} must lie in {codec.least}..{codec.most}, got {level}")


def decoder(zarr_codecs: list[dict[str, Any]], size: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return what decodes a block.

    It raises ValueError or RuntimeError where a block is none, or not of `size` bytes raw, before it takes memory.

    Args:
        zarr_codecs: The codecs of an inner chunk as zarr.json lists them.
        size: Raw bytes of every block.

    Raises:
        KeyError: None of ours is among them.
    """
    names = {"zstd": "zstd", "blosc": "blosc-zstd", "numcodecs.lz4": "lz4"}
    found = [names[codec["name"]] for codec in zarr_codecs if codec["name"] in names]
    if not found:
        raise KeyError(f"none of the codecs {', '.join(names)}")
    kind = CODECS[found[0]]
    codec = kind.make(kind.default)

    def decode(chunk: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if len(chunk) < HEADER_BYTES or kind.raw_size(chunk[:HEADER_BYTES].tobytes()) != size:
            raise ValueError("not a block of this size")
        block: NDArray[np.uint8] = np.frombuffer(codec.decode(chunk), np.uint8)
        if len(block) != size:
            raise ValueError("not a block of this size")
        return block

    return decode
