"""Damaged source files by the thousand: a reader refuses the file or the record, or gives bytes, whatever they are.

good files of every kind -> one to four edits, by seed -> read_records -> what came out that should not have
"""

import io
import random

from bytropix.jobs.bench.source_samples import good_files
from bytropix.pipelines.sources import Block, ReadOptions, SourceFault, read_records
from bytropix.pipelines.sources.records import BLOCK_BYTES, FREE_BYTES

OPTIONS = ReadOptions(text_field="text")
WIDE = (b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"99999999999", b'"', b"<", b"<!DOCTYPE x>", b"../", b"\r\n")


def damage(data: bytes, seed: int) -> bytes:
    """Return `data` with one to four edits; places near the ends, where headers are, are the likelier."""
    chance = random.Random(seed)
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = min(int(len(out) * chance.random() ** chance.choice((1, 3))), max(0, len(out) - 1))
        if chance.random() < 0.3:
            place = max(0, len(out) - 1 - place)
        match chance.randrange(7):
            case 0:
                out[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                out[place : place + 1] = bytes([out[place] ^ (1 << chance.randrange(8))]) if out else b"!"
            case 2:
                del out[place : place + chance.choice((1, 2, 16, 512))]
            case 3:
                out[place:place] = chance.choice(WIDE)
            case 4:
                wide = chance.choice(WIDE)
                out[place : place + len(wide)] = wide
            case 5:
                out[place:place] = out[place // 2 : place // 2 + chance.choice((4, 64, 512))]
            case 6:
                del out[place + 1 :]
    return bytes(out)


def fuzz_sources(cases: int, seed: int) -> list[str]:
    """Read `cases` damaged files, the kinds in turn; return one line for each that came to harm."""
    files = list(good_files().items())
    harm = []
    for case in range(cases):
        name, good = files[case % len(files)]
        said = harm_done(damage(good, seed + case), name, seekable=case // len(files) % 2 == 0)
        if said:
            harm.append(f"{name}, seed {seed + case}: {said}")
    return harm


def harm_done(data: bytes, name: str, *, seekable: bool = True) -> str:
    """Read a file; return what no reader may do: other errors than ours, blocks that lie, too many bytes. Else ""."""
    given = 0
    try:
        _, blocks = read_records(io.BytesIO(data) if seekable else Unseekable(data), name, OPTIONS)
        for block in blocks:
            if not isinstance(block, Block):
                continue
            given += len(block.data)
            if not 0 < len(block.data) <= BLOCK_BYTES:
                return f"a block of {len(block.data)} bytes"
            if block.place >= 0 and data[block.place : block.place + len(block.data)] != block.data:
                return f"bytes that do not lie at {block.place}"
    except SourceFault as fault:
        return "" if str(fault) and "\n" not in str(fault) else f"a reason of no line: {str(fault)!r}"
    except Exception as error:  # whatever it is, it is what we look for
        return f"{type(error).__name__}: {error}"
    return "" if given <= FREE_BYTES + OPTIONS.max_expansion * len(data) else f"{given} bytes out of {len(data)}"


class Unseekable(io.BytesIO):
    """A stream that cannot seek and gives less than it is asked for, as sockets do."""

    def seekable(self) -> bool:
        """Return False."""
        return False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most 700 bytes."""
        return super().read(min(700, 700 if size is None or size < 0 else size))
