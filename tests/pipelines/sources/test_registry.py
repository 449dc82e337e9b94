"""Which reader a file gets, and what any reader is given."""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bytropix.errors import ConfigError
from bytropix.pipelines.sources import KINDS, ReadOptions, SourceFault, read_records
from bytropix.pipelines.sources.compressed import DECODERS
from bytropix.pipelines.sources.records import BLOCK_BYTES, COMPRESSIONS, FORMATS

Read = Callable[..., Any]


def test_kinds_are_those_that_options_name() -> None:
    """`--kind` knows every kind, in the words of the registry, and no two kinds have a suffix in common."""
    suffixes = [suffix for kind in KINDS.values() for suffix in kind.suffixes]
    suffixes += [suffix for way in DECODERS.values() for suffix in way.suffixes + way.archive_suffixes]

    assert tuple(KINDS) == FORMATS
    assert tuple(DECODERS) == COMPRESSIONS
    assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a", "plain"),
        ("a.gz.txt", "plain"),
        (".tar", "tar"),
        ("A.TAR", "tar"),
        ("a.tar.gz", "tar.gz"),
        ("a.TGZ", "tar.gz"),
        ("a.bgz", "gz"),
        ("a.ndjson.gz", "jsonl.gz"),
        ("a.json.gz", "gz"),
        ("targz", "plain"),
    ],
)
def test_suffixes(name: str, kind: str, samples: dict[str, bytes]) -> None:
    """A name's suffixes, in any case, say what a file is; an unknown one is plain."""
    inner = samples["a.tar"] if "tar" in kind else samples["a.jsonl"]
    data = gzip.compress(inner) if kind.endswith("gz") else inner

    assert read_records(io.BytesIO(data), name, ReadOptions(text_field="text"))[0] == kind


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a.tar", "a.zip", "a.parquet", "a.xml", "a.npy", "a.jsonl"])
def test_empty_files(name: str, read: Read) -> None:
    """A file of no bytes has nothing in it, whatever its name."""
    assert read(b"", name, ReadOptions(text_field="text")).records == []


@pytest.mark.parametrize("seekable", [True, False])
def test_large_plain_file(seekable: bool, read: Read) -> None:
    """A plain file comes in blocks that fit in memory, each with its place."""
    data = os.urandom(1000) * (BLOCK_BYTES // 400)
    found = read(data, "a.bin", seekable=seekable)

    assert found.records == [("", data)]
    assert found.places == [0]


def test_wrong_suffix(shared_data: Path, read: Read) -> None:
    """A text that is named .gz is refused, with the ways out; told that it is plain, it is read."""
    data = (shared_data / "hostile" / "wrong_extension" / "text_named.gz").read_bytes()

    with pytest.raises(SourceFault, match="no gzip data in it; name it for what it is, or read it with --kind plain"):
        read(data, "text_named.gz")
    assert read(data, "text_named.gz", ReadOptions(kind="plain")).records == [("", data)]


def test_forced_kind(samples: dict[str, bytes], read: Read) -> None:
    """A kind that is told holds for any name, also two in one."""
    for kind, data in (
        ("jsonl.gz", gzip.compress(samples["a.jsonl"])),
        ("jsonl", samples["a.jsonl"]),
        ("gz", gzip.compress(samples["a.jsonl"])),
        ("tar", samples["a.tar"]),
        ("parquet", samples["a.parquet"]),
        ("plain", samples["a.zip"]),
    ):
        found = read(data, "any.zip", ReadOptions(kind=kind, text_field="text"))

        assert found.kind == kind
        assert found.records


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "rar"}, "kind must be one of plain, tar, .*, zst, or two as in tar.gz, got 'rar'"),
        ({"kind": "gz.tar"}, "kind must be one of"),
        ({"kind": "gz.gz"}, "kind must be one of"),
        ({"kind": "csv.gz"}, "kind csv.gz needs --text-field"),
        ({"max_expansion": 0.5}, "max_expansion must be a number of at least 1, got 0.5"),
        ({"max_expansion": float("nan")}, "max_expansion must be"),
        ({"column": ""}, "column must name"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str) -> None:
    """Options that cannot work are refused before a file is opened, with the value and the rule."""
    with pytest.raises(ConfigError, match=said):
        ReadOptions(**options)


def test_errors_of_the_stream_come_out_as_they_are(samples: dict[str, bytes]) -> None:
    """A disk that fails is not taken for a damaged file."""

    class Failing(io.BytesIO):
        """Bytes that end in an error."""

        def read(self, size: int | None = -1, /) -> bytes:
            """Return what is there, then fail."""
            data = super().read(size)
            if not data:
                raise OSError(5, "Input/output error")
            return data

        def seekable(self) -> bool:
            """Return False, so that every kind reads in order."""
            return False

    for name, data in samples.items():
        with pytest.raises(OSError, match="Input/output error"):
            list(read_records(Failing(data[: len(data) // 2]), name, ReadOptions(text_field="text"))[1])
