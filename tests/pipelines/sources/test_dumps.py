"""MediaWiki dumps, WARC files and NumPy's."""

import bz2
import gzip
import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from bytropix.pipelines.sources import ReadOptions, SourceFault
from bytropix.pipelines.sources.records import BLOCK_BYTES, LONGEST_ROW

Read = Callable[..., Any]


def test_pages(read: Read, samples: dict[str, bytes]) -> None:
    """A page is its title and the text of its last revision, entities resolved; a page without text is refused."""
    found = read(samples["a.xml"], "a.xml")

    assert found.kind == "mediawiki"
    assert found.records == [
        ("First & last", "''A'' <ref> \u2603\nsecond line".encode()),
        ("Third", b"three"),
    ]
    assert found.bad == [("Gone", "empty")]


def test_real_dump(read: Read, shared_data: Path) -> None:
    """A dump of Wikipedia, as it comes, gives what an XML library gives that holds all of it."""
    packed = (shared_data / "text" / "wikipedia" / "enwiki_2016_shortened.xml.bz2").read_bytes()
    space = "{http://www.mediawiki.org/xml/export-0.10/}"
    pages = ET.fromstring(bz2.decompress(packed)).iter(f"{space}page")

    found = read(packed, "enwiki_2016_shortened.xml.bz2")

    assert found.kind == "mediawiki.bz2"
    assert found.records == [
        (page.findtext(f"{space}title"), page.findtext(f"{space}revision/{space}text", "").encode()) for page in pages
    ]
    assert len(found.records) == 206


def test_dump_that_is_cut(read: Read, shared_data: Path) -> None:
    """enwik8 is a dump that is cut off: the pages before the cut are kept, and the cut is one bad record."""
    data = (shared_data / "text" / "wikipedia" / "enwik8_first_4154399_bytes.xml").read_bytes()

    found = read(data, "enwik8.xml")

    assert len(found.records) == data.count(b"</page>") == 491
    assert found.bad == [("Asteraceae", "the dump is cut off here; the pages before are kept")]
    assert sum(map(len, dict(found.records).values())) > 3_900_000


def test_dump_cut_between_pages(read: Read, samples: dict[str, bytes]) -> None:
    """A cut that falls between two pages is not taken for the end."""
    data = samples["a.xml"]
    found = read(data[: data.index(b"</mediawiki>")], "a.xml")

    assert [name for name, _ in found.records] == ["First & last", "Third"]
    assert found.bad[-1][1].startswith("the dump is cut off here")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<mediawiki", "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><mediawiki", "a document type definition"),
        ("three", "a & b", "broken XML: not well-formed"),
        ("three", "&unknown;", "broken XML: undefined entity"),
        ("</page>", "</pag>", "broken XML: mismatched tag"),
        ("</mediawiki>", "</mediawiki><more/>", "broken XML: junk after"),
        ("three", "<a>" * 100, "more than 64 elements in one another"),
        ("three", "<a x='" + "y" * 1_200_000 + "'/>", "a tag or comment of more than"),
    ],
)
def test_bad_xml(old: str, new: str, said: str, read: Read, samples: dict[str, bytes]) -> None:
    """What is not well-formed refuses the dump, and so does anything that could expand or fill the memory."""
    with pytest.raises(SourceFault, match=said):
        read(samples["a.xml"].replace(old.encode(), new.encode()), "a.xml")


def test_page_of_100_mb(read: Read, samples: dict[str, bytes]) -> None:
    """A huge page is refused alone."""
    data = samples["a.xml"].replace(b">old<", b">" + b"x" * 100_000_000 + b"<", 1)
    data = data.replace(b">three<", b">" + b"y" * (LONGEST_ROW + 1) + b"<")

    found = read(data, "a.xml")

    assert [name for name, _ in found.records] == ["First & last"]  # only its last revision counts
    assert found.bad[1] == ("Third", "a text of 16,777,217 characters; at most 16,777,216 are read")


def test_other_xml_is_plain(read: Read, shared_data: Path) -> None:
    """XML that is no dump is a plain file; told that it is one, it is refused."""
    data = (shared_data / "text" / "multilingual" / "bible_ukrainian_nt.xml").read_bytes()

    assert read(data, "bible.xml").kind == "plain"
    with pytest.raises(SourceFault, match=r"not a MediaWiki dump|a document type definition"):
        read(data, "bible.xml", ReadOptions(kind="mediawiki"))


def http_warc(*payloads: tuple[str, bytes, list[tuple[str, str]]], packed: bool = False) -> bytes:
    """Return a WARC file as warcio writes it."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=packed)
    for uri, payload, headers in payloads:
        http = StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1")
        record = writer.create_warc_record(
            uri, "response", payload=io.BytesIO(payload), length=len(payload), http_headers=http
        )
        writer.write_record(record)
        record.raw_stream.close()
    return out.getvalue()


def chunked(data: bytes, size: int) -> bytes:
    """Return data in HTTP chunks."""
    pieces = [data[begin : begin + size] for begin in range(0, len(data), size)]
    return b"".join(b"%x;note\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


CHUNKED = [("Transfer-Encoding", "chunked")]
GZIP = [("Content-Encoding", "gzip")]
PAGE = b"<p>page</p>\n" * 5000


def test_warc(read: Read) -> None:
    """Payloads come without HTTP headers, chunks and encodings, also where the crawler took those off already."""
    data = http_warc(
        ("http://a/plain", PAGE, [("Content-Type", "text/html")]),
        ("http://a/chunked", chunked(PAGE, 777), CHUNKED),
        ("http://a/gzip", gzip.compress(PAGE), GZIP),
        ("http://a/both", chunked(gzip.compress(PAGE), 50), CHUNKED + GZIP),
        ("http://a/deflate", zlib.compress(PAGE), [("Content-Encoding", "deflate")]),
        ("http://a/taken-off", PAGE, CHUNKED + GZIP),
        ("http://a/large", bytes(range(256)) * (BLOCK_BYTES // 200), []),
    )

    found = read(data, "a.warc")

    assert found.bad == []
    assert [name for name, _ in found.records[:-1]] == [
        f"http://a/{name}" for name in ("plain", "chunked", "gzip", "both", "deflate", "taken-off")
    ]
    assert {text for _, text in found.records[:-1]} == {PAGE}
    assert len(found.records[-1][1]) == 256 * (BLOCK_BYTES // 200)


def test_warc_as_warcio_reads_it(read: Read) -> None:
    """A file compressed record by record gives the same payloads as warcio's own iterator."""
    data = http_warc(*((f"http://a/{i}", chunked(PAGE[: 100 * i], 64), CHUNKED) for i in range(1, 30)), packed=True)
    theirs = [
        (record.rec_headers.get_header("WARC-Target-URI"), record.content_stream().read())
        for record in ArchiveIterator(io.BytesIO(data))
    ]

    assert read(data, "a.warc.gz").records == theirs


def test_bad_payloads(read: Read) -> None:
    """A payload that is empty, damaged, cut, a bomb, or of an unknown encoding costs its record and no other."""
    data = http_warc(
        ("http://a/empty", b"", []),
        ("http://a/cut", gzip.compress(PAGE)[:-9], GZIP),
        ("http://a/chunks", chunked(PAGE, 100)[:-300], CHUNKED),
        ("http://a/odd-chunk", chunked(PAGE, 100).replace(b"64;", b"65;", 9), CHUNKED),
        ("http://a/bomb", gzip.compress(bytes(30_000_000)), GZIP),
        ("http://a/br", PAGE, [("Content-Encoding", "br")]),
        ("http://a/good", PAGE, []),
    )

    found = read(data, "a.warc")

    assert found.records == [("http://a/good", PAGE)]
    assert [name for name, _ in found.bad] == [
        f"http://a/{name}" for name in ("empty", "cut", "chunks", "odd-chunk", "bomb", "br")
    ]
    said = ["empty", "truncated gzip", "chunk", "chunk", "--max-expansion", "'br' is not supported"]
    assert all(part in reason for part, (_, reason) in zip(said, found.bad, strict=True))


@pytest.mark.parametrize("cut", [-1, -3, -5, -1000])
def test_warc_that_is_cut(cut: int, read: Read) -> None:
    """A file that ends inside a record is refused; only the newlines after the last record may be missing."""
    data = http_warc(("http://a/1", PAGE, []), ("http://a/2", PAGE, []))

    if cut > -5:
        assert len(read(data[:cut], "a.warc").records) == 2
        return
    with pytest.raises(SourceFault, match=r"truncated WARC: it ends at byte .* inside a record"):
        read(data[:cut], "a.warc")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"WARC/1", b"WARX/1", "no record begins at byte 0"),
        (b"Content-Length: ", b"Content-Length: -", "has no length"),
        (b"Content-Length: ", b"Content-Lengths: ", "has no length"),
        (b"WARC-Target-URI", b"WARC-Target", "broken WARC: the record at byte 0"),
        (b"WARC-Type:", b"X: " + b"y" * 70_000 + b"\r\nWARC-Type:", ""),
        (b"WARC-Type:", b"X: y\r\n" * 50_000 + b"WARC-Type:", "headers of more than 262,144 bytes"),
    ],
)
def test_broken_warc(old: bytes, new: bytes, said: str, read: Read) -> None:
    """Damage in record headers refuses the file, and headers without end are not held."""
    data = http_warc(("http://a/1", PAGE, [])).replace(old, new, 1)

    if not said:
        assert read(data, "a.warc").records == [("http://a/1", PAGE)]
        return
    with pytest.raises(SourceFault, match=said):
        read(data, "a.warc")


def npy(array: Any, *, pickled: bool = False, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return a .npy file."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asanyarray(array), version=version, allow_pickle=pickled)
    return out.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy(version: tuple[int, int], read: Read) -> None:
    """A row of bytes is read in place, whatever version wrote the header and however long it is."""
    array = np.arange(BLOCK_BYTES + 300, dtype=np.uint8)
    data = npy(array, version=version)

    found = read(data, "a.npy")

    assert found.kind == "npy"
    assert found.records == [("", array.tobytes())]
    assert found.places == [len(data) - len(array)]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 4), np.uint8), "'|u1' with 2 dimensions; save the bytes as 1-D uint8"),
        (np.zeros((), np.uint8), "'|u1' with 0 dimensions"),
        (np.zeros(4, np.int8), "'|i1' with 1 dimensions"),
        (np.zeros(4, np.float32), "'<f4' with 1 dimensions"),
        (np.zeros(4, [("a", np.uint8)]), "'several fields'"),
    ],
)
def test_other_arrays(array: Any, said: str, read: Read) -> None:
    """Arrays of other types and shapes are refused, with the remedy."""
    with pytest.raises(SourceFault, match=re.escape(said)):
        read(npy(array), "a.npy")


class Trap:
    """What a pickle could do."""

    sprung = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return Trap.spring, ()

    @staticmethod
    def spring() -> None:
        """Run when the pickle is opened."""
        Trap.sprung = True


def test_pickles_are_never_opened(read: Read) -> None:
    """An array of objects is a pickle, which runs what it likes: it is refused unopened, whatever its header says."""
    data = npy(np.array([Trap()], dtype=object), pickled=True)

    with pytest.raises(SourceFault, match="a pickle, which is never opened"):
        read(data, "a.npy")
    with pytest.raises(SourceFault):
        read(data.replace(b"'|O'", b"'|u1'"[:4]), "a.npy")
    assert not Trap.sprung


def test_npy_of_another_length(read: Read) -> None:
    """Fewer and more bytes than the header says are refused, as are headers that are none."""
    data = npy(np.arange(100, dtype=np.uint8))
    bad = {
        data[:-1]: "truncated .npy file: 99 of 100 bytes",
        data + b"x": "a .npy file with bytes after the 100 of its array",
        b"text": "not a .npy file",
        data[:6]: "not a .npy file",
        data[:30]: "a broken .npy header",
        data[:8] + b"\xff\xff" + data[10:]: "header of version 1 and 65,535 bytes",
    }

    for one, said in bad.items():
        with pytest.raises(SourceFault, match=re.escape(said)):
            read(one, "a.npy")
