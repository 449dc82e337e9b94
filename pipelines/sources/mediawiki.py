"""MediaWiki XML dumps: each page is a record.

    stream -> expat, 64 KiB at a time -> title, text of the last revision -> the text, in UTF-8

A dump that is cut off, as enwik8 is, gives the pages before the cut, which are whole, and one bad record for what the
cut is in. Damage elsewhere refuses the file, since nothing after it can be read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.parsers import expat

from bytropix.pipelines.sources.records import LONGEST_ROW, BadRecord, Block, ReadOptions, SourceFault, text_blocks

FEED_BYTES = 1 << 16
MOST_STALLED = 1 << 20  # bytes of a tag or comment; the parser reads it anew with every piece that it gets
DEEPEST = 64  # elements in one another; a dump has five
LONGEST_TITLE = 1024  # characters; MediaWiki allows 255 bytes
TITLE = ["mediawiki", "page", "title"]
TEXT = ["mediawiki", "page", "revision", "text"]


def begins_like_a_dump(head: bytes) -> bool:
    """Whether the first bytes of an XML file are those of a dump."""
    return b"<mediawiki" in head[:1024]


def read_mediawiki(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the text of each page; the record is its title.

    Raises:
        SourceFault: It is no dump, not well-formed, or has a document type definition.
    """
    dump = _Dump()
    stalled = 0
    while data := stream.read(FEED_BYTES):
        dump.moved = False
        dump.feed(data)
        stalled = 0 if dump.moved else stalled + len(data)
        if stalled > MOST_STALLED:
            raise SourceFault(f"broken XML: a tag or comment of more than {MOST_STALLED:,} bytes")
        for page in dump.done:
            if page.size > LONGEST_ROW:
                yield BadRecord(page.title, f"a text of {page.size:,} characters; at most {LONGEST_ROW:,} are read")
            else:
                yield from text_blocks(page.title, "".join(page.text).encode())
        dump.done.clear()
    if dump.path:
        yield BadRecord(dump.page.title, "the dump is cut off here; the pages before are kept")


@dataclass(slots=True)
class _Page:
    """A page as far as it was read."""

    title: str = ""
    text: list[str] = field(default_factory=list)
    """Of its last revision, in pieces."""
    size: int = 0
    """Characters of that text, of which no more than `LONGEST_ROW` are kept."""


class _Dump:
    """A parser of a dump, and the pages it has found."""

    def __init__(self) -> None:
        self.path: list[str] = []
        """Names of the elements that are open."""
        self.page = _Page()
        """The page that is being read, or was read last."""
        self.done: list[_Page] = []
        """Pages that have ended."""
        self.moved = False
        """Set when anything but the inside of a tag or comment was read."""
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.buffer_size = FEED_BYTES
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, data: bytes) -> None:
        """Parse some more."""
        try:
            self._parser.Parse(data)
        except (expat.ExpatError, ValueError, MemoryError) as error:
            raise SourceFault(f"broken XML: {error}") from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.moved = True
        self.path.append(name)
        if self.path[0] != "mediawiki":
            raise SourceFault(f"not a MediaWiki dump: it begins with <{name[:40]}>")
        if len(self.path) > DEEPEST:
            raise SourceFault(f"not a MediaWiki dump: more than {DEEPEST} elements in one another")
        if name == "page":
            self.page = _Page()
        elif self.path == TITLE:
            self._parser.CharacterDataHandler = self._title
        elif self.path == TEXT:
            self.page.text.clear()
            self.page.size = 0
            self._parser.CharacterDataHandler = self._text

    def _end(self, name: str) -> None:
        self.moved = True
        self._parser.CharacterDataHandler = None
        self.path.pop()
        if name == "page":
            self.done.append(self.page)

    def _title(self, data: str) -> None:
        self.page.title = (self.page.title + data)[:LONGEST_TITLE]

    def _text(self, data: str) -> None:
        self.moved = True
        self.page.size += len(data)
        if self.page.size <= LONGEST_ROW:
            self.page.text.append(data)
        else:
            self.page.text.clear()

    def _doctype(self, name: str, system: str | None, public: str | None, internal: bool) -> None:  # noqa: FBT001
        raise SourceFault("XML with a document type definition, which no dump has")
