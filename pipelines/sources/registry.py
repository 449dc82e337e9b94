"""Which reader a file gets.

    stream, name -> by suffix and first bytes, or as told -> decoder of what is compressed -> reader of the kind

A compressed file is read by the rest of its name: `a.jsonl.zst` is JSON Lines. What lies in an archive is not unpacked
again, and a file that is compressed twice is refused, so expansion has one bound.
"""

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from bytropix.pipelines.sources.compressed import DECODERS, Decoded
from bytropix.pipelines.sources.csv_rows import csv_reader
from bytropix.pipelines.sources.json_lines import read_json_lines
from bytropix.pipelines.sources.mediawiki import begins_like_a_dump, read_mediawiki
from bytropix.pipelines.sources.npy import read_npy
from bytropix.pipelines.sources.parquet import read_parquet
from bytropix.pipelines.sources.plain import read_plain
from bytropix.pipelines.sources.records import BadRecord, Block, ReadOptions, SourceFault, buffered, split_kind
from bytropix.pipelines.sources.tar import read_tar
from bytropix.pipelines.sources.warc import read_warc
from bytropix.pipelines.sources.zip import read_zip

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file."""

    name: str
    """How `--kind` and the manifest call it."""
    suffixes: tuple[str, ...]
    """Ends of file names, in lower case."""
    read: Callable[[BinaryIO, ReadOptions], Iterator[Block | BadRecord]]
    """The reader. It refuses, with SourceFault, what is not of the kind."""
    seeks: bool = False
    """Whether the reader has to seek."""
    needs_field: bool = False
    """Whether such files are plain unless `text_field` is given."""
    begins: Callable[[bytes], bool] = lambda head: True
    """Whether first bytes are those of the kind, where the suffix says too little; others are plain."""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("plain", (), read_plain),
        Kind("tar", (".tar",), read_tar),
        Kind("zip", (".zip",), read_zip, seeks=True),
        Kind("jsonl", (".jsonl", ".ndjson"), read_json_lines, needs_field=True),
        Kind("csv", (".csv",), csv_reader(","), needs_field=True),
        Kind("tsv", (".tsv",), csv_reader("\t"), needs_field=True),
        Kind("parquet", (".parquet",), read_parquet, seeks=True),
        Kind("npy", (".npy",), read_npy),
        Kind("mediawiki", (".xml",), read_mediawiki, begins=begins_like_a_dump),
        Kind("warc", (".warc",), read_warc),
    )
}


def read_records(stream: BinaryIO, name: str, options: ReadOptions) -> tuple[str, Iterator[Block | BadRecord]]:
    """Return a file's kind and what is in it.

    The stream is read once, from where it stands (its first byte), in order, to its end, and never closed: whoever
    wants a hash takes it on the way. Only kinds with `seeks` move about, and only in a stream that says it is seekable;
    of one that is not they make a temporary copy, reading it in order to its end.

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
    source = buffered(_Whole(stream))
    form, compression, inner = _suffixes(name)
    if options.kind:
        form, compression = split_kind(options.kind)
    if not source.peek():
        return "plain", iter(())
    content = source
    if compression:
        content = buffered(Decoded(source, DECODERS[compression], options.max_expansion))
        if not options.kind and _suffixes(inner)[1]:
            raise SourceFault("compressed twice; take the outer compression off")
    kind = KINDS[form] if options.kind else _kind_of(form, content, options)
    seekable = stream if not compression and stream.seekable() else None
    title = f"{kind.name}.{compression}".removeprefix("plain.").removesuffix(".") or "plain"
    blocks = _read(kind, content, seekable, options)
    return title, _without_places(blocks) if compression else blocks


def _suffixes(name: str) -> tuple[str, str, str]:
    """Return format and compression by a file's name, "" for none, and the name without the suffix of compression."""
    name = name.lower()
    for compression, way in DECODERS.items():
        if name.endswith(way.archive_suffixes):
            return "tar", compression, ""
        for suffix in way.suffixes:
            if name.endswith(suffix):
                inner = name.removesuffix(suffix)
                return _form(inner), compression, inner
    return _form(name), "", name


def _form(name: str) -> str:
    """Return the format by a file's name."""
    return next((kind.name for kind in KINDS.values() if kind.suffixes and name.endswith(kind.suffixes)), "plain")


def _kind_of(form: str, content: io.BufferedReader, options: ReadOptions) -> Kind:
    """Return the kind of what has the suffix of `form`."""
    kind = KINDS[form]
    if (kind.needs_field and not options.text_field) or not kind.begins(content.peek()):
        return KINDS["plain"]
    return kind


def _read(
    kind: Kind, content: io.BufferedReader, seekable: BinaryIO | None, options: ReadOptions
) -> Iterator[Block | BadRecord]:
    """Give what the reader of a kind finds; every reader reads to the end of the file."""
    if not kind.seeks:
        yield from kind.read(cast(BinaryIO, content), options)
    elif seekable is not None:
        seekable.seek(0)
        yield from kind.read(seekable, options)
    else:
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(content, copy, BUFFER_BYTES)
            yield from kind.read(cast(BinaryIO, copy), options)


def _without_places(blocks: Iterator[Block | BadRecord]) -> Iterator[Block | BadRecord]:
    """Give blocks of decoded data, whose place there is none in the raw file."""
    for block in blocks:
        if isinstance(block, Block):
            block.place = -1
        yield block


class _Whole(io.RawIOBase):
    """A stream whose reads may be short, as one whose reads are whole."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, out: "WriteableBuffer", /) -> int:
        """Fill `out`, unless the end comes first."""
        view = memoryview(out)
        filled = 0
        while filled < len(view) and (data := self._stream.read(len(view) - filled)):
            view[filled : filled + len(data)] = data
            filled += len(data)
        return filled
