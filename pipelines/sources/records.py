"""What a reader of a source gives, and what it may be told.

    stream of a file -> reader of its kind -> Block, Block, BadRecord, Block ... | SourceFault, the whole file refused

A block is some bytes of a record: of a member of an archive, a row, a page. Blocks of a record come in order and next
to one another, so a record of any length is read in little memory.
"""

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from bytropix.errors import ConfigError, SourceError

BLOCK_BYTES = 1 << 22  # most of a block
LONGEST_ROW = 1 << 24  # of JSON Lines, CSV, or a page's text, in bytes: such things have to be held whole
LONGEST_REASON = 400  # characters
FREE_BYTES = 1 << 20  # of output, below which no expansion is too much

FORMATS = ("plain", "tar", "zip", "jsonl", "csv", "tsv", "parquet", "npy", "mediawiki", "warc")
COMPRESSIONS = ("gz", "bz2", "xz", "zst")


@dataclass(slots=True)
class Block:
    """Some bytes of a record, at most `BLOCK_BYTES` and at least one."""

    record: str
    """Its name in its file: member path, number of the line or row (from 1), page title, URI. Empty where the file
    itself is the record; documents are then cut at newlines."""
    data: bytes
    """The bytes."""
    last: bool
    """Whether the record ends with this block."""
    place: int = -1
    """Where `data` begins in the raw file, -1 if it does not lie there as such."""


@dataclass(slots=True)
class BadRecord:
    """One record refused; reading goes on. Blocks of it that came just before, without a last one, are void."""

    record: str
    """Its name, as in `Block`."""
    reason: str
    """Why it is refused."""
    bytes_read: int = 0
    """How much of it was read."""


class SourceFault(SourceError):  # noqa: N818
    """The whole file is refused; the message is the reason without its name. Blocks given before are void."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split())[:LONGEST_REASON])  # libraries quote what they met, newlines and all


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How files are read."""

    text_field: str = ""
    """Key of JSON Lines, or column of CSV, that holds the text; each row is then a document. Without it, such files are
    plain bytes."""
    column: str = "text"
    """Column of Parquet files that holds the text or the bytes; each row is a document."""
    sample_field: str = ""
    """Of WebDataset tars: only members KEY.<sample_field> are documents. Without it, every member of a tar is."""
    max_expansion: float = 200.0
    """Most bytes that a byte of a compressed file may become, past the first MiB; what becomes more is refused."""
    kind: str = ""
    """Read every file as this kind (plain, tar, zip, jsonl, csv, tsv, parquet, npy, mediawiki, warc, gz, bz2, xz, zst,
    or two: tar.gz), whatever its name."""

    def __post_init__(self) -> None:
        if not self.max_expansion >= 1 or math.isinf(self.max_expansion):
            raise ConfigError(f"max_expansion must be a number of at least 1, got {self.max_expansion}")
        if not self.column:
            raise ConfigError("column must name a column of the Parquet files")
        form, compression = split_kind(self.kind)
        if self.kind and (form not in FORMATS or (compression and compression not in COMPRESSIONS)):
            raise ConfigError(
                f"kind must be one of {', '.join(FORMATS + COMPRESSIONS)}, or two as in tar.gz, got {self.kind!r}"
            )
        if form in ("jsonl", "csv", "tsv") and not self.text_field:
            raise ConfigError(f"kind {self.kind} needs --text-field, the name of the field that holds the text")


def split_kind(kind: str) -> tuple[str, str]:
    """Return format and compression of a kind: tar and gz for tar.gz, plain and gz for gz, tar and "" for tar."""
    form, _, compression = kind.rpartition(".")
    if compression in COMPRESSIONS:
        return form or "plain", compression
    return kind, ""


def blocks_of(record: str, pieces: Iterable[bytes]) -> Iterator[Block]:
    """Give the pieces of a record whose end is not known before it comes; nothing if all are empty."""
    held = b""
    for piece in pieces:
        if held and piece:
            yield Block(record, held, last=False)
        held = piece or held
    if held:
        yield Block(record, held, last=True)


def text_blocks(record: str, data: bytes) -> Iterator[Block | BadRecord]:
    """Give a record that is in memory."""
    if not data:
        yield BadRecord(record, "empty")
    for begin in range(0, len(data), BLOCK_BYTES):
        end = begin + BLOCK_BYTES
        yield Block(record, data[begin:end], last=end >= len(data))


def buffered(raw: io.RawIOBase, size: int = 1 << 20) -> io.BufferedReader:
    """Return a stream over another whose small reads are cheap and whose reads are whole."""
    return io.BufferedReader(raw, size)


def pieces_of(stream: BinaryIO | io.BufferedReader, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Give what a stream holds, `size` bytes at a time."""
    while piece := stream.read(size):
        yield piece


def climbs_out(path: str) -> bool:
    """Whether the path of a member is absolute or leaves the archive by `..`."""
    steps = path.replace("\\", "/").split("/")
    return not steps[0] or ".." in steps or steps[0].endswith(":")


def check_expansion(given: int, taken: int, limit: float) -> None:
    """Refuse a file whose bytes become too many.

    Args:
        given: Bytes that were decoded.
        taken: Compressed bytes that they came from.
        limit: Most bytes that one may become.

    Raises:
        SourceFault: They are more than that, and more than `FREE_BYTES`.
    """
    if given > FREE_BYTES and given > limit * taken:
        raise SourceFault(
            f"a byte of it becomes {given / max(taken, 1):,.0f}, more than --max-expansion {limit:g}; raise that if it "
            f"is meant to"
        )
