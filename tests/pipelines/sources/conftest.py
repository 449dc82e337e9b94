"""Small files of every kind, and how tests read them."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bytropix.pipelines.sources import BadRecord, ReadOptions, read_records
from bytropix.pipelines.sources.records import BLOCK_BYTES

DEFAULT = ReadOptions()
TEXTS = {"a.txt": b"One.\n" * 40, "deep/b.txt": "Zwei\u2026 \u2603\n".encode() * 30, "c.bin": bytes(range(256)) * 3}


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


def tar_of(texts: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


def zip_of(texts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return out.getvalue()


def npy_of(array: np.ndarray, *, pickled: bool = False) -> bytes:
    """Return a .npy file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=pickled)
    return out.getvalue()


def parquet_of(**columns: list[object]) -> bytes:
    """Return a Parquet file with row groups of two rows."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=2)
    return out.getvalue()


def warc_of(payloads: dict[str, bytes], *headers: str) -> bytes:
    """Return a WARC file of a header record and responses."""
    out = [_warc_record("warcinfo", "", b"software: test\r\n")]
    for uri, payload in payloads.items():
        http = "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: text/plain", *headers, "", ""]).encode()
        out.append(_warc_record("response", uri, http + payload))
    return b"".join(out)


def _warc_record(kind: str, uri: str, block: bytes) -> bytes:
    """Return one record of a WARC file."""
    target = f"WARC-Target-URI: {uri}\r\n" if uri else ""
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\n{target}Content-Length: {len(block)}\r\n\r\n"
    return head.encode() + block + b"\r\n\r\n"


DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="en">
  <siteinfo><sitename>Test</sitename></siteinfo>
  <page><title>First &amp; last</title><id>1</id>
    <revision><text xml:space="preserve">old</text></revision>
    <revision><text xml:space="preserve">''A'' &lt;ref&gt; \u2603
second line</text></revision>
  </page>
  <page><title>Gone</title><revision><text deleted="deleted" /></revision></page>
  <page><title>Third</title><revision><text>three</text></revision></page>
</mediawiki>
"""
ROWS = "".join(json.dumps({"text": f"row {i} \u2603\n", "id": i}) + "\n" for i in range(20)).encode()
CSV = b'id,text\r\n1,"a ""quoted"" field,\nof two lines"\r\n2,plain\r\n\r\n3,"\xe2\x98\x83"\r\n'


@pytest.fixture(scope="session")
def samples() -> dict[str, bytes]:
    """Return a good file of every kind, by a name that says which; the text field is `text`."""
    tar = tar_of(TEXTS)
    return {
        "a.txt": b"plain\n" * 100,
        "a.txt.gz": gzip.compress(ROWS, mtime=0) + gzip.compress(b"second member\n", mtime=0),
        "a.txt.bz2": bz2.compress(ROWS) + bz2.compress(b"second stream\n"),
        "a.txt.xz": lzma.compress(ROWS) + lzma.compress(b"second stream\n"),
        "a.txt.zst": zstandard.compress(ROWS) + zstandard.compress(b"second frame\n"),
        "a.tar": tar,
        "gnu.tar": tar_of({"d/" * 80 + "long.txt": b"long", **TEXTS}, tarfile.GNU_FORMAT),
        "pax.tar": tar_of({"d/" * 80 + "\u2603.txt": b"long", **TEXTS}, tarfile.PAX_FORMAT),
        "a.tgz": gzip.compress(tar, mtime=0),
        "a.zip": zip_of(TEXTS),
        "stored.zip": zip_of(TEXTS, zipfile.ZIP_STORED),
        "bz2.zip": zip_of(TEXTS, zipfile.ZIP_BZIP2),
        "a.jsonl": ROWS,
        "a.csv": CSV,
        "a.tsv": CSV.replace(b",", b"\t"),
        "a.parquet": parquet_of(text=["one", "two \u2603", None, "", "five"], id=list(range(5))),
        "a.npy": npy_of(np.arange(500, dtype=np.uint8)),
        "a.xml": DUMP.encode(),
        "a.warc": warc_of({"http://a.example/": b"<p>one</p>", "http://b.example/": b"two"}),
        "chunked.warc": warc_of({"http://c.example/": b"5\r\nhello\r\n0\r\n\r\n"}, "Transfer-Encoding: chunked"),
        "encoded.warc": warc_of({"http://d.example/": gzip.compress(b"hello" * 99, mtime=0)}, "Content-Encoding: gzip"),
    }


@pytest.fixture(scope="session")
def read() -> Callable[..., Found]:
    """Return the function that reads a file to its end."""
    return read_all
