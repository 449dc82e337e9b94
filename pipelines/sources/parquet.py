"""Parquet files: the text or the bytes in one column of each row are a record.

row group -> batches of about 4 MiB of the column -> rows
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from bytropix.pipelines.sources.records import (
    BLOCK_BYTES,
    BadRecord,
    Block,
    ReadOptions,
    SourceFault,
    check_expansion,
    text_blocks,
)

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

BUFFER_BYTES = 1 << 20  # of the file that pyarrow holds for a column, instead of all of a row group
MOST_ROWS = 1 << 14


def read_parquet(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the column `options.column` of each row; the record is the row's number, from 1.

    Args:
        stream: Seekable.
        options: Name the column, and how many times its bytes may be those of the file.

    Raises:
        SourceFault: It is no Parquet file, or damaged; the column is not there, or is neither text nor bytes.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SourceFault("reading Parquet needs pyarrow; pip install pyarrow") from error
    size = stream.seek(0, 2)
    stream.seek(0)
    try:
        file = ParquetFile(stream, buffer_size=BUFFER_BYTES)
        _check_column(file, options.column)
        number = given = 0
        for value in _values(file, options.column):
            number += 1
            if value is None:
                yield BadRecord(str(number), "null")
                continue
            given += len(value)
            check_expansion(given, size, options.max_expansion)
            yield from text_blocks(str(number), value)
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise SourceFault(f"not a Parquet file, or a damaged one: {error}") from error


def _check_column(file: "ParquetFile", column: str) -> None:
    """Refuse a file without a column of text or bytes of that name."""
    import pyarrow.types as kinds

    schema = file.schema_arrow
    if schema.names.count(column) != 1:
        there = ", ".join(schema.names[:20]) or "none"
        raise SourceFault(f"no column {column!r}, or several; columns there are: {there}; name one with --column")
    kind = schema.field(column).type
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    tests = (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_binary, kinds.is_large_binary)
    if not any(test(kind) for test in (*tests, kinds.is_binary_view, kinds.is_fixed_size_binary)):
        raise SourceFault(f"column {column!r} holds {kind}, neither text nor bytes; name another with --column")


def _values(file: "ParquetFile", column: str) -> Iterator[bytes | None]:
    """Give the column's values, row group by row group, in batches that fit in memory."""
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        held = file.metadata.row_group(group).total_byte_size
        batch_rows = max(1, min(MOST_ROWS, BLOCK_BYTES * max(rows, 1) // max(held, 1)))
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=[column], use_threads=False):
            for value in batch.column(0).to_pylist():
                yield value.encode() if isinstance(value, str) else value
