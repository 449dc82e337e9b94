"""`bytropix ingest bytes` as a user calls it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bytropix.datasets.store import Store
from bytropix.jobs.cli import main


def test_report_on_stderr(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress and summary go to stderr, and say what is in the store."""
    code = main(["ingest", "bytes", str(corpus), "--out", str(tmp_path / "s.bx"), "--document-bytes", "1024"])
    out, err = capsys.readouterr()
    size = sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file())

    assert (code, out) == (0, "")
    assert f"bytes        {size:,} (" in err
    assert "sources      4, 1 quarantined" in err
    assert "mean " in err
    assert all(stage in err for stage in ("scan ", "fit  ", "parts"))
    assert "B/s" in err


def test_json_is_one_object(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json stdout is one object, of the numbers that the store itself gives."""
    flags = ["--rule", "fixed", "--mean-patch", "5", "--codec", "none", "--document-bytes", "2048", "--workers", "1"]
    code = main(["ingest", "bytes", str(corpus), "--out", str(tmp_path / "s.bx"), "--json", *flags])
    report = json.loads(capsys.readouterr().out)
    store = Store.open(tmp_path / "s.bx")

    assert code == 0
    assert report["fingerprint"] == store.fingerprint
    assert report["patches"] == sum(part.record.patches for part in (*store.parts("train"), *store.parts("val")))
    assert report["mean_patch"] == pytest.approx(5, abs=0.2)
    assert store.manifest.config["layout"]["codec"] == "none"
    assert store.manifest.config["document_bytes"] == 2048
    assert store.manifest.config["patch"]["rule"] == "fixed"
    assert (report["quarantined"], report["parts_skipped"], report["sources"]) == (1, 0, 4)


def test_no_val_document_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A corpus too small to have a val document gives a store and one line with the remedy."""
    (tmp_path / "a").write_text("too small to be cut")
    code = main(["ingest", "bytes", str(tmp_path / "a"), "--out", str(tmp_path / "s.bx")])
    err = capsys.readouterr().err

    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("warning: no document landed in val; ingest more")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mean-patch", "65"], "mean patch length must be between 1 and 64 bytes, got 65.0"),
        (["--document-bytes", "1"], "document_bytes must lie in 1024"),
        (["--workers", "0"], "workers must be at least 1"),
        (["--out", "gone/../corpus/s.bx"], "lie in one another"),
        (["--max-bad", "2"], "max_bad must lie in [0, 1], got 2"),
        (["--max-document", "5"], "max_document must be 0 or lie in 1024"),
        (["--min-length", "9", "--max-length", "8"], "max_length 8 is below min_length 9"),
        (["--kind", "doc"], "kind must be one of"),
        (["--format", "webdataset", "--codec", "zstd"], "tars are not compressed"),
    ],
)
def test_bad_settings_end_in_one_line(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    """Exit code 2, one line, no trace, and nothing on disk."""
    monkeypatch.chdir(tmp_path)
    code = main(["ingest", "bytes", "corpus", "--out", "s.bx", *flags])
    out, err = capsys.readouterr()

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "s.bx").exists()


def test_all_that_happened_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary counts what was dropped, by cause, what was refused, by reason, and what was cut; so does --json."""
    rows = [json.dumps({"text": text}) for text in ("one", "two", "one", "x", "long " * 1000)]
    (tmp_path / "a.jsonl").write_text("\n".join([*rows, "{", "{"]))
    (tmp_path / "skipped.txt").write_text("left out")
    flags = ["--text-field", "text", "--drop-duplicates", "--min-length", "2", "--max-document", "1024"]
    flags += ["--max-bad", "0.5", "--exclude", "skipped.*", "--exclude", "nothing", "--workers", "1"]
    words = ["ingest", "bytes", str(tmp_path / "*.*"), "--out", str(tmp_path / "out" / "s.bx"), *flags]
    code = main(words)
    err = capsys.readouterr().err
    main([*words, "--resume", "--json"])
    report = json.loads(capsys.readouterr().out)

    assert code == 0
    assert "sources      1, 2 quarantined" in err
    assert "quarantined  2 " in err
    assert "dropped      1 duplicate" in err
    assert "dropped      1 too short" in err
    assert "documents    7 (" in err
    assert "5 of them pieces of longer records" in err
    assert (report["documents_in"], report["documents"], report["quarantined"], report["cut"]) == (11, 7, 2, 5)
    assert report["dropped"] == {"duplicate": 1, "too_short": 1}
    assert [count for _, count in report["reasons"]] == [2]


def test_too_much_that_is_bad_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says how much, why, where the list is and what to do; 2 is left for what cannot be read at all."""
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{\n')
    words = ["ingest", "bytes", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "s.bx"), "--text-field", "text"]
    codes = [main(words), main([*words, "--strict", "--resume"]), main([*words, "--max-bad", "0.5", "--resume"])]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bytropix:")]

    assert codes == [3, 2, 0]
    assert len(lines) == 2
    assert all(part in lines[0] for part in ("1 of 2 documents", "--max-bad 0.05", "s.bx/quarantine.jsonl", "--resume"))
    assert "a.jsonl, 2: " in lines[1]


@pytest.mark.skipif(sys.platform == "win32", reason="a program that was killed is told by its signal")
def test_ingestion_imports_no_torch(corpus: Path, tmp_path: Path) -> None:
    """A worker starts without torch, which costs seconds and memory."""
    code = (
        "import sys; from bytropix.jobs.cli import main; "
        f"main(['ingest', 'bytes', {str(corpus)!r}, '--out', {str(tmp_path / 's.bx')!r}]); "
        "import bytropix.jobs.commands.inspect; sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_a_rerun_with_nothing_to_do_imports_little(corpus: Path, tmp_path: Path) -> None:
    """It answers at once: no kernels, codecs, clusters or readers of formats are imported for it."""
    words = ["ingest", "bytes", str(corpus), "--out", str(tmp_path / "s.bx"), "--resume"]
    time.sleep(0.1)
    assert main(words) == 0
    heavy = {"torch", "numba", "scipy", "zarr", "numcodecs", "pyarrow", "distributed", "fsspec", "datasketch"}
    code = (
        f"import sys; from bytropix.jobs.cli import main; main({words!r}); "
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stdout)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)

    assert done.stdout == "[]\n"
    assert "scan" not in done.stderr
