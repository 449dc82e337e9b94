"""Records become documents: where they are cut, what is left out, where they lie."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytropix.errors import ConfigError
from bytropix.pipelines.config import CleanConfig, IngestConfig
from bytropix.pipelines.cutter import Cutter
from bytropix.pipelines.documents import FileDocuments, digest_of, document_ends
from bytropix.pipelines.sources import BadRecord, Block


class Spooled:
    """A spool file in memory."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        """Keep bytes and return where they begin."""
        self.data += data
        return len(self.data) - len(data)


def blocks(record: str, data: bytes, size: int, place: int = -1) -> list[Block]:
    """Return a record in blocks of some size."""
    begins = range(0, len(data), size)
    return [
        Block(record, data[begin : begin + size], begin + size >= len(data), place + begin if place >= 0 else -1)
        for begin in begins
    ]


def cut(
    config: IngestConfig, items: list[Block | BadRecord], *, in_place: bool = True
) -> tuple[Cutter, FileDocuments, bytes]:
    """Return what becomes of some blocks, and what was spooled."""
    spooled = Spooled()
    cutter = Cutter(config, spooled.write, in_place=in_place)
    for item in items:
        cutter.take(item)
    return cutter, cutter.documents("f", "f", "spool/00000.bin"), spooled.data


def texts(documents: FileDocuments, source: bytes, spool: bytes) -> list[bytes]:
    """Return the documents, read from where they are said to lie."""
    return [
        source[begin : begin + length] if begin >= 0 else spool[~begin : ~begin + length]
        for begin, length in zip(documents.begins.tolist(), documents.lengths.tolist(), strict=True)
    ]


RECORDS = st.lists(
    st.tuples(st.text("abé", max_size=3), st.binary(min_size=1, max_size=9000), st.integers(1, 5000), st.booleans()),
    max_size=4,
)


@given(records=RECORDS, limit=st.sampled_from([0, 1024, 2000]))
def test_records_are_whole_or_cut_by_the_rule(records: list[tuple[str, bytes, int, bool]], limit: int) -> None:
    """A record of at most the limit is one document; a longer one is cut as a plain file is, however it came."""
    config = IngestConfig(max_document=limit, part_bytes=4096)
    most = limit or 4096 - 3
    source, items, wanted = b"", [], []
    for number, (name, data, size, lies_there) in enumerate(records):
        name = f"{number}{name}"
        items += blocks(name, data, size, len(source) if lies_there else -1)
        source += data
        ends = [len(data)] if len(data) <= most else document_ends(data, most)
        wanted += [
            (name, begin, data[begin:end], len(data) if len(ends) > 1 else 0)
            for begin, end in zip([0, *ends], ends, strict=False)
        ]
    _, documents, spool = cut(config, items)
    wholes = documents.wholes.tolist() or [0] * len(documents)
    found = zip(
        documents.record_names(),
        documents.record_offsets().tolist(),
        texts(documents, source, spool),
        wholes,
        strict=True,
    )

    assert wanted == list(found)
    assert [digest_of(text) for _, _, text, _ in wanted] == list(
        zip(documents.digests.tolist(), documents.seconds.tolist(), strict=True)
    )
    assert documents.n_bytes == len(source)
    assert max(documents.lengths, default=0) <= config.part_bytes


@pytest.mark.parametrize("base", [0, 128, -1])
@pytest.mark.parametrize("size", [1, 700, 10_000])
def test_a_file_without_records_is_cut_as_it_always_was(base: int, size: int) -> None:
    """Its documents follow `document_bytes`; offsets count from its first byte, wherever that lies."""
    data = b"".join(b"line %d\n" % number for number in range(1500))
    _, documents, spool = cut(IngestConfig(document_bytes=1024), list(blocks("", data, size, base)))
    ends = document_ends(data, 1024)

    assert documents.record_offsets().tolist() == [0, *ends[:-1]]
    assert documents.record_names() == [""] * len(ends)
    assert b"".join(texts(documents, bytes(max(base, 0)) + data, spool)) == data
    assert documents.pieces == 0
    assert spool == (data if base < 0 else b"")
    assert b'"record"' not in documents.meta()


def test_what_cannot_be_read_again_is_spooled() -> None:
    """A record of a remote file lies in the spool file even where it lies in the source as such."""
    _, documents, spool = cut(IngestConfig(), list(blocks("a", b"text", 4, 0)), in_place=False)

    assert (spool, documents.begins.tolist()) == (b"text", [~0])


def test_a_bad_record_takes_its_blocks_back() -> None:
    """Documents of a record that turns out to be bad are gone; those before and after it stay."""
    config = IngestConfig(max_document=1024)
    items = [
        *blocks("a", b"a" * 100, 50),
        *blocks("b", b"b\n" * 2000, 1500)[:2],
        BadRecord("b", "its checksum is wrong", 3000),
        BadRecord("c", "empty"),
        *blocks("d", b"d" * 100, 50),
    ]
    cutter, documents, spool = cut(config, items)

    assert documents.record_names() == ["a", "d"]
    assert texts(documents, b"", spool) == [b"a" * 100, b"d" * 100]
    assert cutter.bad == [("b", "its checksum is wrong", 3000), ("c", "empty", 0)]


def test_lengths_are_those_of_whole_records() -> None:
    """A record is judged before it is cut, dropped as a whole, and counted once."""
    config = IngestConfig(max_document=1024, clean=CleanConfig(min_length=10, max_length=5000))
    lengths = {"a": 9, "b": 10, "c": 5000, "d": 5001, "e": 100_000}
    items = [block for name, length in lengths.items() for block in blocks(name, b"x" * length, 1000)]
    cutter, documents, _ = cut(config, list(items))

    assert sorted(set(documents.record_names())) == ["b", "c"]
    assert cutter.dropped == {"too_short": 1, "too_long": 2}
    assert documents.n_bytes == 5010
    assert documents.wholes.tolist() == [0] + [5000] * documents.pieces


def test_a_long_file_without_records_is_one_thing() -> None:
    """Of a plain file, the file is what is too short or too long, not its documents."""
    config = IngestConfig(document_bytes=1024, clean=CleanConfig(min_length=600, max_length=10_000))
    for length, wanted in ((599, {"too_short": 1}), (5000, {}), (10_001, {"too_long": 1})):
        cutter, documents, _ = cut(config, list(blocks("", b"x" * length, 700, 0)))

        assert (documents.n_bytes, dict(cutter.dropped)) == (0 if wanted else length, wanted)


def test_utf8_is_judged_document_by_document() -> None:
    """With `drop`, documents that are not UTF-8 are left out and counted; cut pieces keep whole characters."""
    config = IngestConfig(max_document=1024, clean=CleanConfig(utf8="drop"))
    good, bad = "€".encode() * 1000, "naïve".encode("latin-1")
    mixed = b"a\n" * 512 + b"\xff\n" + b"b\n" * 511
    items = [*blocks("good", good, 100), *blocks("bad", bad, 100), *blocks("mixed", mixed, 100)]
    cutter, documents, spool = cut(config, items)
    pieces = [mixed[a:b] for a, b in zip([0, *document_ends(mixed, 1024)], document_ends(mixed, 1024), strict=False)]

    assert b"".join(texts(documents, b"", spool)) == good + b"".join(piece for piece in pieces if b"\xff" not in piece)
    assert cutter.dropped == {"not_utf8": 2}
    assert documents.wholes.tolist()[-1] == len(mixed)


def test_settings_of_clean_up_that_cannot_work(tmp_path: Path) -> None:
    """Each names the setting and the rule."""
    with pytest.raises(ConfigError, match=r"near_duplicates must lie in \[0, 1\], got 2"):
        CleanConfig(near_duplicates=2)
    with pytest.raises(ConfigError, match="lengths must be at least 0, got -1 and 0"):
        CleanConfig(min_length=-1)
    with pytest.raises(ConfigError, match="max_length 5 is below min_length 6"):
        CleanConfig(min_length=6, max_length=5)
    with pytest.raises(ConfigError, match=r"max_document must be 0 or lie in 1024\.\.part_bytes \(4096\), got 5000"):
        IngestConfig(max_document=5000, part_bytes=4096)
