"""Files of every kind in one command make one store, whatever their order and the number of workers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bytropix.datasets.store import PartLayout, Store
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

Tree = Callable[[Path], dict[str, bytes]]
Words = Callable[..., bytes]


def wanted_bytes(words: Words) -> int:
    """Return the bytes of all documents, the copy of a.txt left out."""
    plain = sum(len(words(seed)) for seed in (1, 2, 3, 4, 5, 10, 11, 12, 20, 21, 80))
    rows = sum(len(words(30 + n, 50)) + len(words(60 + n, 50)) for n in range(20))
    return plain + rows + len("hello, sea" + "hello")


def test_every_kind_is_read(mixed_store: Path, words: Words) -> None:
    """Each source has its kind, its bytes are all there, and what was cut is marked."""
    store = Store.open(mixed_store)
    kinds = [source.kind for source in store.manifest.sources]
    rows = [row for split in store.splits for part in store.parts(split) for row in part.doc_meta()]
    members = {row["record"] for row in rows if row["source"] == "mixed/f.tar"}
    cut = [row for row in rows if "of" in row]

    assert kinds == ["plain", "gz", "bz2", "xz", "zst", "tar", "zip", "jsonl", "csv", "parquet", "npy", "plain"]
    assert sum(part.n_bytes for part in store.manifest.parts) == wanted_bytes(words)
    assert members == {"deep/0.txt", "deep/1.txt", "deep/2.txt"}
    assert len(cut) == sum(part.pieces for part in store.manifest.parts) > 10
    assert {row["of"] for row in cut if row.get("record") == "stored"} == {len(words(20))}
    assert store.manifest.dropped == {"duplicate": len([row for row in rows if row["source"] == "mixed/a.txt"])}


def test_any_order_and_any_workers(
    mixed: Path, mixed_config: IngestConfig, mixed_store: Path, tmp_path: Path, tree: Tree
) -> None:
    """Two and four processes, and sources named one by one in any order, give the same store, bit for bit."""
    files = sorted(mixed.iterdir())
    ingest_bytes([mixed], tmp_path / "two.bx", mixed_config, workers=2)
    ingest_bytes(files, tmp_path / "forth.bx", mixed_config)
    ingest_bytes([*files[::-1], mixed / "a.txt"], tmp_path / "back.bx", mixed_config, workers=4)

    assert tree(tmp_path / "two.bx") == tree(mixed_store)
    assert tree(tmp_path / "forth.bx") == tree(tmp_path / "back.bx")


def test_webdataset(mixed: Path, mixed_config: IngestConfig, mixed_store: Path, tmp_path: Path) -> None:
    """In the other format the same documents lie in the same order."""
    config = replace(mixed_config, layout=PartLayout(format="webdataset"))
    store = ingest_bytes([mixed], tmp_path / "tar.bx", config).store

    for one, other in zip(Store.open(mixed_store).manifest.parts, store.manifest.parts, strict=True):
        assert (one.n_bytes, one.documents, one.patch_lengths) == (other.n_bytes, other.documents, other.patch_lengths)
    assert [part.doc_meta() for part in store.parts("val")] == [
        part.doc_meta() for part in Store.open(mixed_store).parts("val")
    ]


def test_standard_input(mixed: Path, words: Words, tmp_path: Path) -> None:
    """What is piped in is a document stream of its own, beside other sources."""
    command = [sys.executable, "-m", "bytropix", "ingest", "bytes", "-", str(mixed / "b.gz"), "--json"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "s.bx"), "--workers", "2"],
        input=words(7),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    store = Store.open(tmp_path / "s.bx")

    assert sorted(source.size for source in store.manifest.sources) == sorted(
        [len(words(7)), (mixed / "b.gz").stat().st_size]
    )
    assert json.loads(done.stdout)["bytes"] == len(words(7)) + len(words(2))
