"""A small corpus of several kinds of data, and what compares stores."""

import bz2
import gzip
import io
import json
import lzma
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bytropix.pipelines.config import CleanConfig, IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.sources import ReadOptions


@pytest.fixture(scope="session")
def shared_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of five files, about 160 kB: prose in two scripts, one line, noise, and an empty file."""
    generator = random.Random(1)
    folder = tmp_path_factory.mktemp("shared") / "corpus"
    (folder / "more").mkdir(parents=True)
    latin = ["the", "whale", "sea", "of", "harpoon", "and", "a", "Nantucket", "ship", "deep", "old", "captain"]
    cyrillic = ["война", "и", "мир", "князь", "сказал", "он", "не", "Наташа", "в", "лес"]
    for name, words in (("a.txt", latin), ("more/b.txt", cyrillic)):
        lines = [" ".join(generator.choices(words, k=generator.randint(3, 14))) for _ in range(700)]
        (folder / name).write_text("\n".join(lines), "utf-8")
    (folder / "line.txt").write_bytes("äöü€ ".encode() * 2000)
    (folder / "noise.bin").write_bytes(generator.randbytes(30_000) + b"\xff" * 3000 + bytes(3000))
    (folder / "empty.txt").touch()
    return folder


@pytest.fixture
def corpus(shared_corpus: Path, tmp_path: Path) -> Path:
    """Return a copy of the corpus that a test may change."""
    return Path(shutil.copytree(shared_corpus, tmp_path / "corpus"))


@pytest.fixture(scope="session")
def small() -> IngestConfig:
    """Return settings that make several parts of the corpus."""
    return IngestConfig(document_bytes=1024, part_bytes=32768, val_fraction=0.1)


@pytest.fixture(scope="session")
def shared_store(shared_corpus: Path, small: IngestConfig) -> Path:
    """Return the store that an uninterrupted run makes of the corpus; not to be changed."""
    return ingest_bytes([shared_corpus], shared_corpus.parent / "whole.bx", small).store.path


@pytest.fixture(scope="session")
def words() -> Callable[..., bytes]:
    """Return what makes text: `words(seed, length)`, UTF-8 in three scripts."""

    def text(seed: int, length: int = 3000) -> bytes:
        chosen = np.random.default_rng(seed).choice(["sea ", "море ", "ship\n", "海", "wind "], length)
        return "".join(chosen).encode()

    return text


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory, words: Callable[..., bytes]) -> Path:
    """Return a folder of one file of each kind."""
    folder = tmp_path_factory.mktemp("all") / "mixed"
    folder.mkdir()
    (folder / "a.txt").write_bytes(words(1))
    (folder / "b.gz").write_bytes(gzip.compress(words(2), mtime=0))
    (folder / "c.bz2").write_bytes(bz2.compress(words(3)))
    (folder / "d.xz").write_bytes(lzma.compress(words(4)))
    (folder / "e.zst").write_bytes(zstandard.compress(words(5)))
    with tarfile.open(folder / "f.tar", "w") as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"deep/{number}.txt")
            info.size = len(words(10 + number))
            tar.addfile(info, io.BytesIO(words(10 + number)))
    with zipfile.ZipFile(folder / "g.zip", "w") as packed:
        packed.writestr("stored", words(20))
        packed.writestr("deflated", words(21), zipfile.ZIP_DEFLATED)
    (folder / "h.jsonl").write_text("\n".join(json.dumps({"text": words(30 + n, 50).decode()}) for n in range(20)))
    (folder / "i.csv").write_text('id,text\n1,"hello, sea"\n2,hello\n')
    pq.write_table(pa.table({"text": [words(60 + n, 50).decode() for n in range(20)]}), folder / "j.parquet")
    np.save(folder / "k.npy", np.frombuffer(words(80), np.uint8))
    (folder / "l.txt").write_bytes(words(1))
    return folder


@pytest.fixture(scope="session")
def mixed_config() -> IngestConfig:
    """Return settings that make several parts of it, cut its records, and drop the copy."""
    return IngestConfig(
        document_bytes=1024,
        max_document=2048,
        part_bytes=32768,
        val_fraction=0.1,
        read=ReadOptions(text_field="text"),
        clean=CleanConfig(drop_duplicates=True),
    )


@pytest.fixture(scope="session")
def mixed_store(mixed: Path, mixed_config: IngestConfig) -> Path:
    """Return the store that this process alone makes of it; not to be changed."""
    return ingest_bytes([mixed], mixed.parent / "one.bx", mixed_config).store.path
