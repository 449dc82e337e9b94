"""JSON Lines: the text field of each line is a record.

stream -> lines -> JSON object -> text_field, in UTF-8 | a bad record with the line's number
"""

import json
from collections.abc import Iterator
from typing import BinaryIO

from bytropix.pipelines.sources.records import LONGEST_ROW, BadRecord, Block, ReadOptions, SourceFault, text_blocks

UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_json_lines(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the text of each line; blank lines are passed over.

    Raises:
        SourceFault: The file is UTF-16.
    """
    number = 0
    line = first_bytes(stream.readline(LONGEST_ROW))
    while line:
        number += 1
        if len(line) == LONGEST_ROW and not line.endswith(b"\n"):
            size = len(line)
            while line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_ROW)
                size += len(line)
            yield BadRecord(str(number), f"a line of {size:,} bytes; at most {LONGEST_ROW:,} are read", size)
        elif not line.isspace():
            text = _text(line, options.text_field)
            if isinstance(text, bytes):
                yield from text_blocks(str(number), text)
            else:
                yield BadRecord(str(number), text, len(line))
        line = stream.readline(LONGEST_ROW)


def first_bytes(line: bytes) -> bytes:
    """Return the first line of a text file without the mark of UTF-8.

    Raises:
        SourceFault: It bears the mark of UTF-16.
    """
    if line.startswith(UTF16_MARKS):
        raise SourceFault("UTF-16 text; make it UTF-8 with `iconv -f UTF-16 -t UTF-8`")
    return line.removeprefix(UTF8_MARK)


def _text(line: bytes, field: str) -> bytes | str:
    """Return the text of a line in UTF-8, or what is wrong with it."""
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        return "not UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg}, column {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"JSON that cannot be read: {str(error)[:80]}"
    if not isinstance(row, dict):
        return f"a JSON {type(row).__name__}, not an object"
    if field not in row:
        return f"no field {field!r}"
    text = row[field]
    if not isinstance(text, str):
        return f"field {field!r} is no string"
    try:
        return text.encode()
    except UnicodeEncodeError:
        return f"field {field!r} holds half of a surrogate pair, which UTF-8 cannot hold"
