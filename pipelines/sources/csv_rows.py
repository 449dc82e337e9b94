"""CSV with a header: one column of each row is a record.

    stream -> lines -> rows, which end where the quotes so far are even -> csv.reader -> the column | a bad record

A field may hold newlines, so a lone quote makes one row of many lines. When such a row proves wrong, its first line
alone is refused and reading goes on with the second.
"""

import csv
from collections.abc import Callable, Iterator
from typing import BinaryIO

from bytropix.pipelines.sources.json_lines import first_bytes
from bytropix.pipelines.sources.records import LONGEST_ROW, BadRecord, Block, ReadOptions, SourceFault, text_blocks


def csv_reader(delimiter: str) -> Callable[[BinaryIO, ReadOptions], Iterator[Block | BadRecord]]:
    """Return a reader of rows whose fields are parted by `delimiter`."""

    def read_csv(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
        """Give the column `text_field` of each row; the record is the row's number, the header not counted.

        Raises:
            SourceFault: The file is UTF-16, or has no header with that column.
        """
        rows = _Rows(stream)
        width, column = _header(rows, delimiter, options.text_field)
        number = 0
        while lines := rows.take():
            number += 1
            if rows.size > LONGEST_ROW:
                yield BadRecord(
                    str(number), f"a row of {rows.size:,} bytes; at most {LONGEST_ROW:,} are read", rows.size
                )
                continue
            fields = _fields(b"".join(lines), delimiter)
            if isinstance(fields, list) and not fields:
                number -= 1  # a blank line
            elif isinstance(fields, list) and len(fields) == width:
                yield from text_blocks(str(number), fields[column].encode())
            else:
                reason = fields if isinstance(fields, str) else f"{len(fields)} fields; the header has {width}"
                yield BadRecord(str(number), reason, len(lines[0]))
                rows.give_back(lines[1:])

    return read_csv


class _Rows:
    """Rows of a stream, each as its lines."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        first = first_bytes(stream.readline(LONGEST_ROW))
        self._back = [first] if first else []  # lines that are taken before those of the stream, the next one last
        self.size = 0
        """Bytes of the row that was taken last. Of one that is too long to hold, only some line is given."""

    def take(self) -> list[bytes]:
        """Return the lines of the next row, none at the end."""
        lines: list[bytes] = []
        self.size = quotes = 0
        while line := self._back.pop() if self._back else self._stream.readline(LONGEST_ROW):
            self.size += len(line)
            quotes += line.count(b'"')
            if self.size > LONGEST_ROW:
                lines.clear()
            lines.append(line)
            if quotes % 2 == 0 and line.endswith(b"\n"):
                break
        return lines

    def give_back(self, lines: list[bytes]) -> None:
        """Let lines be taken again."""
        self._back.extend(reversed(lines))


def _header(rows: _Rows, delimiter: str, column: str) -> tuple[int, int]:
    """Return how many fields the header has and which of them is `column`."""
    fields: list[str] | str = []
    while not fields and (lines := rows.take()):
        fields = _fields(b"".join(lines), delimiter) if rows.size <= LONGEST_ROW else "a header that is too long"
    if isinstance(fields, str):
        raise SourceFault(f"no header: {fields}")
    if column not in fields:
        there = ", ".join(field[:40] for field in fields[:20]) or "none"
        raise SourceFault(f"no column {column!r}; columns there are: {there}")
    return len(fields), fields.index(column)


def _fields(row: bytes, delimiter: str) -> list[str] | str:
    """Return the fields of a row, none of a blank one, or what is wrong with it."""
    csv.field_size_limit(LONGEST_ROW)  # the module's own, 128 KiB, is less than a page of text
    try:
        return next(csv.reader([row.decode()], delimiter=delimiter, strict=True))
    except UnicodeDecodeError:
        return "not UTF-8"
    except csv.Error as error:
        return f"not CSV: {error}"
