"""What is bad is listed and the job goes on, up to a limit; documents in = stored + dropped + quarantined."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bytropix.datasets.store import Manifest, Store
from bytropix.errors import ChangedSourceError, SourceError, TooManyBadError
from bytropix.pipelines import plan as plan_module
from bytropix.pipelines.config import CleanConfig, IngestConfig
from bytropix.pipelines.ingest import Progress, ingest_bytes
from bytropix.pipelines.sources import ReadOptions
from bytropix.pipelines.workplace import too_many_bad

Tree = Callable[[Path], dict[str, bytes]]
ROWS = IngestConfig(read=ReadOptions(text_field="text"), val_fraction=0.1)


def added_up(manifest: Manifest) -> bool:
    """Whether every document that came in went somewhere."""
    return manifest.documents_in == manifest.documents + sum(manifest.dropped.values()) + manifest.quarantined


def rows_file(path: Path, good: int, bad: int) -> Path:
    """Write JSON Lines of good and bad rows."""
    lines = [json.dumps({"text": f"{path.name} {number}"}) for number in range(good)] + ["{"] * bad
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def some_bad(corpus: Path) -> Path:
    """Return the corpus with a truncated gzip and three bad rows among forty."""
    (corpus / "cut.gz").write_bytes(gzip.compress(b"some text " * 5000)[:40])
    rows_file(corpus / "rows.jsonl", 37, 3)
    return corpus


def test_bad_files_and_records_are_listed(some_bad: Path, tmp_path: Path) -> None:
    """Each is a row with its path, record and reason, in order of names; the good ones are stored."""
    store = ingest_bytes([some_bad], tmp_path / "s.bx", ROWS, max_bad=0.2).store
    rows = store.quarantine()
    sources = {source.name: source.kind for source in store.manifest.sources}

    assert [(row["path"], row.get("record")) for row in rows] == [
        ("corpus/cut.gz", None),
        ("corpus/empty.txt", None),
        ("corpus/rows.jsonl", "38"),
        ("corpus/rows.jsonl", "39"),
        ("corpus/rows.jsonl", "40"),
    ]
    assert "truncated" in rows[0]["reason"]
    assert all(set(row) <= {"path", "record", "reason", "bytes_read"} and row["reason"] for row in rows)
    assert sources["corpus/rows.jsonl"] == "jsonl"
    assert "corpus/cut.gz" not in sources
    assert added_up(store.manifest)
    assert store.manifest.quarantined == 5


def test_counts_add_up_with_everything_at_once(some_bad: Path, tmp_path: Path) -> None:
    """Dropped, quarantined and stored documents are all that came in, for every way to be dropped."""
    (some_bad / "again.txt").write_bytes((some_bad / "a.txt").read_bytes())
    (some_bad / "short.txt").write_text("short")
    (some_bad / "long.txt").write_bytes(b"long " * 40_000)
    (some_bad / "latin.txt").write_bytes("größer als zuvor\n".encode("latin-1") * 10)
    clean = CleanConfig(drop_duplicates=True, min_length=8, max_length=150_000, utf8="drop")
    config = IngestConfig(read=ReadOptions(text_field="text"), document_bytes=4096, clean=clean)
    manifest = ingest_bytes([some_bad], tmp_path / "s.bx", config, max_bad=0.2).store.manifest
    documents = len((some_bad / "a.txt").read_bytes()) // 4096

    assert added_up(manifest)
    assert manifest.dropped["too_short"] == 1
    assert manifest.dropped["too_long"] == 1
    assert manifest.dropped["duplicate"] >= documents
    assert manifest.dropped["not_utf8"] >= 2
    assert list(manifest.dropped) == sorted(manifest.dropped)


@pytest.mark.parametrize(("bad", "allowed"), [(2, True), (3, False)])
def test_too_many_bad_files(tmp_path: Path, bad: int, allowed: bool) -> None:
    """Up to the given share is quarantined; beyond it no part is written, and the list is left where the error says."""
    (tmp_path / "data").mkdir()
    for number in range(20):
        content = gzip.compress(b"text %d\n" % number * 50)
        (tmp_path / "data" / f"{number:02}.gz").write_bytes(content[:-9] if number < bad else content)
    out = tmp_path / "s.bx"
    if allowed:
        assert ingest_bytes([tmp_path / "data"], out, IngestConfig(), max_bad=0.1).store.manifest.quarantined == bad
        return
    with pytest.raises(TooManyBadError, match=r"3 of 20 files are bad, more than --max-bad 0\.1 .*truncated.*jsonl"):
        ingest_bytes([tmp_path / "data"], out, IngestConfig(), max_bad=0.1)

    assert [path.name for path in out.rglob("*")] == ["quarantine.jsonl"]
    assert len((out / "quarantine.jsonl").read_text().splitlines()) == 3
    again = ingest_bytes([tmp_path / "data"], out, IngestConfig(), max_bad=0.2, resume=True)
    assert again.store.manifest.quarantined == 3


def test_too_many_bad_records(tmp_path: Path) -> None:
    """Records count too: one file of which half is bad is too bad, though no file was refused."""
    rows_file(tmp_path / "a.jsonl", 10, 10)

    with pytest.raises(TooManyBadError, match=r"10 of 20 documents are bad, more than --max-bad 0\.05 allows"):
        ingest_bytes([tmp_path / "a.jsonl"], tmp_path / "s.bx", ROWS)


def test_the_share_to_allow_is_written_out(tmp_path: Path) -> None:
    """A stray file in a small folder: the message gives a --max-bad with which the same run makes a store."""
    (tmp_path / "data").mkdir()
    for number in range(6):
        content = gzip.compress(b"text %d\n" % number * 50)
        (tmp_path / "data" / f"{number}.gz").write_bytes(content[:-9] if number == 0 else content)
    with pytest.raises(TooManyBadError, match=r"1 of 6 files are bad, more than --max-bad 0\.05 allows") as caught:
        ingest_bytes([tmp_path / "data"], tmp_path / "s.bx", IngestConfig())
    given = re.search(r"\(allow more, for instance with --max-bad (\S+)\)", str(caught.value))

    assert given is not None
    assert given[1] == "0.2"
    summary = ingest_bytes([tmp_path / "data"], tmp_path / "s.bx", IngestConfig(), max_bad=float(given[1]), resume=True)
    assert summary.store.manifest.quarantined == 1


@pytest.mark.parametrize(
    ("bad", "total", "enough"),
    [(1, 6, "0.2"), (3, 10, "0.3"), (7, 30, "0.3"), (10, 20, "0.5"), (19, 20, "1"), (11, 100_000, "0.0002")],
)
def test_the_share_is_rounded_up(bad: int, total: int, enough: str) -> None:
    """To one digit that matters, and never below what there is."""
    said = str(too_many_bad(bad, total, "files", [{"reason": "torn"}], 0.0))

    assert f"(allow more, for instance with --max-bad {enough});" in said
    assert bad / total <= float(enough)


def test_the_list_of_a_failed_replacement_spares_the_store(corpus: Path, tmp_path: Path, tree: Tree) -> None:
    """Where a finished store lies, its own quarantine stays; the list gets another name, and the store is whole."""
    out = tmp_path / "s.bx"
    ingest_bytes([corpus], out, ROWS)
    before = tree(out)
    rows_file(tmp_path / "a.jsonl", 1, 10)
    with pytest.raises(TooManyBadError, match=r"refused\.jsonl"):
        ingest_bytes([tmp_path / "a.jsonl"], out, ROWS, overwrite=True)
    after = tree(out)
    listed = after.pop("refused.jsonl")

    assert (before, 10) == (after, listed.count(b"\n"))


@pytest.mark.parametrize("bad", ["corpus/cut.gz", "corpus/empty.txt", "corpus/rows.jsonl, 38"])
def test_strict_stops_at_the_first(some_bad: Path, tmp_path: Path, bad: str) -> None:
    """The first bad thing in order of names ends the job with its reason, and nothing is left behind."""
    for name in ("cut.gz", "empty.txt", "rows.jsonl"):
        if name < bad.split("/")[1].split(",")[0]:
            (some_bad / name).unlink()
    wanted = bad.removeprefix("corpus/")
    with pytest.raises(SourceError, match=wanted.replace(".", r"\.") + ": .*without --strict") as caught:
        ingest_bytes([some_bad], tmp_path / "s.bx", ROWS, strict=True)

    assert not isinstance(caught.value, TooManyBadError)
    assert not (tmp_path / "s.bx").exists()


def test_nothing_is_left(tmp_path: Path) -> None:
    """Where all is refused or dropped, the first reason is named, and no store is begun."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.gz").write_bytes(gzip.compress(b"text")[:-2])
    (folder / "b").touch()
    with pytest.raises(SourceError, match=r"data/a\.gz: truncated.* \(2 inputs were refused\); no document is left"):
        ingest_bytes([folder], tmp_path / "s.bx", IngestConfig())
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"text"))
    config = IngestConfig(clean=CleanConfig(min_length=5))
    with pytest.raises(SourceError, match="all documents were dropped: too_short 1; no document is left"):
        ingest_bytes([tmp_path / "c.gz"], tmp_path / "s.bx", config)
    (tmp_path / "empty").touch()
    with pytest.raises(SourceError, match="empty: empty; no document is left"):
        ingest_bytes([tmp_path / "empty"], tmp_path / "s.bx", IngestConfig())
    with pytest.raises(SourceError, match="no source"):
        ingest_bytes([], tmp_path / "s.bx", IngestConfig())

    assert not (tmp_path / "s.bx").exists()


def meddle(stage: str, path: Path, change: Callable[[Path], object]) -> Progress:
    """Return a progress that changes a file when a stage begins."""
    left = [path]

    def progress(now: str, done: int, total: int) -> None:
        if now == stage and not done and left:
            change(left.pop())

    return progress


def rewrite(path: Path) -> None:
    """Change some words of a file and not its size."""
    path.write_bytes(path.read_bytes().replace(b"whale", b"snail"))


@pytest.mark.parametrize(
    ("stage", "change", "workers"),
    [("fit", rewrite, 1), ("fit", Path.unlink, 1), ("parts", rewrite, 1), ("parts", Path.unlink, 2)],
)
def test_source_that_changes_under_way(
    corpus: Path,
    small: IngestConfig,
    tmp_path: Path,
    tree: Tree,
    stage: str,
    change: Callable[[Path], object],
    workers: int,
) -> None:
    """It is refused with the reason, and the store is that of the other sources, byte for byte but for the list."""
    out = tmp_path / "s.bx"
    progress = meddle(stage, corpus / "a.txt", change)
    store = ingest_bytes([corpus], out, small, workers=workers, max_bad=0.5, progress=progress).store
    reasons = {row["path"]: row["reason"] for row in store.quarantine()}
    (corpus / "a.txt").unlink(missing_ok=True)
    ingest_bytes([corpus], tmp_path / "without.bx", small)
    found, wanted = tree(out), tree(tmp_path / "without.bx")

    assert "corpus/a.txt" in reasons
    assert (
        "changed while it was read" in reasons["corpus/a.txt"] or "cannot be read any more" in reasons["corpus/a.txt"]
    )
    assert added_up(store.manifest)
    assert set(found) == set(wanted)
    assert [name for name in found if found[name] != wanted[name]] == ["manifest.json", "quarantine.jsonl"]


def test_parts_without_the_changed_source_are_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the table does not depend on the source that changed, parts that hold none of it are not written again."""
    monkeypatch.setattr(plan_module, "SAMPLE_BYTES", 10_000)  # the table of a large corpus is fitted on little of it
    config = IngestConfig(document_bytes=1024, part_bytes=16384, val_fraction=0)
    (corpus / "z.txt").write_text("no more words " * 100)
    progress = meddle("parts", corpus / "z.txt", Path.unlink)
    summary = ingest_bytes([corpus], tmp_path / "s.bx", config, max_bad=0.5, progress=progress)

    assert "corpus/z.txt" in {row["path"] for row in summary.store.quarantine()}
    assert summary.skipped == len(summary.store.manifest.parts) - 1


def test_strict_names_what_changed(corpus: Path, small: IngestConfig, tmp_path: Path) -> None:
    """With --strict, a source that changes under way ends the job, and no manifest is written."""
    (corpus / "empty.txt").unlink()
    progress = meddle("parts", corpus / "a.txt", rewrite)
    with pytest.raises(ChangedSourceError, match=r"a\.txt: changed while it was read; leave it alone"):
        ingest_bytes([corpus], tmp_path / "s.bx", small, strict=True, progress=progress)

    assert not (tmp_path / "s.bx" / "manifest.json").exists()


def test_unreadable_file_is_listed(
    corpus: Path, small: IngestConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that may not be read is quarantined with the system's reason, whether named or found in a folder."""
    real = Path.open

    def closed(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == "line.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", closed)  # permissions do not bind root, who may run this
    store = ingest_bytes([corpus, corpus / "line.txt"], tmp_path / "s.bx", small, max_bad=0.2).store

    assert {row["path"]: row["reason"] for row in store.quarantine()} == {
        "corpus/empty.txt": "empty",
        "corpus/line.txt": "cannot be read: Permission denied",
    }
    with pytest.raises(SourceError, match=r"line\.txt: cannot be read: Permission denied; no document is left"):
        ingest_bytes([corpus / "line.txt"], tmp_path / "t.bx", small)


def test_a_store_can_be_opened_while_it_is_replaced(corpus: Path, tmp_path: Path) -> None:
    """Until the new sources are known to be good, the old store is as it was, spool files beside it or not."""
    out = tmp_path / "s.bx"
    fingerprint = ingest_bytes([corpus], out, ROWS).store.fingerprint
    (tmp_path / "new.gz").write_bytes(gzip.compress(b"new text\n" * 500))
    seen = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "scan":
            seen.append(Store.open(out).fingerprint)

    ingest_bytes([tmp_path / "new.gz"], out, ROWS, overwrite=True, progress=progress)

    assert set(seen) == {fingerprint}
    assert Store.open(out).fingerprint != fingerprint
