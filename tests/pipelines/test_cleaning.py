"""Duplicates are dropped where an earlier document is like them, and counted."""

import importlib.util
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.pipelines.cleaning import drop_duplicates, signer
from bytropix.pipelines.config import CleanConfig, IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.sources import ReadOptions

Tree = Callable[[Path], dict[str, bytes]]
WORDS = [f"word{number}" for number in range(500)]


def essay(seed: int, length: int = 300) -> str:
    """Return words in an order of their own."""
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def rows_file(path: Path, texts: list[str]) -> None:
    """Write texts as JSON Lines."""
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))


def stored(store: Store) -> dict[tuple[str, str], str]:
    """Return the documents of a store by source and record."""
    found = {}
    for split in store.splits:
        for part in store.parts(split):
            text = part.read("bytes", 0, part.n_bytes).tobytes()
            begins = [0, *part.doc_ends.tolist()[:-1]]
            for row, begin, end in zip(part.doc_meta(), begins, part.doc_ends.tolist(), strict=True):
                found[row["source"], row.get("record", "")] = text[begin:end].decode()
    return found


def config(**clean: object) -> IngestConfig:
    """Return settings of clean-up."""
    return IngestConfig(read=ReadOptions(text_field="text"), clean=CleanConfig(**clean))  # type: ignore[arg-type]


def test_exact_duplicates_of_all_sources(tmp_path: Path, tree: Tree) -> None:
    """The first in order of name and place stays, whatever the order on the command line; no other is lost."""
    rows_file(tmp_path / "b.jsonl", ["one", "two", "one", "three"])
    (tmp_path / "a.txt").write_text("two")
    rows_file(tmp_path / "c.jsonl", ["three", "four", "four"])
    sources = [tmp_path / name for name in ("a.txt", "b.jsonl", "c.jsonl")]
    store = ingest_bytes(sources, tmp_path / "s.bx", config(drop_duplicates=True)).store
    ingest_bytes(sources[::-1], tmp_path / "t.bx", config(drop_duplicates=True))

    assert stored(store) == {
        ("a.txt", ""): "two",
        ("b.jsonl", "1"): "one",
        ("b.jsonl", "4"): "three",
        ("c.jsonl", "2"): "four",
    }
    assert (store.manifest.dropped, store.manifest.documents_in) == ({"duplicate": 4}, 8)
    assert len(store.manifest.sources) == 3
    assert tree(tmp_path / "s.bx") == tree(tmp_path / "t.bx")


def test_duplicates_stay_unless_they_are_to_go(tmp_path: Path) -> None:
    """Clean-up is off by default."""
    rows_file(tmp_path / "a.jsonl", ["same"] * 3)
    manifest = ingest_bytes([tmp_path / "a.jsonl"], tmp_path / "s.bx", config()).store.manifest

    assert (manifest.documents, manifest.dropped) == (3, {})


def test_near_duplicates(tmp_path: Path, tree: Tree) -> None:
    """An essay with a word changed is like the first, another essay is not; equal stores for one worker and two."""
    pytest.importorskip("datasketch")
    first = essay(1)
    rows_file(tmp_path / "a.jsonl", [first, first.replace("word7 ", "word8 "), essay(2)])
    rows_file(tmp_path / "b.jsonl", [essay(3), essay(2) + " and a word", "short", "short ", ""])
    settings = config(near_duplicates=0.7)
    sources = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    store = ingest_bytes(sources, tmp_path / "s.bx", settings).store
    ingest_bytes(sources[::-1], tmp_path / "t.bx", settings, workers=2)

    assert set(stored(store)) == {("a.jsonl", "1"), ("a.jsonl", "3"), ("b.jsonl", "1"), ("b.jsonl", "3")}
    assert store.manifest.dropped == {"near_duplicate": 3}
    assert store.manifest.documents_in == 8
    assert tree(tmp_path / "s.bx") == tree(tmp_path / "t.bx")


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_signatures_estimate_what_is_shared(share: float) -> None:
    """The share of equal hashes is near the share of common shingles, and the same in every process."""
    pytest.importorskip("datasketch")
    sign = signer(0.5)
    assert sign is not None
    words = essay(5, 4000).split()
    other = words[: int(4000 * share)] + essay(6, int(4000 * (1 - share))).split()
    shingles = [{" ".join(text[n : n + 5]) for n in range(len(text) - 4)} for text in (words, other)]
    wanted = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    one, two = (sign(memoryview(" ".join(text).encode())) for text in (words, other))

    assert np.mean(one == two) == pytest.approx(wanted, abs=0.12)
    assert one[:3].tolist() == sign(memoryview(" ".join(words).encode()))[:3].tolist()


def test_words_may_be_parted_by_anything_white() -> None:
    """Line breaks and blanks make no difference to near duplicates."""
    pytest.importorskip("datasketch")
    sign = signer(0.5)
    assert sign is not None

    assert sign(memoryview(b"a b c d e f")).tolist() == sign(memoryview(b" a\nb\tc  d e\r\nf ")).tolist()


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without datasketch, to ask for near duplicates is refused with the pip line before anything is read."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "datasketch" else real(name))
    monkeypatch.setitem(sys.modules, "datasketch", None)
    (tmp_path / "a").write_text("text")

    with pytest.raises(
        ConfigError, match=r"near_duplicates needs the package datasketch; pip install 'bytropix\[dedup\]'"
    ):
        ingest_bytes([tmp_path / "a"], tmp_path / "s.bx", config(near_duplicates=0.8))
    assert not (tmp_path / "s.bx").exists()


def test_no_files() -> None:
    """Nothing has no duplicates."""
    assert drop_duplicates([], CleanConfig(drop_duplicates=True)) == []
