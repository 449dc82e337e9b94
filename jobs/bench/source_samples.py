"""Small good files of every kind of source, for those who damage them.

one text -> packed in every way that a reader knows -> {name: bytes}
"""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray

TEXTS = {"a.txt": b"One.\n" * 40, "deep/b.txt": "Zwei\u2026 \u2603\n".encode() * 30, "c.bin": bytes(range(256)) * 3}

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


def good_files() -> dict[str, bytes]:
    """Return a good file of every kind, by a name that says which; the text field is `text`."""
    tar = _tar_of(TEXTS)
    return {
        "a.txt": b"plain\n" * 100,
        "a.txt.gz": gzip.compress(ROWS, mtime=0) + gzip.compress(b"second member\n", mtime=0),
        "a.txt.bz2": bz2.compress(ROWS) + bz2.compress(b"second stream\n"),
        "a.txt.xz": lzma.compress(ROWS) + lzma.compress(b"second stream\n"),
        "a.txt.zst": zstandard.compress(ROWS) + zstandard.compress(b"second frame\n"),
        "a.tar": tar,
        "gnu.tar": _tar_of({"d/" * 80 + "long.txt": b"long", **TEXTS}, tarfile.GNU_FORMAT),
        "pax.tar": _tar_of({"d/" * 80 + "\u2603.txt": b"long", **TEXTS}, tarfile.PAX_FORMAT),
        "a.tgz": gzip.compress(tar, mtime=0),
        "a.zip": _zip_of(TEXTS),
        "stored.zip": _zip_of(TEXTS, zipfile.ZIP_STORED),
        "bz2.zip": _zip_of(TEXTS, zipfile.ZIP_BZIP2),
        "a.jsonl": ROWS,
        "a.csv": CSV,
        "a.tsv": CSV.replace(b",", b"\t"),
        "a.parquet": _parquet_of(text=["one", "two \u2603", None, "", "five"], id=list(range(5))),
        "a.npy": _npy_of(np.arange(500, dtype=np.uint8)),
        "a.xml": DUMP.encode(),
        "a.warc": _warc_of({"http://a.example/": b"<p>one</p>", "http://b.example/": b"two"}),
        "chunked.warc": _warc_of({"http://c.example/": b"5\r\nhello\r\n0\r\n\r\n"}, "Transfer-Encoding: chunked"),
        "encoded.warc": _warc_of({"http://d/": gzip.compress(b"hello" * 99, mtime=0)}, "Content-Encoding: gzip"),
    }


def _tar_of(texts: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


def _zip_of(texts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return out.getvalue()


def _npy_of(array: NDArray[Any]) -> bytes:
    """Return a .npy file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def _parquet_of(**columns: list[object]) -> bytes:
    """Return a Parquet file with row groups of two rows."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=2)
    return out.getvalue()


def _warc_of(payloads: dict[str, bytes], *headers: str) -> bytes:
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
