"""A small corpus of several kinds of data, and what compares stores."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

Tree = Callable[[Path], dict[str, bytes]]


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
def tree() -> Tree:
    """Return what reads a folder whole: relative path to content, folders included."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"(folder)"
            for path in sorted(folder.rglob("*"))
        }

    return read
