"""Where documents end, and how they are read again."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytropix.datasets.store import open_storage
from bytropix.errors import ChangedSourceError, StoreError
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import digest_of, document_ends, read_documents
from bytropix.pipelines.scan import scan
from bytropix.pipelines.sources import find_files

# Newlines, letters, lead and continuation bytes in such a share that every branch of the rule is met.
HARD_BYTES = st.lists(
    st.sampled_from([b"\n", b"a", b"\xc3", b"\xe2", b"\xf0", b"\x82", b"\xbf", b"\xff"]), max_size=200
)
PROMISED = {0xC3: 1, 0xE2: 2, 0xF0: 3}


def ends_byte_by_byte(data: bytes, limit: int) -> list[int]:
    """Follow the rule with a state that knows earlier bytes alone."""
    ends, length, pending = [], 0, 0
    for place, byte in enumerate(data):
        pending = pending - 1 if pending and 0x80 <= byte < 0xC0 else PROMISED.get(byte, 0)
        length += 1
        newline = byte == 10 and limit // 2 <= length - 1 < limit
        if newline or (length >= limit and pending == 0) or length == limit + 3:
            ends.append(place + 1)
            length, pending = 0, 0
    return ends


@given(data=HARD_BYTES.map(b"".join) | st.binary(max_size=100).map(lambda data: data.replace(b"\xe0", b"a")))
def test_ends_follow_the_rule_byte_by_byte(data: bytes) -> None:
    """A reader that sees one byte after the other ends documents where the fast search does."""
    data = bytes(byte if byte < 0xC0 or byte in PROMISED or byte == 0xFF else 0x61 for byte in data)

    assert ends_byte_by_byte(data, 16) == document_ends(data, 16, whole=False)


@given(data=HARD_BYTES.map(b"".join), share=st.floats(0, 1))
def test_ends_have_the_prefix_property(data: bytes, share: float) -> None:
    """Whether a document ends before byte j depends on bytes before j only."""
    size = int(share * len(data))

    assert [end for end in document_ends(data, 16, whole=False) if end <= size] == document_ends(
        data[:size], 16, whole=False
    )


@given(data=HARD_BYTES.map(b"".join))
def test_documents_cover_the_file(data: bytes) -> None:
    """The last document ends with the file; none is empty or longer than the limit and three bytes."""
    ends = document_ends(data, 16)

    assert (ends[-1] if ends else 0) == len(data)
    assert all(0 < length <= 19 for length in np.diff(ends, prepend=0))


@given(text=st.text(alphabet="aé€𝄞", min_size=1, max_size=300))
def test_no_character_is_split(text: str) -> None:
    """A document of valid UTF-8 is valid UTF-8."""
    data = text.encode()
    begin = 0
    for end in document_ends(data, 16):
        data[begin:end].decode()
        begin = end


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (b"a" * 7 + b"\n" + b"b" * 20, [16, 28]),
        (b"a" * 8 + b"\n" + b"b" * 20, [9, 25, 29]),
        (b"a" * 15 + b"\n" + b"b", [16, 17]),
        (b"a" * 16 + b"\n" + b"b", [16, 18]),
    ],
)
def test_newline_counts_from_half_the_limit(data: bytes, ends: list[int]) -> None:
    """A newline ends a document only at or past byte limit // 2 and below the limit."""
    assert ends == document_ends(data, 16)


@pytest.mark.parametrize("content", [b"abX" + b"c" * 3000, b"ab"])
def test_changed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A document whose bytes are not those that were scanned is never delivered, nor one that has been cut off."""
    path = tmp_path / "f"
    path.write_bytes(b"abc" + b"c" * 3000)
    storage = open_storage(tmp_path / "s.bx")
    documents = scan(find_files([path])[0], 0, IngestConfig(document_bytes=1024), storage).documents

    assert read_documents((documents,), storage).tobytes() == b"abc" + b"c" * 3000
    path.write_bytes(content)
    with pytest.raises(ChangedSourceError, match="changed while it was read"):
        read_documents((documents,), storage)
    path.unlink()
    with pytest.raises(ChangedSourceError, match="cannot be read any more"):
        read_documents((documents,), storage)


@pytest.mark.parametrize("place", ["here", "memory://P-documents/s.bx"])
def test_some_documents_of_a_spool_file(tmp_path: Path, place: str) -> None:
    """Any choice of documents of a file that was decompressed is read from its spool file, from a folder or a URL."""
    text = np.random.default_rng(0).choice(np.frombuffer(b"ab \n", np.uint8), 500_000).tobytes()
    (tmp_path / "a.gz").write_bytes(gzip.compress(text))
    storage = open_storage(tmp_path / "s.bx" if place == "here" else place)
    documents = scan(find_files([tmp_path / "a.gz"])[0], 7, IngestConfig(document_bytes=1024), storage).documents
    chosen = np.flatnonzero(np.random.default_rng(1).random(len(documents)) < 0.5)
    some = documents.take(chosen)
    begins = np.cumsum(documents.lengths) - documents.lengths
    wanted = b"".join(text[begins[one] : begins[one] + documents.lengths[one]] for one in chosen.tolist())

    assert documents.spool == "spool/00007.bin"
    assert read_documents((some,), storage).tobytes() == wanted
    assert some.record_offsets().tolist() == begins[chosen].tolist()


def test_documents_in_any_order(tmp_path: Path) -> None:
    """Members of an archive may be listed in another order than they lie in; each is read from its place."""
    (tmp_path / "a").write_bytes(bytes(range(200)))
    storage = open_storage(tmp_path / "s.bx")
    file = scan(find_files([tmp_path / "a"])[0], 0, IngestConfig(), storage).documents
    begins, lengths = np.array([150, 100, 110, 0]), np.array([50, 10, 20, 100], np.uint32)
    pieces = [bytes(range(200))[begin : begin + length] for begin, length in zip(begins, lengths, strict=True)]
    first, second = zip(*map(digest_of, pieces), strict=True)
    digests, seconds = np.array(first, np.uint64), np.array(second, np.uint64)
    shuffled = replace(file, begins=begins, lengths=lengths, digests=digests, seconds=seconds)

    assert read_documents((shuffled,), storage).tobytes() == b"".join(pieces)


def test_damaged_spool_file_is_refused(tmp_path: Path) -> None:
    """A spool file that changed is the store's fault, and no source is blamed for it."""
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"text\n" * 1000))
    storage = open_storage(tmp_path / "s.bx")
    documents = scan(find_files([tmp_path / "a.gz"])[0], 0, IngestConfig(), storage).documents
    (tmp_path / "s.bx" / "spool" / "00000.bin").write_bytes(b"else\n" * 1000)

    with pytest.raises(StoreError, match=r"spool/00000\.bin: is not what was written"):
        read_documents((documents,), storage)
