"""A small corpus of several kinds of data, and what compares stores."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bytropix.pipelines.config import IngestConfig

Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a folder of five files, about 320 kB: prose in two scripts, one line, noise, and an empty file."""
    generator = random.Random(1)
    folder = tmp_path / "corpus"
    (folder / "more").mkdir(parents=True)
    latin = ["the", "whale", "sea", "of", "harpoon", "and", "a", "Nantucket", "ship", "deep", "old", "captain"]
    cyrillic = ["война", "и", "мир", "князь", "сказал", "он", "не", "Наташа", "в", "лес"]
    for name, words in (("a.txt", latin), ("more/b.txt", cyrillic)):
        lines = [" ".join(generator.choices(words, k=generator.randint(3, 14))) for _ in range(1500)]
        (folder / name).write_text("\n".join(lines), "utf-8")
    (folder / "line.txt").write_bytes("äöü€ ".encode() * 4000)
    (folder / "noise.bin").write_bytes(generator.randbytes(60_000) + b"\xff" * 5000 + bytes(5000))
    (folder / "empty.txt").touch()
    return folder


@pytest.fixture
def small() -> IngestConfig:
    """Return settings that make dozens of parts of a small corpus."""
    return IngestConfig(document_bytes=1024, part_bytes=16384, val_fraction=0.1)


@pytest.fixture(scope="session")
def tree() -> Tree:
    """Return what reads a folder whole: relative path to content, folders included."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"(folder)"
            for path in sorted(folder.rglob("*"))
        }

    return read
