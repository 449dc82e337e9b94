"""Which reader a file gets.

    stream, name -> by suffix and first bytes, or as told -> kind, blocks of records

A compressed file is decoded as it is read, and what comes out is read by the rest of its name: `a.jsonl.zst` is JSON Lines.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from bytropix.pipelines.sources.records import BadRecord, Block, ReadOptions, blocks_of, pieces_of


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file."""

    name: str
    """How `--kind` and the manifest call it."""
    suffixes: tuple[str, ...]
    """Ends of file names, in lower case."""
    read: Callable[[BinaryIO, ReadOptions], Iterator[Block | BadRecord]]
    """The reader."""
    seeks: bool = False
    """Whether the reader has to seek."""


def _plain(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    place = 0
    for block in blocks_of("", pieces_of(stream)):
        block.place = place
        place += len(block.data)
        yield block


KINDS: dict[str, Kind] = {"plain": Kind("plain", (), _plain)}


def read_records(stream: BinaryIO, name: str, options: ReadOptions) -> tuple[str, Iterator[Block | BadRecord]]:
    """Return a file's kind and what is in it.

    The stream is read once, from where it stands (its first byte), in order, to its end, and never closed: whoever wants a
    hash takes it on the way. Only kinds with `seeks` move about, and only in a stream that says it is seekable; of one that
    is not they make a temporary copy, reading it in order to its end.

    Args:
        stream: Binary; its `read` may give fewer bytes than asked.
        name: The file's name, whose suffixes say what it is.
        options: How to read it.

    Returns:
        The kind, such as "plain", "jsonl.zst" or "tar", and its blocks and bad records. An empty file has none.

    Raises:
        SourceFault: The file is refused; also while the blocks are taken.
        OSError: The stream cannot be read.
    """
    return "plain", KINDS["plain"].read(stream, options)
