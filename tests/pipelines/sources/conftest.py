"""Small files of every kind, and how tests read them."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import pytest

from bytropix.jobs.bench.source_samples import good_files
from bytropix.pipelines.sources import BadRecord, ReadOptions, read_records
from bytropix.pipelines.sources.records import BLOCK_BYTES

DEFAULT = ReadOptions()


class Trickle(io.RawIOBase):
    """A stream that cannot seek and gives less than it is asked for, as sockets do."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        """Return at most 700 bytes."""
        return self._data.read(min(size, 700) if size >= 0 else 700)


@dataclass
class Found:
    """What a reader gave."""

    kind: str
    records: list[tuple[str, bytes]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Of the first block of each record."""


def read_all(data: bytes | BinaryIO, name: str, options: ReadOptions = DEFAULT, *, seekable: bool = True) -> Found:
    """Read a file to its end, hold every block to its contract, and put records together."""
    raw = data if isinstance(data, bytes) else b""
    stream: BinaryIO = (io.BytesIO(data) if seekable else Trickle(data)) if isinstance(data, bytes) else data  # type: ignore[assignment]
    kind, blocks = read_records(stream, name, options)
    found = Found(kind)
    parts: list[bytes] = []
    for block in blocks:
        if isinstance(block, BadRecord):
            assert block.reason
            found.bad.append((block.record, block.reason))
            parts.clear()
            continue
        assert 0 < len(block.data) <= BLOCK_BYTES
        if block.place >= 0 and raw:
            assert raw[block.place : block.place + len(block.data)] == block.data
        if not parts:
            found.places.append(block.place)
        parts.append(block.data)
        if block.last:
            found.records.append((block.record, b"".join(parts)))
            parts.clear()
    assert not parts
    if raw and not (seekable and kind in ("zip", "parquet")):
        assert not stream.read(1)  # whoever hashes the stream has seen all of it
    return found


@pytest.fixture(scope="session")
def samples() -> dict[str, bytes]:
    """Return a good file of every kind, by a name that says which; the text field is `text`."""
    return good_files()


@pytest.fixture(scope="session")
def read() -> Callable[..., Found]:
    """Return the function that reads a file to its end."""
    return read_all
