"""From files to a finished store: what comes out is what went in, the same for every way of doing it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import PartLayout, Store
from bytropix.errors import ConfigError, SourceError, StoreError
from bytropix.patching import PatchConfig
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.documents import document_ends
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.sources import ReadOptions

Tree = Callable[[Path], dict[str, bytes]]


def contents(store: Store) -> dict[str, bytes]:
    """Return each source's bytes, put together from its documents in the store."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    for split in store.splits:
        for part in store.parts(split):
            text = part.read("bytes", 0, part.n_bytes).tobytes()
            begins = np.concatenate([[0], part.doc_ends[:-1]])
            for row, begin, end in zip(part.doc_meta(), begins, part.doc_ends, strict=True):
                found.setdefault(row["source"], []).append((row["offset"], text[begin:end]))
    return {source: b"".join(piece for _, piece in sorted(pieces)) for source, pieces in found.items()}


def test_every_byte_is_there_once(corpus: Path, small: IngestConfig, tmp_path: Path) -> None:
    """The documents of both splits, laid end to end, are the source files; what is refused is listed."""
    store = ingest_bytes([corpus], tmp_path / "s.bx", small).store
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    empty = files.pop("corpus/empty.txt")

    assert (b"", files) == (empty, contents(store))
    assert store.quarantine() == [{"bytes_read": 0, "path": "corpus/empty.txt", "reason": "empty"}]
    assert store.splits == ["train", "val"]


@pytest.mark.parametrize("rule", ["entropy", "threshold", "words", "fixed"])
def test_entropy_and_starts_are_the_patchers(corpus: Path, tmp_path: Path, rule: str) -> None:
    """The stored patcher, given a document alone, finds what the store holds about it."""
    config = IngestConfig(document_bytes=4096, part_bytes=1 << 17, patch=PatchConfig(rule=rule))  # type: ignore[arg-type]
    store = ingest_bytes([corpus], tmp_path / "s.bx", config).store
    patcher = store.patcher()
    for part in (*store.parts("train"), *store.parts("val")):
        text, entropy = part.read("bytes", 0, part.n_bytes), part.read("entropy", 0, part.n_bytes)
        bits = part.read("starts", 0, (part.n_bytes + 7) // 8)
        starts = np.unpackbits(bits, bitorder="little")[: part.n_bytes].astype(bool)
        begin = 0
        for end in part.doc_ends.tolist():
            wanted_entropy, wanted_starts = patcher(text[begin:end])
            np.testing.assert_array_equal(wanted_entropy, entropy[begin:end])
            np.testing.assert_array_equal(wanted_starts, starts[begin:end])
            begin = end
        lengths = np.diff(np.append(np.flatnonzero(starts), part.n_bytes))

        assert np.bincount(lengths).tolist() == list(part.record.patch_lengths)
        assert len(lengths) == sum(span.patches for span in part.record.spans)
        assert (lengths == 1).sum() == sum(span.single for span in part.record.spans)
        assert (lengths >= 64).sum() == sum(span.at_cap for span in part.record.spans)
        assert part.n_bytes == sum(span.n_bytes for span in part.record.spans)


def test_store_is_the_same_for_any_number_of_workers_and_order_and_place(
    corpus: Path, small: IngestConfig, tmp_path: Path, tree: Tree
) -> None:
    """One process, four processes, sources in another order, sources and store elsewhere: the same files."""
    sources = [corpus / "more", corpus / "a.txt", corpus / "line.txt", corpus / "noise.bin"]
    one = ingest_bytes(sources, tmp_path / "one.bx", small, workers=1).store
    four = ingest_bytes(sources[::-1], tmp_path / "four.bx", small, workers=4).store
    shutil.copytree(corpus, tmp_path / "else" / "corpus")
    moved = [tmp_path / "else" / source.relative_to(tmp_path) for source in sources]
    ingest_bytes(moved, tmp_path / "else" / "s.bx", small)
    wanted = tree(one.path)

    assert len(one.manifest.parts) > 4
    assert wanted == tree(four.path)
    assert wanted == tree(tmp_path / "else" / "s.bx")
    assert one.fingerprint == four.fingerprint


def test_files_of_one_name_in_any_order(tmp_path: Path, small: IngestConfig, tree: Tree) -> None:
    """Two sources of one name are told apart by content, so neither their order nor their folders change anything."""
    texts = {"x": "abc def\n" * 3000, "y": "bbc def\n" * 3000}
    for folder, other in (("x", "y"), ("y", "x")):
        (tmp_path / "one" / folder).mkdir(parents=True)
        (tmp_path / "one" / folder / "same.txt").write_text(texts[folder])
        (tmp_path / "two" / folder).mkdir(parents=True)
        (tmp_path / "two" / folder / "same.txt").write_text(texts[other])
    for place in ("one", "two"):
        sources = [tmp_path / place / folder / "same.txt" for folder in "xy"]
        ingest_bytes(sources, tmp_path / f"{place}.bx", small)

    assert tree(tmp_path / "one.bx") == tree(tmp_path / "two.bx")


def test_store_names_no_place_of_this_machine(corpus: Path, small: IngestConfig, tmp_path: Path, tree: Tree) -> None:
    """No file of a store holds the folder it was made from or in."""
    ingest_bytes([corpus], tmp_path / "s.bx", IngestConfig(document_bytes=1024, layout=PartLayout(codec="none")))

    assert not [name for name, data in tree(tmp_path / "s.bx").items() if str(tmp_path).encode() in data]


def test_documents_keep_their_side_when_a_file_grows(corpus: Path, tmp_path: Path) -> None:
    """What was in val stays in val after the file has grown, so no held-out text becomes training text."""
    config = IngestConfig(document_bytes=1024, val_fraction=0.2)

    def val_offsets(name: str) -> set[int]:
        store = ingest_bytes([corpus / "a.txt"], tmp_path / name, config).store
        return {row["offset"] for part in store.parts("val") for row in part.doc_meta()}

    data = (corpus / "a.txt").read_bytes()
    settled = document_ends(data, 1024, whole=False)[-1]
    before = val_offsets("before.bx")
    (corpus / "a.txt").write_bytes(data + data[::-1])
    after = val_offsets("after.bx")

    assert len(before) > 5
    assert {offset for offset in before if offset < settled} == {offset for offset in after if offset < settled}


def test_hostile_files_are_data(shared_data: Path, tmp_path: Path) -> None:
    """Broken UTF-8, NULs, truncated archives, broken JSON: as plain files, every byte of every file comes back."""
    config = IngestConfig(read=ReadOptions(kind="plain"))
    store = ingest_bytes([shared_data / "hostile"], tmp_path / "s.bx", config).store
    paths = [path for path in (shared_data / "hostile").rglob("*") if path.is_file()]
    files = {f"hostile/{path.relative_to(shared_data / 'hostile').as_posix()}": path.read_bytes() for path in paths}

    assert {name: data for name, data in files.items() if data} == contents(store)
    assert sorted(name for name, data in files.items() if not data) == [row["path"] for row in store.quarantine()]


@pytest.mark.parametrize("filler", [b"a", b"\0", b"\xff", b"\xe2"])
def test_one_long_line_is_data(tmp_path: Path, filler: bytes) -> None:
    """A line without end, of letters, NULs, 0xFF or lead bytes that promise for ever, is cut and kept."""
    data = b"line\n" * 20_000 + filler * 3_000_000
    (tmp_path / "long").write_bytes(data)
    store = ingest_bytes([tmp_path / "long"], tmp_path / "s.bx", IngestConfig()).store

    assert {"long": data} == contents(store)


def test_names_that_are_not_text(tmp_path: Path, small: IngestConfig) -> None:
    """A file whose name is not UTF-8, or holds a newline, is read, and its name survives the manifest."""
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ["b\nc", "caf\udce9"]
    try:
        for name in names:
            (folder / name).write_text(f"{name!r} and more text\n" * 200)
    except OSError:
        pytest.skip("this file system takes no such names")
    store = ingest_bytes([folder], tmp_path / "s.bx", small).store

    assert [f"odd/{name}" for name in names] == [source.name for source in store.manifest.sources]


def test_store_in_the_way(corpus: Path, small: IngestConfig, tmp_path: Path, tree: Tree) -> None:
    """A store that exists is refused, replaced on request, and kept if the new sources turn out bad."""
    out = tmp_path / "s.bx"
    ingest_bytes([corpus / "a.txt"], out, small)
    before = tree(out)

    with pytest.raises(StoreError, match=r"--resume.*--overwrite"):
        ingest_bytes([corpus], out, small)
    with pytest.raises(SourceError):
        ingest_bytes([corpus / "gone"], out, small, overwrite=True)
    assert before == tree(out)
    ingest_bytes([corpus], out, small, overwrite=True)
    ingest_bytes([corpus], tmp_path / "fresh.bx", small)
    assert tree(tmp_path / "fresh.bx") == tree(out)


def test_folder_that_is_no_store_is_never_touched(
    corpus: Path, small: IngestConfig, tmp_path: Path, tree: Tree
) -> None:
    """Neither --overwrite nor --resume removes or fills a folder or file that is not a store."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "manifest.json").write_text("{}")
    (tmp_path / "work" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("years")
    for out in (tmp_path / "work", tmp_path / "file"):
        for leave in ({"overwrite": True}, {"resume": True}, {}):
            with pytest.raises(StoreError, match="exists and is not a store"):
                ingest_bytes([corpus], out, small, **leave)

    assert tree(tmp_path / "work") == {"manifest.json": b"{}", "thesis.txt": b"years"}


@pytest.mark.parametrize("place", ["corpus", "corpus/s.bx", "corpus/more", "."])
def test_store_and_source_lie_apart(corpus: Path, small: IngestConfig, tmp_path: Path, tree: Tree, place: str) -> None:
    """A store equal to a source, inside one or around one is refused before anything is touched."""
    before = tree(tmp_path)

    with pytest.raises(StoreError, match="lie in one another"):
        ingest_bytes([corpus], tmp_path / place, small, overwrite=True)
    assert before == tree(tmp_path)


def test_settings_that_cannot_work(corpus: Path, small: IngestConfig, tmp_path: Path) -> None:
    """Each names the setting, the value and the rule."""
    with pytest.raises(ConfigError, match=r"between 1 and 64 bytes, got 65"):
        PatchConfig(mean_patch=65)
    with pytest.raises(ConfigError, match=r"val_fraction must lie in \[0, 1\), got 1"):
        IngestConfig(val_fraction=1)
    with pytest.raises(ConfigError, match=r"document_bytes must lie in 1024.*got 10"):
        IngestConfig(document_bytes=10)
    with pytest.raises(ConfigError, match=r"part_bytes must lie in 4096.*got 10"):
        IngestConfig(part_bytes=10)
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        ingest_bytes([corpus], tmp_path / "s.bx", small, workers=0)
    with pytest.raises(ConfigError, match="give one of them"):
        ingest_bytes([corpus], tmp_path / "s.bx", small, resume=True, overwrite=True)


def test_receipts_and_half_written_things_are_gone(corpus: Path, small: IngestConfig, tmp_path: Path) -> None:
    """A finished store holds what its manifest names and nothing else."""
    store = ingest_bytes([corpus], tmp_path / "s.bx", small).store
    manifest = json.loads((store.path / "manifest.json").read_text())
    named = {"manifest.json", "quarantine.jsonl", *(f"babylon/{file['path']}" for file in manifest["babylon"])}
    for part in manifest["parts"]:
        named |= {f"parts/{part['split']}/{part['name']}/{file['path']}" for file in part["files"]}

    assert named == {path.relative_to(store.path).as_posix() for path in store.path.rglob("*") if path.is_file()}
