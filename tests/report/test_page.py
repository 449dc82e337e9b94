"""The web page of a store: what it says, that nothing in a store can take it over, and where it is written."""

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import PartLayout, Store
from bytropix.jobs.cli import main
from bytropix.jobs.report import Passage, choose_passages, render, survey
from bytropix.jobs.report.contents import REASONS_SHOWN, SOURCES_SHOWN, by_folder, disk_sizes
from bytropix.jobs.report.page import MARKS, patches_of, shown
from bytropix.jobs.report.survey import document_lengths, entropies
from bytropix.jobs.store_report import length_counts, refusals

Make = Callable[..., Store]
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.open: list[str] = []
        self.torn: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element without content."""
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        """Note an element that ends where another is open."""
        if not self.open or self.open.pop() != tag:
            self.torn.append(tag)

    def handle_data(self, data: str) -> None:
        """Keep the text that is to be seen."""
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words += data


def passage(text: bytes, starts: list[int], entropy: int = 64) -> Passage:
    """Return a passage with patches at `starts`."""
    flags = np.isin(np.arange(len(text)), starts)
    values = np.full(len(text), entropy, np.uint8)
    return Passage(split="val", part="0", begin=0, text=np.frombuffer(text, np.uint8), entropy=values, starts=flags)


def test_the_page_says_what_the_manifest_says(hostile: Store) -> None:
    """Name, fingerprint, sizes, splits, sources, patches, what was dropped and why something was refused."""
    page = Page(render(hostile, samples=4, seed=0))
    n_bytes, patches = sum(part.n_bytes for part in hostile.manifest.parts), sum(length_counts(hostile))

    for said in (
        hostile.name,
        hostile.fingerprint,
        f"{n_bytes:,}",
        f"{patches:,} patches",
        f"{n_bytes / patches:.2f} bytes on average",
        "7 sources",
        "Of 17 documents that came in, 7 are stored, 7 were dropped as asked, and 3 were refused",
        "dropped: duplicate 5",
        "a path that climbs out",
        "dir/a.zip : ../../etc/passwd",
        "zarr, codec zstd, format version 2",
        "dir/עברית.txt",
    ):
        assert said in page.words
    assert page.tags["article"] == 4
    assert page.tags["svg"] == 4


def test_nothing_in_a_store_becomes_markup(hostile: Store, make_store: Make, tmp_path: Path) -> None:
    """Elements and attributes are those of a harmless store: names, text and reasons stay text."""
    documents = {f"dir/{k}": f"a harmless text {k}\n\0".encode() * 60 for k in range(7)}
    refused = [{"path": "a", "reason": "empty"}, {"path": "b", "reason": "after 3"}, {"path": "c", "reason": "after 4"}]
    tame = Page(render(make_store(tmp_path / "s.bx", documents, refused=refused, dropped={"a": 1}), samples=9, seed=0))
    text = render(hostile, samples=40, seed=0)
    page = Page(text)
    addresses = {value for _, name, value in page.attributes if name in ("src", "href", "action", "data", "srcset")}

    assert set(page.tags) == set(tame.tags)
    assert {entry[:2] for entry in page.attributes} == {entry[:2] for entry in tame.attributes}
    assert (page.tags["script"], page.tags["style"], page.torn, page.open) == (1, 1, [], [])
    assert addresses == {"data:,", "#store", "#shapes", "#sources", "#refused", "#passages"}
    assert "default-src 'none'" in text
    assert "{{ 7 * 7 }}" in page.words


def test_no_control_character_reaches_the_page(hostile: Store) -> None:
    """Bytes that are no text, marks that turn the direction of writing and control characters stand as escapes."""
    text = render(hostile, samples=60, seed=0)

    assert {char for char in text if not char.isprintable()} <= {"\n", "\xa0"}
    assert {"\\x00", "\\xff", "\\x1b", "\\u202e"} <= set(re.findall(r"\\x..|\\u....", text))


def test_names_of_either_direction_are_isolated(hostile: Store) -> None:
    """What a store names stands in an element that keeps its direction of writing to itself."""
    text = render(hostile, samples=20, seed=0)

    for name in ("dir/עברית.txt", "dir/العربية.txt"):
        found = text.count(name)
        assert found > 1
        assert found == len(re.findall(f"<bdi>(?:row of )?{name}</bdi>", text))
    assert text.count('<p class="text" dir="auto">') == 20


def test_the_same_store_and_seed_give_the_same_page(hostile: Store, tmp_path: Path) -> None:
    """Byte for byte; another seed shows other passages; another codec only changes what is said of the files."""
    place = hostile.path
    pages = []
    for name, seed in (("a.html", "0"), ("b.html", "0"), ("c.html", "1")):
        assert main(["inspect", str(place), "--html", str(tmp_path / name), "--seed", seed]) == 0
        pages.append((tmp_path / name).read_bytes())

    assert pages[0] == pages[1]
    assert pages[0] != pages[2]
    assert str(tmp_path).encode() not in pages[0]


@pytest.mark.parametrize(
    "layout", [PartLayout(codec="none"), PartLayout(format="webdataset")], ids=["none", "webdataset"]
)
def test_passages_do_not_depend_on_the_format(
    hostile: Store, make_store: Make, tmp_path: Path, layout: PartLayout
) -> None:
    """Whatever holds the parts: same documents, same passages, same histograms."""
    parts = hostile.parts("train")
    documents = {}
    for part in parts:
        text = part.arrays().text.tobytes()
        ends = [0, *part.doc_ends.tolist()]
        names = [row["source"] for row in part.doc_meta()]
        documents |= {name: text[begin:end] for name, begin, end in zip(names, ends[:-1], ends[1:], strict=True)}
    other = make_store(tmp_path / "s.bx", documents, layout=layout)
    one, another = ([patches_of(found) for found in choose_passages(store, 10, 0)] for store in (hostile, other))

    assert one == another
    assert entropies(other, 0) == entropies(hostile, 0)
    assert document_lengths(other, 0) == document_lengths(hostile, 0)


def test_sizes_by_array_are_those_of_the_files(hostile: Store) -> None:
    """They add up to everything on disk but the manifest itself."""
    sizes = dict(disk_sizes(hostile))
    files = [path for path in hostile.path.rglob("*") if path.is_file() and path.name != "manifest.json"]

    assert sum(sizes.values()) == sum(path.stat().st_size for path in files)
    said = {"bytes", "entropy", "patch starts", "document ends", "document origins", "entropy table", "quarantine"}
    assert said <= set(sizes)
    assert sizes["bytes"] == sum(path.stat().st_size for path in files if "bytes" in path.parts)


@pytest.mark.parametrize("stretch", [survey.STRETCH_BYTES, 1024], ids=["whole", "stretches"])
def test_surveys_hold_the_whole_of_a_small_store(hostile: Store, monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    """Every document, every byte and every patch is counted once, in however many stretches it is read."""
    monkeypatch.setattr(survey, "STRETCH_BYTES", stretch)
    lengths, found = document_lengths(hostile, 0), entropies(hostile, 0)
    parts = hostile.parts("train")
    entropy = np.concatenate([part.read("entropy", 0, part.n_bytes) for part in parts])
    first = np.concatenate([part.arrays().starts for part in parts])
    sizes = [int(size) for part in parts for size in np.diff(part.doc_ends, prepend=0)]

    assert lengths.doublings == np.bincount([size.bit_length() - 1 for size in sizes]).tolist()
    assert (lengths.documents, lengths.longest) == (7, max(sizes))
    assert found.quanta == np.bincount(entropy, minlength=256).tolist()
    assert found.mean_bits == pytest.approx(entropy.mean() / 32)
    assert found.by_place[0] == pytest.approx(entropy[first].mean() / 32)


def test_a_large_store_is_sampled(make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a set number of parts and stretches are read, the seed says which, and the page says so."""
    monkeypatch.setattr(survey, "STRETCHES", 8)
    monkeypatch.setattr(survey, "STRETCHED_PARTS", 3)
    monkeypatch.setattr(survey, "PARTS", 2)
    size = survey.STRETCH_BYTES + 1000
    store = make_store(tmp_path / "s.bx", {f"{k}": bytes([k]) * size for k in range(5)}, in_part=1)
    found, lengths = entropies(store, 0), document_lengths(store, 0)

    assert 3 * 1000 < found.n_bytes <= 3 * size
    assert found == entropies(store, 0)
    assert (lengths.parts, lengths.of_parts, lengths.documents) == (2, 5, 2)
    assert "from 2 of 5 parts" in render(store, samples=0, seed=0)


def test_thousands_of_sources_are_cut(make_store: Make, tmp_path: Path) -> None:
    """The largest are listed, the rest is said in one line, and the page stays small."""
    many = SOURCES_SHOWN + 700
    rows = [{"path": f"{k}.gz", "reason": f"{'x' * (k % 200)} broken", "bytes_read": 0} for k in range(3000)]
    documents = {f"folder{k % 90}/{k:05d}.txt": b"word " * (k + 1) for k in range(many)}
    text = render(make_store(tmp_path / "s.bx", documents, refused=rows, in_part=many), samples=20, seed=0)
    page = Page(text)

    assert f"The {SOURCES_SHOWN:,} largest are here; the other 700 have" in page.words
    assert "00699.txt" not in page.words
    assert "00700.txt" in page.words
    assert f"{200 - REASONS_SHOWN} more reasons" in page.words
    assert len(text) < 700_000


def test_long_names_are_cut_in_the_middle(hostile: Store) -> None:
    """A name of a thousand characters shows how it begins and ends."""
    name = "dir/" + "long" * 200

    assert len(shown(name)) < 170
    assert shown(name).startswith("dir/longlong")
    assert shown(name).endswith("longlong")
    assert shown(name) in render(hostile, samples=20, seed=0)
    assert "long" * 50 not in render(hostile, samples=20, seed=0)


def test_refusals_of_one_kind_stand_together() -> None:
    """Reasons that differ in numbers alone are one row, the most frequent first, with a few examples."""
    rows = [{"path": f"{k}.gz", "reason": f"truncated after {k} bytes"} for k in range(9)]
    found = refusals([{"path": "a", "record": "b", "reason": "empty"}, *rows])

    assert [(group.reason, group.count) for group in found] == [("truncated after 0 bytes", 9), ("empty", 1)]
    assert found[0].examples[:2] == [("0.gz", "truncated after 0 bytes"), ("1.gz", "truncated after 1 bytes")]
    assert len(found[0].examples) == 5
    assert found[1].examples == [("a : b", "empty")]


def test_folders_go_as_deep_as_can_be_looked_at() -> None:
    """Folders are summed at the deepest level with few of them; the smallest ones together."""
    rows = [{"source": f"data/{k % 20}/{k}.txt", "bytes": k} for k in range(200)]
    found = by_folder(rows)

    assert found.rows[0] == ("data/19", sum(range(19, 200, 20)))
    assert (len(found.rows), found.rest) == (14, 6)
    assert sum(amount for _, amount in found.rows) + found.rest_amount == sum(range(200))


def test_passages_are_whole_patches(hostile: Store) -> None:
    """A passage begins with a patch and ends with one: no character is shown in half."""
    parts = {part.name: part for part in hostile.parts("train")}
    for found in choose_passages(hostile, 60, seed=5):
        starts, ends = parts[found.part].arrays().starts, parts[found.part].doc_ends

        assert found.starts[0]
        assert found.end in ends or starts[found.end]
        assert found.record == f"row of {found.source}"


def test_patches_are_tinted_by_their_entropy() -> None:
    """From certain to surprising the tint grows; each patch says its length and entropy."""
    tints = [patches_of(passage(b"abc", [0], entropy=32 * bits))[0] for bits in range(8)]

    assert [patch.tint for patch in tints] == [0, 1, 3, 5, 6, 7, 7, 7]
    assert tints[2].says == "3 bytes, 2.00 bits each"


def test_marks_cannot_climb() -> None:
    """An accent that begins a patch gets something to stand on; accents beyond a few are escaped."""
    text = ("a" + "\u0301" * 6 + "\u0301b").encode()
    first, second = patches_of(passage(text, [0, len(text) - 3]))

    assert [(piece.kind, piece.text) for piece in first.pieces] == [
        ("text", "a" + "\u0301" * MARKS),
        ("escape", "\\u0301" * (6 - MARKS)),
    ]
    assert [piece.text for piece in second.pieces] == ["\u25cc\u0301b"]


def test_a_file_of_another_kind_is_left_alone(
    hostile: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a page of ours is replaced; everything else ends in one line and exit code 2, with nothing written."""
    theirs, ours = tmp_path / "theirs.html", tmp_path / "ours.html"
    theirs.write_text("<html>mine</html>")
    assert main(["inspect", str(hostile.path), "--html", str(ours)]) == 0
    before = ours.read_bytes()
    assert main(["inspect", str(hostile.path), "--html", str(ours), "--passages", "1"]) == 0
    assert ours.read_bytes() != before
    capsys.readouterr()

    for target in (theirs, tmp_path, tmp_path / "gone" / "r.html"):
        assert main(["inspect", str(hostile.path), "--html", str(target)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert theirs.read_text() == "<html>mine</html>"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.html", "theirs.html"]


def test_json_beside_the_page(hostile: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` still prints one object and nothing else, and the page is written too."""
    page = tmp_path / "r.html"
    assert main(["inspect", str(hostile.path), "--html", str(page), "--json"]) == 0
    out = capsys.readouterr().out

    assert out.count("\n") == 1
    assert out.startswith("{")
    assert page.read_text("utf-8").startswith("<!doctype html>")
