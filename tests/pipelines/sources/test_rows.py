"""JSON Lines, CSV and Parquet: a row a document."""

import csv
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bytropix.pipelines.sources import ReadOptions, SourceFault
from bytropix.pipelines.sources.records import LONGEST_ROW

Read = Callable[..., Any]
TEXT = ReadOptions(text_field="text")


class Stream(io.RawIOBase):
    """A stream of pieces that are made as they are read, so that a test holds none of them."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        """Return some of what comes next."""
        piece = self._left or next(self._pieces, b"")
        self._left = piece[size:]
        return piece[:size]


def huge(before: bytes, piece: bytes, times: int, after: bytes) -> Stream:
    """Return a stream of `piece` many times, between two ends."""
    return Stream(part for parts in ([before], (piece for _ in range(times)), [after]) for part in parts)


def test_json_lines(read: Read) -> None:
    """The text of each line is a record, named by the line's number; blank lines count and are nothing."""
    lines = ['{"text": "one\\n\u2603", "id": 1}', "", '  {"id": 2, "text": "two"}\r', '{"text": "no newline"}']

    found = read("\n".join(lines).encode(), "a.jsonl", TEXT)

    assert found.kind == "jsonl"
    assert found.records == [("1", "one\n\u2603".encode()), ("3", b"two"), ("4", b"no newline")]
    assert found.bad == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "half', "not JSON: Invalid control character at, column 15"),
        (b"[1, 2]", "a JSON list, not an object"),
        (b'{"txt": "x"}', "no field 'text'"),
        (b'{"text": null}', "field 'text' is no string"),
        (b'{"text": ""}', "empty"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"text": "\\ud800"}', "field 'text' holds half of a surrogate pair, which UTF-8 cannot hold"),
        (b"[" * 200_000, "JSON that cannot be read: maximum recursion depth"),
        (b'{"n": ' + b"9" * 5000 + b"}", "JSON that cannot be read: Exceeds the limit"),
        (b"\0\0\0", "not JSON: Expecting value, column 1"),
    ],
)
def test_bad_lines_among_good_ones(line: bytes, said: str, read: Read) -> None:
    """A line that is wrong in any way is refused alone, with the reason."""
    found = read(b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n', "a.jsonl", TEXT)

    assert found.records == [("1", b"a"), ("3", b"b")]
    ((number, reason),) = found.bad
    assert number == "2"
    assert reason.startswith(said)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.jsonl", b'{"text": "', b'"}\n{"text": "b"}\n'),
        ("a.csv", b'text,id\n"', b'",7\nb,8\n'),
        ("a.csv", b"text,id\n", b",7\nb,8\n"),
    ],
)
def test_row_of_100_mb(name: str, before: bytes, after: bytes, read: Read) -> None:
    """A huge row is never held: it is refused with its size, and the rows after it are read."""
    first = b'{"text": "a"}\n' if name == "a.jsonl" else b""
    stream = huge(first + before, b"xy" * (1 << 18), 200, after)
    tracemalloc.start()
    found = read(stream, name, TEXT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [text for _, text in found.records] == ([b"a", b"b"] if first else [b"b"])
    ((_, reason),) = found.bad
    assert reason.endswith("16,777,216 are read")
    assert "of 104,857,6" in reason
    assert peak < 4 * LONGEST_ROW


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_utf16(name: str, read: Read, shared_data: Path) -> None:
    """UTF-16 is named, with what turns it into UTF-8; the mark of UTF-8 is no part of the first row."""
    data = (shared_data / "hostile" / "utf8" / "utf16le_with_bom.txt").read_bytes()
    for utf16 in (data, 'text\n"x"'.encode("utf-16-be").join([b"\xfe\xff", b""])):
        with pytest.raises(SourceFault, match=r"UTF-16 text; make it UTF-8 with `iconv"):
            read(utf16, name, TEXT)
    row = b'{"text": "x"}' if name == "a.jsonl" else b"text\nx"

    assert read(b"\xef\xbb\xbf" + row, name, TEXT).records == [("1", b"x")]


def test_without_a_text_field_rows_are_bytes(read: Read) -> None:
    """JSON Lines and CSV are plain files unless a field is named."""
    for name in ("a.jsonl", "a.csv", "a.jsonl.txt"):
        found = read(b'{"text": 1}\n', name)

        assert (found.kind, found.records, found.places) == ("plain", [("", b'{"text": 1}\n')], [0])


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
def test_csv_as_python_writes_it(name: str, delimiter: str, read: Read) -> None:
    """Any text survives: quotes, newlines of each kind, delimiters, beside other columns."""
    texts = ["plain", 'say "hi"', "two\nlines", "\r\n\r\n", "a,b\tc", '"', '"",""', "\u2603", "x" * 200_000, " "]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["id", "text", "note\n"])
    writer.writerows([number, text, text[:9]] for number, text in enumerate(texts))

    found = read(out.getvalue().encode(), name, TEXT)

    assert found.kind == name[2:]
    assert found.records == [(str(number), text.encode()) for number, text in enumerate(texts, 1)]
    assert found.bad == []


def test_bad_rows_among_good_ones(read: Read) -> None:
    """A row with a field too few or too many, a lone quote, or bytes that are no UTF-8 costs that row and no other."""
    rows = [b"1,a", b"2", b"3,c,c", b"4,\xff", b'5,"d', b"6,e", b'7,d" x', b"8,", b"", b'9,"i"']

    found = read(b"id,text\n" + b"\n".join(rows), "a.csv", TEXT)

    assert [text for _, text in found.records] == [b"a", b"e", b"i"]
    assert [reason.partition(":")[0] for _, reason in found.bad] == [
        "1 fields; the header has 2",
        "3 fields; the header has 2",
        "not UTF-8",
        "not CSV",
        "not CSV",
        "empty",
    ]


def test_csv_without_the_column(read: Read) -> None:
    """The columns that are there are listed; a file without a header is refused."""
    with pytest.raises(SourceFault, match=r"no column 'text'; columns there are: id, body"):
        read(b"id,body\n1,x\n", "a.csv", TEXT)
    with pytest.raises(SourceFault, match=r"no column 'text'; columns there are: none"):
        read(b"\n\n", "a.csv", TEXT)
    with pytest.raises(SourceFault, match=r"no header: not UTF-8"):
        read(b"\xff,text\n", "a.csv", TEXT)


def test_real_csv(read: Read, shared_data: Path) -> None:
    """A large table as found in the wild gives the rows that Python's reader gives."""
    data = (shared_data / "text" / "structured" / "marvel_wikia.csv").read_bytes()
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))

    found = read(data, "marvel_wikia.csv", ReadOptions(text_field="name"))

    assert [text for _, text in found.records] == [row["name"].encode() for row in rows]


def test_real_json(read: Read, shared_data: Path) -> None:
    """Every file of a JSON conformance suite, as one line among others, leaves the others as they are."""
    files = sorted((shared_data / "hostile" / "json").glob("*.json"))
    lines = [file.read_bytes().replace(b"\n", b" ") for file in files if b"UTF-16" not in file.name.encode()]
    good = json.dumps({"text": "good"}).encode()

    found = read(b"\n".join(part for line in lines for part in (good, line)) + b"\n" + good, "a.jsonl", TEXT)

    assert [text for _, text in found.records] == [b"good"] * (len(lines) + 1)


def parquet(table: pa.Table, **settings: Any) -> bytes:
    """Return a Parquet file."""
    out = io.BytesIO()
    pq.write_table(table, out, **settings)
    return out.getvalue()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()])
@pytest.mark.parametrize("seekable", [True, False])
def test_parquet(kind: pa.DataType, seekable: bool, read: Read) -> None:
    """Text and bytes of the column come in order over row groups; nulls and empty values are refused one by one."""
    values = ["one", None, "two \u2603", "", *("x" * n for n in range(1, 400))]
    table = pa.table({"id": range(len(values)), "body": pa.array(values, pa.string()).cast(kind)})

    found = read(parquet(table, row_group_size=100), "a.parquet", ReadOptions(column="body"), seekable=seekable)

    assert found.records == [(str(n), value.encode()) for n, value in enumerate(values, 1) if value]
    assert found.bad == [("2", "null"), ("4", "empty")]


def test_parquet_of_categories(read: Read) -> None:
    """A column whose values are kept once is read like any other."""
    table = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})

    assert [text for _, text in read(parquet(table), "a.parquet").records] == [b"a", b"b", b"a"]


def test_parquet_without_the_column(read: Read) -> None:
    """The columns that are there are listed, and a column of numbers is refused."""
    data = parquet(pa.table({"id": [1], "body": ["x"]}))

    with pytest.raises(SourceFault, match=r"no column 'text', or several; columns there are: id, body; name one with"):
        read(data, "a.parquet")
    with pytest.raises(SourceFault, match=r"column 'id' holds int64, neither text nor bytes"):
        read(data, "a.parquet", ReadOptions(column="id"))


def test_parquet_that_is_none_or_expands(read: Read) -> None:
    """Other bytes, a file cut short and one whose text is much larger than itself are refused."""
    data = parquet(pa.table({"text": ["x" * 100_000] * 1000}))

    with pytest.raises(SourceFault, match="--max-expansion 200"):
        read(data, "a.parquet")
    assert len(read(data, "a.parquet", ReadOptions(max_expansion=1e6)).records) == 1000
    for bad in (data[: len(data) // 2], b"PAR1" + bytes(100) + b"PAR1", np.arange(99).tobytes()):
        with pytest.raises(SourceFault, match="not a Parquet file, or a damaged one"):
            read(bad, "a.parquet")
