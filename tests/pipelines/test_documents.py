"""Where documents end, and how files are scanned and read again."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytropix.errors import SourceError
from bytropix.pipelines.documents import FileDocuments, document_ends, read_documents, scan
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


def test_scan_in_blocks_equals_the_file_at_once(tmp_path: Path) -> None:
    """A file of several read blocks has the documents and hashes of its whole text."""
    generator = np.random.default_rng(0)
    data = generator.choice(np.frombuffer(b"ab \n\xe2\x82\xac", np.uint8), 9_000_000).tobytes()
    (tmp_path / "big").write_bytes(data)
    found = scan(find_files([tmp_path / "big"])[0], 1 << 16)
    ends = document_ends(data, 1 << 16)
    pieces = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    assert np.diff(ends, prepend=0).tolist() == found.lengths.tolist()
    assert [hashlib.sha256(piece).digest()[:8] for piece in pieces] == [
        int(digest).to_bytes(8, "big") for digest in found.digests
    ]
    assert hashlib.sha256(data).hexdigest() == found.sha256


@pytest.mark.parametrize("content", [b"abX" + b"c" * 3000, b"ab"])
def test_changed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A document whose bytes are not those that were scanned is never delivered, nor one that has been cut off."""
    path = tmp_path / "f"
    path.write_bytes(b"abc" + b"c" * 3000)
    found = scan(find_files([path])[0], 1024)
    begins = np.cumsum(found.lengths, dtype=np.int64) - found.lengths
    documents = FileDocuments("f", str(path), begins, found.lengths, found.digests)

    assert read_documents((documents,)).tobytes() == b"abc" + b"c" * 3000
    path.write_bytes(content)
    with pytest.raises(SourceError, match="changed while it was read"):
        read_documents((documents,))
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read any more"):
        read_documents((documents,))
