"""`bytropix inspect`: what is in a store, and passages with patch borders."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import Store
from bytropix.jobs.cli import main
from bytropix.jobs.commands.inspect import show
from bytropix.jobs.report import Passage, choose_passages
from bytropix.jobs.store_report import length_counts, printable, source_rows, split_rows


def passage(text: bytes, starts: list[int], entropy: int = 64) -> Passage:
    """Return a passage with patches at `starts`."""
    flags = np.isin(np.arange(len(text)), starts)
    values = np.full(len(text), entropy, np.uint8)
    return Passage(split="val", part="0", begin=0, text=np.frombuffer(text, np.uint8), entropy=values, starts=flags)


def test_tables_hold_the_whole_store(shared_store: Path) -> None:
    """Bytes, documents and patches by split, by source and by length add up to the same."""
    store = Store.open(shared_store)
    splits, sources, counts = split_rows(store), source_rows(store), length_counts(store)
    n_bytes, patches = sum(row["bytes"] for row in splits), sum(row["patches"] for row in splits)

    assert [row["source"].split("/", 1)[1] for row in sources] == ["a.txt", "line.txt", "more/b.txt", "noise.bin"]
    assert n_bytes == sum(row["bytes"] for row in sources) == sum(k * count for k, count in enumerate(counts))
    assert patches == sum(row["patches"] for row in sources) == sum(counts)
    assert sum(row["documents"] for row in splits) == sum(row["documents"] for row in sources)
    assert n_bytes == sum(source.size for source in store.manifest.sources)


def test_text_report(shared_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Splits, sources, histogram, quarantine and passages are all there, and no control character but newlines."""
    code = main(["inspect", str(shared_store), "--passages", "4"])
    out = capsys.readouterr().out

    assert code == 0
    for word in ("codec zstd", "rule entropy", "train", "val", "corpus/noise.bin", "corpus/empty.txt: empty", "####"):
        assert word in out
    assert len(re.findall(r"^(?:train|val)/\d+\.zarr, bytes", out, re.MULTILINE)) == 4
    assert not [char for char in out if not char.isprintable() and char != "\n"]


def test_json_report_is_whole(shared_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object with everything; the same seed shows the same passages, another one others."""
    reports = []
    for seed in ("0", "0", "1"):
        assert main(["inspect", str(shared_store), "--json", "--seed", seed]) == 0
        reports.append(json.loads(capsys.readouterr().out))

    assert reports[0] == reports[1]
    assert reports[0]["passages"] != reports[2]["passages"]
    assert len(reports[0]["sources"]) == 4
    assert reports[0]["quarantine"] == [{"bytes_read": 0, "path": "corpus/empty.txt", "reason": "empty"}]


def test_passages_are_stretches_of_a_document(shared_store: Path) -> None:
    """A passage begins with a patch, lies in one document, and holds what the store holds there."""
    store = Store.open(shared_store)
    parts = {(part.split, part.name): part for split in store.splits for part in store.parts(split)}
    for found in choose_passages(store, 50, seed=3):
        part = parts[found.split, found.part]

        assert found.starts[0]
        assert found.text.tobytes() == part.read("bytes", found.begin, found.end).tobytes()
        assert not any(found.begin < end < found.end for end in part.doc_ends.tolist())


def test_borders_and_escapes() -> None:
    """Borders stand before patches; control bytes, broken UTF-8 and odd spaces never reach the terminal."""
    text = b"ab\x1b[2J" + "é\u202e".encode() + b"\xff\xc3\n\\"

    assert show(passage(text, [0, 2, 6, 11]), colour=False) == "ab|\\x1b[2J|é\\u202e|\\xff\\xc3\\n\n\\"


def test_colour_follows_entropy() -> None:
    """Each character is coloured by its entropy, and every colour is ended."""
    certain, surprising = (show(passage(b"a", [0], entropy), colour=True) for entropy in (0, 254))

    assert certain != surprising
    assert all(re.fullmatch(r"\x1b\[38;5;\d+ma\x1b\[0m", shown) for shown in (certain, surprising))


@pytest.mark.parametrize("variable", [None, "NO_COLOR"])
def test_colour_only_where_wanted(
    shared_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str | None
) -> None:
    """A terminal gets colours unless NO_COLOR is set."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    main(["inspect", str(shared_store)])

    assert ("\x1b[38;5;" in capsys.readouterr().out) == (variable is None)


def test_names_cannot_command_the_terminal() -> None:
    """A name with control characters or bytes that are no text is shown escaped."""
    assert printable("a\x1b[31m\n\udce9é") == "a\\x1b[31m\\n\\udce9é"


def test_missing_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line."""
    code = main(["inspect", str(tmp_path / "gone.bx")])

    assert (code, capsys.readouterr().err.count("\n")) == (2, 1)
