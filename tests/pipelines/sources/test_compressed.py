"""Compressed files: streams end to end, damage, bombs."""

import bz2
import gzip
import io
import lzma
import random
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bytropix.pipelines.sources import ReadOptions, SourceFault, read_records
from bytropix.pipelines.sources.records import BLOCK_BYTES

Read = Callable[..., Any]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}
TITLES = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}
EVERY = pytest.mark.parametrize("suffix", PACK)
NOISE = random.Random(1).randbytes(300_000)


@EVERY
def test_large_and_concatenated(suffix: str, read: Read) -> None:
    """Streams that follow one another are one text, of any size, in blocks that fit in memory."""
    texts = [bytes(range(256)) * 20_000, b"", b"second", NOISE]

    packed = b"".join(map(PACK[suffix], texts))
    found = read(packed, f"a.txt.{suffix.upper()}", ReadOptions(max_expansion=1e5), seekable=False)

    assert found.kind == suffix
    assert found.records == [("", b"".join(texts))]
    assert found.places == [-1]


@EVERY
@pytest.mark.parametrize("cut", [1, 5, 9, 0.5, -1])
def test_truncated(suffix: str, cut: float, read: Read) -> None:
    """A stream that ends early refuses the file, wherever it ends, also when a whole stream came before."""
    packed = PACK[suffix](NOISE)
    place = int(cut * len(packed)) if cut == 0.5 else int(cut)

    for before in (b"", PACK[suffix](b"first")):
        with pytest.raises(SourceFault, match=f"truncated {TITLES[suffix]} stream"):
            read(before + packed[:place], f"a.{suffix}")


@EVERY
def test_damage_and_foreign_bytes(suffix: str, read: Read) -> None:
    """A flipped bit, bytes after the end, and a file of something else are named for what they are."""
    packed = bytearray(
        zstandard.ZstdCompressor(write_checksum=True).compress(NOISE) if suffix == "zst" else PACK[suffix](NOISE)
    )
    with pytest.raises(SourceFault, match=f"bytes after the end of the {TITLES[suffix]} stream"):
        read(bytes(packed) + b"and more", f"a.{suffix}")
    with pytest.raises(SourceFault, match=f"no {TITLES[suffix]} data in it"):
        read(b"just a text", f"a.{suffix}")
    packed[len(packed) // 2] ^= 1
    with pytest.raises(SourceFault, match=f"broken {TITLES[suffix]} stream"):
        read(bytes(packed), f"a.{suffix}")


def test_padding(read: Read) -> None:
    """Zeros after a gzip stream, as tapes have them, are no data."""
    assert read(gzip.compress(b"text") + bytes(5000), "a.gz").records == [("", b"text")]


def test_frames_that_hold_no_data(read: Read) -> None:
    """Skippable zstd frames, as seekable archives have them, are passed over."""
    skippable = b"\x5e\x2a\x4d\x18" + (6).to_bytes(4, "little") + b"hidden"

    assert read(skippable + zstandard.compress(b"text") + skippable, "a.zst").records == [("", b"text")]


@EVERY
def test_bomb(suffix: str, read: Read) -> None:
    """What expands more than it may is refused, by name of the flag, long before it is whole; the flag lets it pass."""
    bomb = PACK[suffix](bytes(10_000_000)) * 8
    _, blocks = read_records(io.BytesIO(bomb), f"a.{suffix}", ReadOptions(max_expansion=1e6))
    assert sum(len(block.data) for block in blocks) == 80_000_000  # type: ignore[union-attr]

    tracemalloc.start()
    with pytest.raises(SourceFault, match=r"a byte of it becomes [\d,]+, more than --max-expansion 200"):
        read(bomb, f"a.{suffix}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 40_000_000


def test_small_files_may_expand(read: Read) -> None:
    """Below a MiB of output no expansion is too much."""
    assert len(read(gzip.compress(bytes(900_000)), "a.gz").records[0][1]) == 900_000


def test_bomb_behind_real_data(read: Read) -> None:
    """A bomb that follows real data is refused too, though the bytes before it count in its favour."""
    data = gzip.compress(NOISE[:30_000]) + gzip.compress(bytes(20_000_000))

    with pytest.raises(SourceFault, match="--max-expansion"):
        read(data, "a.gz")


def test_too_much_memory(read: Read) -> None:
    """A stream whose decoder would need gigabytes is refused before it gets them."""
    small = bytearray(lzma.compress(b"text" * 100))
    header = small[12 : 12 + 4 * (small[12] + 1)]
    header[header.index(b"\x21\x01") + 2] = 40  # a dictionary of 4 GiB
    header[-4:] = zlib.crc32(bytes(header[:-4])).to_bytes(4, "little")
    small[12 : 12 + len(header)] = header
    with pytest.raises(SourceFault, match=r"broken xz stream: Memory usage limit exceeded"):
        read(bytes(small), "a.xz")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jsonl.zst", "jsonl.zst"), ("a.csv.gz", "csv.gz"), ("a.xml.bz2", "mediawiki.bz2"), ("a.warc.gz", "warc.gz")],
)
def test_inside_is_read_by_the_rest_of_the_name(name: str, kind: str, read: Read, samples: dict[str, bytes]) -> None:
    """A compressed file of rows, pages or crawls gives the records of that kind, and no places."""
    inner, _, suffix = name.rpartition(".")
    options = ReadOptions(text_field="text")
    found = read(PACK[suffix](samples[inner]), name, options, seekable=False)

    assert found.kind == kind
    assert found.records == read(samples[inner], inner, options).records
    assert set(found.places) == {-1}


@pytest.mark.parametrize("name", ["a.tgz", "a.tar.gz", "a.tar.xz", "a.txz", "a.tbz2", "a.tar.zst", "a.parquet.gz"])
def test_compressed_archives(name: str, read: Read, samples: dict[str, bytes]) -> None:
    """The short suffixes of compressed tars are known; what has to be sought in is copied first."""
    inner = "a.parquet" if "parquet" in name else "a.tar"
    pack = next(pack for suffix, pack in PACK.items() if suffix[0] == name.rpartition(".")[2].lstrip("t")[0])

    assert read(pack(samples[inner]), name).records == read(samples[inner], inner).records


def test_compressed_twice(read: Read) -> None:
    """A second compression would square the bound on expansion."""
    with pytest.raises(SourceFault, match="compressed twice; take the outer compression off"):
        read(gzip.compress(bz2.compress(b"text")), "a.bz2.gz")


def test_real_files(shared_data: Path, read: Read) -> None:
    """Block gzip from genomics, and files cut in half, as they are found in the wild."""
    dna = shared_data / "dna" / "biopython"
    truncated = shared_data / "hostile" / "truncated"

    found = read((dna / "NC_000932.gb.bgz").read_bytes(), "NC_000932.gb.bgz")
    assert found.records == [("", (dna / "NC_000932.gb").read_bytes())]
    for name, title in (("mrna_half.fasta.gz", "gzip"), ("enwiki_200k.xml.bz2", "bzip2")):
        with pytest.raises(SourceFault, match=f"truncated {title} stream"):
            read((truncated / name).read_bytes(), name)
    empty = shared_data / "hostile" / "zero_length" / "empty.txt.gz"
    assert read(empty.read_bytes(), empty.name).records == []


def test_blocks_are_bounded(read: Read) -> None:
    """No block is larger than promised, and all but the last of a large file are as large as that."""
    _, blocks = read_records(io.BytesIO(gzip.compress(NOISE * 40, 1)), "a.gz", ReadOptions())

    sizes = [len(block.data) for block in blocks]  # type: ignore[union-attr]
    assert sizes[:-1] == [BLOCK_BYTES] * (len(NOISE) * 40 // BLOCK_BYTES)
