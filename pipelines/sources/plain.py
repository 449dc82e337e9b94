"""Plain files: the bytes as they lie.

stream -> blocks of one record without a name
"""

from collections.abc import Iterator
from typing import BinaryIO

from bytropix.pipelines.sources.records import BadRecord, Block, ReadOptions, blocks_of, pieces_of


def read_plain(stream: BinaryIO, options: ReadOptions) -> Iterator[Block | BadRecord]:
    """Give the file itself."""
    place = 0
    for block in blocks_of("", pieces_of(stream)):
        block.place = place
        place += len(block.data)
        yield block
