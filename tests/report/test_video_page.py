"""The web page and the report of a store of video: strips, animations, scenes, tables; nothing takes it over."""

import base64
import html
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bytropix.datasets.store import Store, VideoLayout
from bytropix.jobs.cli import main
from bytropix.jobs.drawing import COLOURS, MOTION
from bytropix.jobs.report import reel, render
from bytropix.jobs.report.charts import span, span_chart
from bytropix.jobs.report.contents import disk_sizes
from bytropix.jobs.videos import all_videos, middle_stretch, spread_frames

MakeFilms = Callable[..., Store]
ADDRESS = re.compile(r"data:image/webp;base64,([\w+/=]+)")
VOID = {"meta", "link", "br", "img", "input", "image", "rect", "path"}


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.kinds: set[tuple[str, str]] = set()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        self._inside = [tag] if tag in ("style", "script") else []
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        self.kinds |= {(tag, name) for name, _ in attrs} | {(tag, "")}

    def handle_endtag(self, tag: str) -> None:
        """Leave a style or script."""
        self._inside = []

    def handle_data(self, data: str) -> None:
        """Keep the text that is to be seen."""
        if not self._inside:
            self.words += data

    def all(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        """Return the attributes of elements, of one class if it is given."""
        return [attrs for name, attrs in self.found if name == tag and (not kind or kind in attrs.get("class", ""))]


def picture(address: str) -> Image.Image:
    """Return the picture that an address holds."""
    return Image.open(io.BytesIO(base64.b64decode(ADDRESS.fullmatch(address)[1])))  # type: ignore[index]


@pytest.fixture(scope="module")
def text(films: Store) -> str:
    """Return the page of the store of films."""
    return render(films, samples=24, seed=0)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    """Return what it consists of."""
    return Page(text)


def test_each_video_has_a_strip_an_animation_and_its_scenes(page: Page) -> None:
    """Four videos: six frames each, or the one there is, a moving picture, a still one, a bar with a part a scene."""
    assert len(page.all("article", "reel")) == 4
    assert len(page.all("image")) == 3 * 6 + 1
    assert len(page.all("img", "moving")) == len(page.all("img", "poster")) == 4
    assert [len(page.all("rect", kind)) for kind in ("odd", "even")] == [4, 2]
    assert "2 scenes; cuts at 0:00.96" in page.words
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert all(attrs["aria-label"] for attrs in page.all("svg") if attrs.get("role") == "img")


def test_animations_play(page: Page, films: Store) -> None:
    """Each decodes with Pillow to the frames of the middle, endless, twice the stored size, with the boxes drawn in."""
    parts = films.video_parts("train")
    for attrs, video in zip(page.all("img", "moving"), all_videos(films), strict=True):
        _, frames = middle_stretch(video, reel.ANIMATED_FRAMES, reel.ANIMATED_RATE, films.video_parts(video.split))
        with picture(attrs["src"]) as moving:
            assert moving.n_frames == len(frames)
            assert moving.size == (int(attrs["width"]), int(attrs["height"])) == (256, 192)
            assert video.frames == 1 or (moving.info["loop"], moving.n_frames > 5) == (0, True)
            if video.split == "train" and video.pieces[0].part == 0:
                for number in (0, moving.n_frames - 1):
                    moving.seek(number)
                    image = np.asarray(moving.convert("RGB"), np.int64)
                    left, top = parts[0].motion(frames[number], frames[number] + 1)[0, 0, :2]
                    assert np.abs(image[round(2 * top) + 1, round(2 * left) + 1] - MOTION).max() < 90


def test_boxes_lie_over_the_strip_where_the_store_has_them(page: Page, films: Store) -> None:
    """Shapes over a frame are the boxes of that very frame: regions as rectangles, motion as corners; no padding."""
    parts = films.video_parts("train")
    video = all_videos(films)[0]
    shapes = iter([entry for entry in page.found if entry[0] in ("image", "rect", "path")])
    for place, frame in spread_frames(video, reel.STRIP_FRAMES):
        tag, attrs = next(shapes)
        assert (tag, attrs["width"], attrs["height"]) == ("image", "128", "96")
        with picture(attrs["href"]) as still:
            stored = parts[place].read_frames(frame, frame + 1)[0].astype(np.int64)
            assert np.abs(np.asarray(still.convert("RGB"), np.int64) - stored).mean() < 3
        found = [next(shapes) for _ in range(4)]
        regions, motion = parts[place].regions(frame, frame + 1)[0], parts[place].motion(frame, frame + 1)[0]
        for (tag, attrs), box in zip(found, [regions[0], regions[1], regions[3], motion[0]], strict=True):
            if tag == "rect":
                sides = [float(attrs[name]) for name in ("x", "y", "width", "height")]
                assert sides == pytest.approx([box[0], box[1], box[2] - box[0], box[3] - box[1]], abs=0.01)
            else:
                numbers = [float(number) for number in re.findall(r"[-\d.]+", attrs["d"])]
                assert sorted(set(numbers[2::4])) == pytest.approx([box[0], box[2]])
                assert sorted(set(numbers[1::4])) == pytest.approx([box[1], box[3]])
        assert [attrs["class"] for _, attrs in found] == ["c0", "c1", "c5", "c6"]


def test_the_page_says_what_the_store_holds(page: Page, films: Store) -> None:
    """Sizes, splits, regions, decoders, faults, every video, every refusal with its reason."""
    words = re.sub(r"\s+", " ", page.words)
    for said in (
        films.name,
        films.fingerprint,
        "4.12 s in 103 frames of 128 × 96, from 4 videos with 6 scenes",
        "zarr, frames as raw, format version 4",
        "8 frames, one every 4",
        "4 by hybrid (golden_cut, largest), and 2 that follow motion",
        "pyav 4",
        "3 bad packets and 2 corrupt frames in 1 of the videos",
        "Of 8 videos that came in, 4 are stored, 1 were dropped as asked, and 3 were refused",
        "truncated after ... frames",
        "films/cut.mp4",
        "truncated after 48 frames",
        "1920 × 1080",
        "films/long.mp4",
    ):
        assert said in words
    assert words.count("films/short.mp4") == 1


def test_nothing_in_a_store_becomes_markup(text: str, page: Page, make_films: MakeFilms, tmp_path: Path) -> None:
    """Elements and attributes are those of a store with harmless names; addresses are those of pictures."""
    films = {
        "train": (
            (("a.mp4", 0, (24, 16)), ("b.mp4", 0, (30,)), ("c.mp4", 0, (20,))),
            (("c.mp4", 20, (12,)),),
        ),
        "val": ((("d.mp4", 0, (1,)),),),
    }
    refused = [{"path": name, "reason": reason} for name, reason in (("x", "no"), ("y", "bad 7"), ("z", "bad 8"))]
    tame = Page(render(make_films(tmp_path / "tame.bx", films, refused=refused), samples=24, seed=0))
    addresses = {
        attrs[name] for _, attrs in page.found for name in ("src", "href", "action", "srcset") if name in attrs
    }

    assert page.kinds == tame.kinds
    assert [tag for tag, _ in page.found] == [tag for tag, _ in tame.found]
    assert {address for address in addresses if not ADDRESS.fullmatch(address)} == {
        "data:,", "#store", "#reels", "#videos", "#shapes", "#refused"
    }  # fmt: skip
    assert {char for char in text if not char.isprintable()} <= {"\n", "\xa0"}
    assert "one\\x1b[31m\\n\\u202e.mp4" in page.words
    assert "default-src 'none'" in text


def test_the_same_store_and_seed_give_the_same_page(films: Store, text: str) -> None:
    """Byte for byte; where only some are shown in full, another seed shows others, and all stand in the table."""
    few = [Page(render(films, samples=1, seed=seed)) for seed in range(4)]
    shown = {html.unescape(one.words.split("and the scenes.")[1].split("scene")[0]) for one in few}

    assert render(films, samples=24, seed=0) == text
    assert len(shown) > 1
    for one in few:
        assert len(one.all("article", "reel")) == 1
        assert "1 of 4 videos, drawn with seed" in one.words
        assert "films/long.mp4" in one.words
    assert Page(render(films, samples=0, seed=0)).all("article") == []


def test_the_page_stays_small(make_films: MakeFilms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many videos some are shown in full, as far as there is room for their pictures; the rest are in the table."""
    films = {"train": (tuple((f"{number:03}.mp4", 0, (3,)) for number in range(40)),)}
    store = make_films(tmp_path / "many.bx", films, shape=(32, 32))
    whole = Page(render(store, samples=24, seed=0))
    monkeypatch.setattr(reel, "BYTES", 20_000)
    text = render(store, samples=24, seed=0)
    page = Page(text)

    assert len(whole.all("article", "reel")) == 24
    assert 1 <= len(page.all("article", "reel")) < 24
    assert sum(len(found) for found in ADDRESS.findall(text)) < 20_000
    assert page.words.count(".mp4") >= 40
    assert len(text) < 120_000


@pytest.mark.parametrize(
    "layout",
    [VideoLayout(frame_codec="h264"), VideoLayout(frame_codec="zstd"), VideoLayout(format="webdataset")],
    ids=["h264", "zstd", "webdataset"],
)
def test_other_layouts_show_the_same(make_films: MakeFilms, page: Page, tmp_path: Path, layout: VideoLayout) -> None:
    """Whatever the frames are kept as: the same videos, boxes, scenes; the sizes on disk are those of the files."""
    store = make_films(tmp_path / "f.bx", layout=layout)
    another = Page(render(store, samples=24, seed=0))
    files = [path for path in store.path.rglob("*") if path.is_file() and path.name != "manifest.json"]

    assert [entry for entry in page.found if entry[0] == "path"] == [e for e in another.found if e[0] == "path"]
    assert len(another.all("img", "moving")) == 4
    assert f"{layout.format}, frames as {layout.used_codec}" in another.words
    assert sum(amount for _, amount in disk_sizes(store)) == sum(path.stat().st_size for path in files)


def test_an_empty_store_has_a_page(make_films: MakeFilms, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where everything was refused, page and report say so."""
    store = make_films(tmp_path / "none.bx", {}, refused=[{"path": "a.txt", "reason": "no video"}])
    words = Page(render(store, samples=24, seed=0)).words

    assert "There is no video to show." in words
    assert "a.txt" in words
    assert main(["inspect", store.url]) == 0
    assert "a.txt: no video" in capsys.readouterr().out


def test_videos_are_put_together_from_their_parts(films: Store) -> None:
    """The long one lies in two parts and is one video: its frames, seconds and scenes are those of both."""
    videos = all_videos(films)
    long = videos[2]

    assert [video.frames for video in videos] == [40, 30, 32, 1]
    assert [len(video.scenes) for video in videos] == [2, 1, 2, 1]
    assert [(piece.part, piece.start, piece.stop) for piece in long.pieces] == [(0, 70, 90), (1, 0, 12)]
    assert long.begins == pytest.approx([0, 0.8])
    assert [video.seconds for video in videos] == pytest.approx([1.6, 1.2, 1.28, 0.04])
    assert [place for place, _ in spread_frames(long, 32)] == [0] * 20 + [1] * 12
    assert spread_frames(long, 32)[19:21] == [(0, 89), (1, 0)]
    assert spread_frames(videos[3], 6) == [(0, 0)]


def test_the_report_for_people(films: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Splits, videos, decoders, faults, refusals by reason; no control character but newlines reaches the terminal."""
    assert main(["inspect", films.url]) == 0
    out = capsys.readouterr().out

    for said in (
        "frames of 128 x 96, codec raw: 3,796,992 bytes of pixels",
        "clips of 8 frames",
        "4 by hybrid",
        "0:01.60       40       2   25.00   1920x1080       5  films/walk.mp4",
        "4 by pyav; 3 bad packets and 2 corrupt frames in 1 of the videos",
        "2  truncated after ... frames",
        "films/cut.mp4: truncated after 48 frames",
    ):
        assert said in out
    assert not [char for char in out if not char.isprintable() and char != "\n"]


def test_the_report_as_json(films: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object with the same facts, also beside a page."""
    path = tmp_path / "r.html"
    assert main(["inspect", films.url, "--json", "--html", str(path), "--videos", "2"]) == 0
    out = capsys.readouterr().out
    facts: dict[str, Any] = json.loads(out)

    assert out.count("\n") == 1
    assert [row["videos"] for row in facts["splits"]] == [3, 1]
    assert (facts["frames"], facts["scenes"], facts["height"], facts["width"]) == (103, 6, 96, 128)
    assert facts["seconds"] == pytest.approx(4.12)
    assert (facts["codec"], facts["decoders"], facts["bad_packets"], facts["corrupt"]) == ("raw", {"pyav": 4}, 3, 2)
    assert facts["regions"]["decomposition"] == "hybrid"
    assert sorted(facts["quarantine_reasons"].values()) == [1, 2]
    assert len(facts["quarantine"]) == 3
    assert [row["frames"] for row in facts["videos"]] == [40, 30, 32, 1]
    assert len(Page(path.read_text("utf-8")).all("article", "reel")) == 2


def test_flags_of_the_other_kind_are_refused(films: Store, hostile: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Passages are of bytes, videos of video; the line says which flag is meant."""
    for store, flag, meant in ((films, "--passages", "--videos"), (hostile, "--videos", "--passages")):
        assert main(["inspect", store.url, flag, "3"]) == 2
        err = capsys.readouterr().err
        assert f"{flag} is not for" in err
        assert f"use {meant}" in err
    assert main(["inspect", films.url, "--videos", "-1"]) == 2


def test_lengths_are_drawn_by_doublings() -> None:
    """Bars stand for 1 to 2, 2 to 4 ... seconds; each says its share; there is a chart of no videos at all."""
    chart = span_chart("Length", [1.0, 1.9, 2.0, 7.99, 8.0], "videos")

    assert [bar.says.split(",")[0] for bar in chart.bars] == [
        "1 s to 2 s: 2 videos", "2 s to 4 s: 1 videos", "4 s to 8 s: 1 videos", "8 s to 16 s: 1 videos"
    ]  # fmt: skip
    assert chart.mark is not None
    assert chart.mark[1] == "median 2 s"
    assert span_chart("Length", [], "videos").mark is None
    assert [span(value) for value in (0, 0.04, 90, 7200, 200_000)] == ["0 s", "40 ms", "1.5 min", "2 h", "2.31 d"]


def test_every_colour_of_the_page_is_that_of_the_films(text: str) -> None:
    """Shapes over the strip take the very colours that are drawn into animations and clips."""
    for number, (red, green, blue) in enumerate(COLOURS):
        assert f".c{number} {{ --box: rgb({red},{green},{blue}); }}" in text
