"""A store that has been harmed is an error that says where, before a wrong byte is given."""

import json
from collections import Counter
from pathlib import Path

import google_crc32c

from bytropix.datasets.store import PartLayout
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.jobs.bench.fault_table import harm, suffer
from bytropix.jobs.bench.faults import NAMED, Fault
from bytropix.jobs.bench.faults_page import page
from bytropix.jobs.bench.forge import vouched
from bytropix.jobs.bench.tally import rows_of
from bytropix.jobs.bench.victim import LAYOUTS, files_of, make_victim

PROJECT = Path(__file__).resolve().parents[2]
MAY_ALSO = {
    ("one bit flipped in a header", "WebDataset"): ("unused",),
    ("one bit flipped in padding", "WebDataset"): ("unused",),
    ("an older manifest in place", ""): ("older",),
    ("random", ""): ("unused", "older"),
}


def test_every_fault_is_named_before_a_wrong_byte(tmp_path: Path) -> None:
    """Two faults of each kind and twenty random ones in each layout; tar headers carry none of our bytes."""
    tally, failures = harm(tmp_path, each=2, random=20)

    assert failures == []
    for kind, found in tally.items():
        for layout, outcomes in found.items():
            assert outcomes.total() == (20 if kind == "random" else 2)
            assert set(outcomes) <= {"named", *MAY_ALSO.get((kind, layout), MAY_ALSO.get((kind, ""), ()))}
    assert tally["one bit flipped in a header"]["WebDataset"] == {"unused": 2}
    assert set(tally["one bit flipped in an index"]) == {"Zarr zstd", "WebDataset"}
    assert all(row.met(target) for row in rows_of(tally, failures) for target in row.targets)


def test_wrong_data_would_be_found_out(tmp_path: Path) -> None:
    """Where metadata and manifest vouch for a changed byte, no reader can tell; the comparison with the truth does."""
    victim = make_victim(tmp_path / "s.bx", PartLayout(codec="none"))
    name = "parts/train/00000.zarr/bytes/c/0"
    data = bytearray(victim.files[name])
    data[1000] ^= 1
    flipped = {name: bytes(data)}
    meta = json.loads(victim.files["parts/train/00000.zarr/bytes/zarr.json"])
    meta["attributes"]["block_crc32c"][0] = google_crc32c.value(bytes(data[:BLOCK_BYTES]))
    forged = vouched(victim.files, flipped | {"parts/train/00000.zarr/bytes/zarr.json": json.dumps(meta).encode()})

    assert suffer(victim, Fault("flip", flipped), streamed=True) == ("named", "")
    assert suffer(victim, Fault("forged", forged)) == ("wrong", "WrongDataError: block 0 of bytes of 00000.zarr")
    assert suffer(victim, Fault("forged", forged), streamed=True) == ("wrong", "WrongDataError: a batch")
    assert files_of(victim.path) == victim.files


def test_a_manifest_with_younger_ones_kept_is_named(tmp_path: Path) -> None:
    """Version 1 in the place of version 3 is noticed by version 2, which is kept; version 2 reads as version 2."""
    victim = make_victim(tmp_path / "s.bx", PartLayout(codec="none"))
    older = {number: {"manifest.json": victim.files[f"versions/0000{number}.json"]} for number in (1, 2)}

    assert suffer(victim, Fault("older", older[1])) == ("named", "")
    assert suffer(victim, Fault("older", older[2])) == ("older", "")


def test_the_page_in_the_docs_has_the_rows_of_the_bench() -> None:
    """docs/faults.md is what the bench writes: the same kinds and layouts, and nothing in it went wrong."""
    written = (PROJECT / "docs" / "faults.md").read_text("utf-8")
    tally = {kind: {layout: Counter({"named": 40}) for layout in LAYOUTS} for kind in (*NAMED, "random")}
    streams = {checks: {layout: Counter({"named": 334}) for layout in LAYOUTS} for checks in ("raise", "quarantine")}
    made = page(tally, streams, each=40, random=1000, newest=3)

    assert "WRONG" not in written
    assert [_first(line) for line in written.splitlines()] == [_first(line) for line in made.splitlines()]


def _first(line: str) -> str:
    """Return a line without figures, of a row of the table its first cell alone."""
    return line.split("|")[1] if line.startswith("|") else "".join(c for c in line if not c.isdigit())
