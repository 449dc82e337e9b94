"""The page of a store of video in a real browser without a network: it fits, moves, draws boxes where they belong."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bytropix.datasets.store import Store
from bytropix.jobs.drawing import MOTION, PATCH
from bytropix.jobs.report import write_page
from bytropix.jobs.videos import all_videos, spread_frames

if TYPE_CHECKING:
    from conftest import Browser

PHONE, DESK = (390, 844), (1280, 900)
OVERHANG = """
[...document.querySelectorAll("body *")]
  .filter((element) => !element.parentElement.closest(".scroll, svg"))
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5)
  .map((element) => element.outerHTML.slice(0, 90))
"""
SHOWN = "[...document.querySelectorAll('{}')].filter((one) => getComputedStyle(one).display !== 'none').length"
FIRST_FRAME = "document.querySelector('.strip svg')"


@pytest.fixture(scope="module")
def page(films: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the store of films."""
    path = tmp_path_factory.mktemp("page") / "films.html"
    write_page(path, films, samples=24, seed=0)
    return path


def first_frame(browser: "Browser") -> np.ndarray:
    """Return what is to be seen of the first frame of the first strip, i64 (h, w, 3)."""
    browser.evaluate(f"{FIRST_FRAME}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    place = browser.evaluate(
        f"(({{x, y, width, height}}) => [x, y, width, height])({FIRST_FRAME}.getBoundingClientRect())"
    )
    x, y, width, height = (round(value) for value in place)
    with Image.open(io.BytesIO(browser.screenshot())) as whole:
        return np.asarray(whole.convert("RGB").crop((x, y, x + width, y + height)), np.int64)


def nearest(image: np.ndarray, row: float, column: float, colour: tuple[int, int, int]) -> int:
    """Return how far the nearest pixel about a place is from a colour."""
    rows, columns = round(row), round(column)
    around = image[max(rows - 3, 0) : rows + 4, max(columns - 3, 0) : columns + 4]
    return int(np.abs(around - colour).max(axis=2).min())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("window", [PHONE, DESK], ids=["phone", "desk"])
def test_the_page_fits_its_window(browser: "Browser", page: Path, window: tuple[int, int], dark: bool) -> None:
    """Nothing sticks out sideways, folds opened or not; every picture is there, on a ground of the asked kind."""
    browser.open(page.as_uri(), width=window[0], height=window[1], dark=dark)

    for _ in range(2):
        assert browser.evaluate("innerWidth") == window[0]
        assert browser.evaluate("document.scrollingElement.scrollWidth") <= window[0]
        assert browser.evaluate(OVERHANG) == []
        browser.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    assert browser.evaluate("[...document.images].filter((one) => one.naturalWidth === 256).length") == 8
    least = browser.evaluate("Math.min(...[...document.querySelectorAll('.strip svg')].map((one) => one.clientWidth))")
    assert least >= 90
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 300) == dark


def test_the_page_asks_for_nothing(browser: "Browser", page: Path) -> None:
    """It is the only thing that is loaded but for the pictures it holds, and nothing is refused by its policy."""
    browser.open(page.as_uri(), width=1280, height=900)
    browser.evaluate("scrollTo(0, document.body.scrollHeight)")
    complaints = [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]

    assert {url for url in browser.requests if not url.startswith("data:image/webp;base64,")} == {page.as_uri()}
    assert complaints == []
    assert browser.evaluate("document.title").endswith("a bytropix store")
    assert browser.evaluate("document.scripts.length") == 1


def test_boxes_are_seen_where_the_store_has_them(browser: "Browser", page: Path, films: Store) -> None:
    """On the screen the corners of the walking square and the patch have their colours, and go with their switches."""
    (place, frame), *_ = spread_frames(all_videos(films)[0], 6)
    x0, y0, x1, y1 = films.video_parts("train")[place].motion(frame, frame + 1)[0, 0].tolist()
    browser.open(page.as_uri(), width=1280, height=900)
    before = first_frame(browser)
    scale = before.shape[1] / 128
    corners = [(y * scale, x * scale) for y in (y0, y1) for x in (x0, x1)]
    patch = (18 * scale, 88 * scale)

    assert before.shape[0] == pytest.approx(96 * scale, abs=1.5)
    assert max(nearest(before, *corner, MOTION) for corner in corners) < 70
    assert nearest(before, *patch, PATCH) < 70
    assert nearest(before, (y0 + y1) / 2 * scale, (x0 + x1) / 2 * scale, (230, 230, 220)) < 20
    browser.evaluate("document.getElementById('show-motion').click()")
    without = first_frame(browser)
    assert min(nearest(without, *corner, MOTION) for corner in corners) > 70
    assert nearest(without, *patch, PATCH) < 70
    browser.evaluate("document.getElementById('show-regions').click()")
    assert nearest(first_frame(browser), *patch, PATCH) > 70


def test_pictures_move_and_can_be_held(browser: "Browser", page: Path) -> None:
    """A switch that the keyboard reaches changes moving pictures for still ones; who wants less motion starts so."""
    browser.open(page.as_uri(), width=1280, height=900)
    assert (browser.evaluate(SHOWN.format(".moving")), browser.evaluate(SHOWN.format(".poster"))) == (4, 0)
    browser.evaluate("document.getElementById('show-moving').focus()")
    assert browser.evaluate("document.activeElement.labels[0].textContent.trim()") == "moving pictures"
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", windowsVirtualKeyCode=32, text=" ")
    assert (browser.evaluate(SHOWN.format(".moving")), browser.evaluate(SHOWN.format(".poster"))) == (0, 4)

    browser.ask(
        "Emulation.setEmulatedMedia", media="screen", features=[{"name": "prefers-reduced-motion", "value": "reduce"}]
    )
    browser.events.clear()
    browser.ask("Page.reload")
    while not any(event.get("method") == "Page.loadEventFired" for event in browser.events):
        browser.evaluate("1")
    assert browser.evaluate("document.getElementById('show-moving').checked") is False
    assert browser.evaluate(SHOWN.format(".moving")) == 0


def test_a_reader_hears_what_is_shown(browser: "Browser", page: Path) -> None:
    """Pictures have names in the tree that screen readers use: the frame's time and boxes, the scenes, the switches."""
    browser.open(page.as_uri(), width=1280, height=900)
    browser.ask("Accessibility.enable")
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    names = {node["name"]["value"] for node in nodes if not node["ignored"] and "name" in node}

    assert "Frame at 0:00.12 with 3 regions and 1 motion regions" in names
    assert "2 scenes; cuts at 0:00.96" in names
    assert {"regions", "motion regions", "moving pictures"} <= names
    assert "24 frames from 0:00.32 on, with their boxes, as a moving picture" in names


def test_tables_can_be_sorted(browser: "Browser", page: Path) -> None:
    """Videos come longest first and sort by name; refused files sort by reason."""
    browser.open(page.as_uri(), width=1280, height=900)
    column = "[...document.querySelectorAll('{} tbody td:first-child')].map((cell) => cell.textContent)"
    assert browser.evaluate(column.format("#videos"))[0].startswith("films/walk.mp4")
    browser.evaluate("document.querySelectorAll('#videos th button')[0].click()")
    names = browser.evaluate(column.format("#videos"))
    assert names == sorted(names)
    browser.evaluate("document.querySelectorAll('.refusals th button')[1].click()")
    assert browser.evaluate(column.format(".refusals"))[1:] == ["films/cut.mp4", "films/short.mp4"]
