"""The page in a real browser without a network: it fits a phone and a desk, asks for nothing, runs no other script."""

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bytropix.datasets.store import Store
from bytropix.jobs.report import write_page

if TYPE_CHECKING:
    from conftest import Browser

PHONE, DESK = (390, 844), (1280, 900)
# What sticks out of the page, leaving out what scrolls in a box of its own.
OVERHANG = """
[...document.querySelectorAll("body *")]
  .filter((element) => !element.parentElement.closest(".scroll, svg"))
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5)
  .map((element) => element.outerHTML.slice(0, 90))
"""


@pytest.fixture(scope="module")
def page(hostile: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the hostile store."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, hostile, samples=20, seed=0)
    return path


def pixels(png: bytes) -> tuple[int, int, set[bytes]]:
    """Return width, height and the distinct rows of a PNG, still filtered: a blank picture has one or two."""
    width, height = struct.unpack(">II", png[16:24])
    data, place = b"", 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += length + 12
    raw = zlib.decompress(data)
    step = len(raw) // height
    return width, height, {raw[row * step : (row + 1) * step] for row in range(height)}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("window", [PHONE, DESK], ids=["phone", "desk"])
def test_the_page_fits_its_window(browser: "Browser", page: Path, window: tuple[int, int], dark: bool) -> None:
    """Nothing sticks out sideways, folds opened or not; there is something to see, on a ground of the asked kind."""
    browser.open(page.as_uri(), width=window[0], height=window[1], dark=dark)

    for _ in range(2):
        assert browser.evaluate("innerWidth") == window[0]
        assert browser.evaluate("document.scrollingElement.scrollWidth") <= window[0]
        assert browser.evaluate(OVERHANG) == []
        browser.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    width, height, rows = pixels(browser.screenshot())
    assert (width, height) == window
    assert len(rows) > 100
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 300) == dark


def test_the_page_asks_for_nothing(browser: "Browser", page: Path) -> None:
    """It is the only thing that is loaded, nothing is refused by its policy, and no script but its own ran."""
    browser.open(page.as_uri(), width=1280, height=900)
    browser.evaluate("scrollTo(0, document.body.scrollHeight)")
    complaints = [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]

    assert browser.requests == [page.as_uri()]
    assert complaints == []
    assert browser.evaluate("document.title").endswith("a bytropix store")
    assert browser.evaluate("document.scripts.length") == 1
    assert browser.evaluate("document.images.length") == 0


def test_the_policy_bites(browser: "Browser", page: Path, tmp_path: Path) -> None:
    """Were something of a store to become markup after all, its script would not run, its picture not be fetched."""
    attack = "<script>document.title='owned'</script><img src='http://127.0.0.1:9/leak' onerror='document.title=1'>"
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text("utf-8").replace("<main>", f"<main>{attack}", 1), "utf-8")
    browser.open(broken.as_uri(), width=1280, height=900)

    assert browser.evaluate("document.images.length") == 1
    assert browser.evaluate("document.title").endswith("a bytropix store")
    assert [failed["blockedReason"] for failed in browser.failures] == ["csp"]


def test_sources_can_be_sorted(browser: "Browser", page: Path) -> None:
    """A click on a head sorts by that column, names from A, numbers from the largest; another one turns it round."""
    browser.open(page.as_uri(), width=1280, height=900)
    head = "document.querySelectorAll('table.sortable th button')"
    column = "[...document.querySelectorAll('table.sortable tbody td:nth-child({})')].map((cell) => cell.{})"
    sizes = [float(value) for value in browser.evaluate(column.format(2, "dataset.value"))]
    assert sizes == sorted(sizes, reverse=True)

    for reverse in (True, False):
        browser.evaluate(f"{head}[3].click()")
        means = [float(value) for value in browser.evaluate(column.format(4, "dataset.value"))]
        assert means == sorted(means, reverse=reverse)
    browser.evaluate(f"{head}[0].click()")
    names = browser.evaluate(column.format(1, "textContent"))
    assert len(names) == 7
    assert names == sorted(names, key=lambda name: name.encode("utf-16-be"))


def test_hebrew_reads_from_the_right(browser: "Browser", page: Path) -> None:
    """A passage has the direction of its first letters, and leaves that of the page as it is."""
    browser.open(page.as_uri(), width=390, height=844)
    directions = browser.evaluate(
        "[...document.querySelectorAll('.text')].map((text) => "
        "[/^[^a-z]*[\\u0590-\\u06ff]/i.test(text.textContent), getComputedStyle(text).direction])"
    )

    assert {direction for right, direction in directions if right} == {"rtl"}
    assert {direction for right, direction in directions if not right} == {"ltr"}
    assert browser.evaluate("getComputedStyle(document.body).direction") == "ltr"


def test_the_page_prints(browser: "Browser", page: Path) -> None:
    """On paper nothing is cut off at the side."""
    browser.open(page.as_uri(), width=720, height=1000)
    browser.ask("Emulation.setEmulatedMedia", media="print")

    assert browser.evaluate("document.scrollingElement.scrollWidth") <= 720
    assert browser.evaluate(OVERHANG) == []
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
