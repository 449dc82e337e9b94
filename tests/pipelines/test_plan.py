"""Which documents make which part, and which the patcher is fitted on."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import PartLayout, open_storage
from bytropix.pipelines import plan as plan_module
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import FileDocuments
from bytropix.pipelines.plan import part_key, plan_parts, sample_files
from bytropix.pipelines.scan import scan
from bytropix.pipelines.sources import find_files


@pytest.fixture
def small() -> IngestConfig:
    """Return settings that make two dozen parts."""
    return IngestConfig(document_bytes=1024, part_bytes=8192, val_fraction=0.1)


@pytest.fixture
def scanned(corpus: Path, small: IngestConfig) -> list[FileDocuments]:
    """Return the documents of the corpus, file by file."""
    storage = open_storage(corpus.parent / "s.bx")
    files = [scan(file, 0, small, storage) for file in find_files([corpus])]
    return [file.documents for file in files if not file.refused]


def documents(scanned: list[FileDocuments]) -> list[tuple[str, int, int, int]]:
    """Return (source, begin, length, digest) of every document."""
    return [
        (file.source, int(begin), int(length), int(digest))
        for file in scanned
        for begin, length, digest in zip(file.begins, file.lengths, file.digests, strict=True)
    ]


def test_every_document_is_in_one_part_of_its_side(scanned: list[FileDocuments], small: IngestConfig) -> None:
    """Parts hold all documents once, in order of the sources; the hash alone says on which side."""
    rows = documents(scanned)
    limit = 0.1 * 2**64
    for split, wanted in (("train", [r for r in rows if r[3] >= limit]), ("val", [r for r in rows if r[3] < limit])):
        found = [
            (file.source, *map(int, row))
            for part in plan_parts(scanned, small)
            if part.split == split
            for file in part.files(small)
            for row in zip(file.begins, file.lengths, file.digests, strict=True)
        ]

        assert len(wanted) > 5
        assert wanted == found


def test_parts_are_full_but_not_too_full(scanned: list[FileDocuments], small: IngestConfig) -> None:
    """A part closes before the document that would pass `part_bytes`, and says how many bytes it has."""
    parts = [part for part in plan_parts(scanned, small) if part.split == "train"]

    assert len(parts) > 8
    assert all(part.n_bytes == sum(file.n_bytes for file in part.files(small)) for part in parts)
    for part, after in pairwise(parts):
        first = int(after.files(small)[0].lengths[0])
        assert part.n_bytes <= small.part_bytes < part.n_bytes + first


def test_document_larger_than_a_part_has_one_of_its_own(tmp_path: Path) -> None:
    """A document longer than `part_bytes` is a part, never lost and never an endless loop."""
    (tmp_path / "a").write_bytes(b"x" * 50_000)
    config = IngestConfig(document_bytes=16384, part_bytes=4096, val_fraction=0)
    scanned = scan(find_files([tmp_path / "a"])[0], 0, config, open_storage(tmp_path / "s.bx"))
    parts = plan_parts([scanned.documents], config)

    assert [part.n_bytes for part in parts] == [16384, 16384, 16384, 848]


@pytest.mark.parametrize("sample_bytes", [1, 50_000, 10**9])
def test_sample_is_the_least_train_hashes(
    scanned: list[FileDocuments], small: IngestConfig, sample_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit reads the train documents of the least hashes, just as many as fill it, in order of the sources."""
    monkeypatch.setattr(plan_module, "SAMPLE_BYTES", sample_bytes)
    train = sorted((row for row in documents(scanned) if row[3] >= 0.1 * 2**64), key=lambda row: row[3])
    before = np.cumsum([row[2] for row in train]) - [row[2] for row in train]
    chosen = {row for row, size in zip(train, before, strict=True) if size < sample_bytes}
    found = [
        (file.source, *map(int, row))
        for file in sample_files(scanned, small)
        for row in zip(file.begins, file.lengths, file.digests, strict=True)
    ]

    assert found == [row for row in documents(scanned) if row in chosen]


def test_key_holds_everything_that_decides_the_bytes(scanned: list[FileDocuments], small: IngestConfig) -> None:
    """Other documents, another layout or another patcher give another key."""
    one, two = (part.files(small) for part in plan_parts(scanned, small)[:2])
    keys = {
        part_key(one, small.layout, "patcher"),
        part_key(two, small.layout, "patcher"),
        part_key(one, small.layout, "other"),
        part_key(one, PartLayout(codec="none"), "patcher"),
        part_key((replace(one[0], source="else"), *one[1:]), small.layout, "patcher"),
        part_key((replace(one[0], base=1), *one[1:]), small.layout, "patcher"),
        part_key((replace(one[0], seconds=one[0].seconds + 1), *one[1:]), small.layout, "patcher"),
    }

    assert len(keys) == 7
    assert part_key(one, small.layout, "patcher") in keys


def test_all_documents_may_be_vals(scanned: list[FileDocuments]) -> None:
    """A document never changes sides: where all are val's, they make the only split, and the sample."""
    config = IngestConfig(document_bytes=1024, val_fraction=1 - 1e-12)
    sampled = sample_files(scanned, config)

    assert {part.split for part in plan_parts(scanned, config)} == {"val"}
    assert sum(file.n_bytes for file in sampled) == sum(file.n_bytes for file in scanned)


def test_numbers_go_on_where_a_store_ends(scanned: list[FileDocuments], small: IngestConfig) -> None:
    """Parts that are appended are numbered after those of their split."""
    names = [(part.split, part.name) for part in plan_parts(scanned, small, {"train": 7})]

    assert names[0] == ("train", "00007.zarr")
    assert ("val", "00000.zarr") in names
