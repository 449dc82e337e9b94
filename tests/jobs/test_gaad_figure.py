"""The picture of region maps in the documentation is the one that the code draws."""

from pathlib import Path
from xml.etree import ElementTree

from bytropix.gaad import decompose
from bytropix.jobs.gaad_figure import PANELS, svg

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "gaad.svg"


def test_picture_is_what_the_code_draws() -> None:
    """docs/gaad.svg is up to date; `python -m bytropix.jobs.gaad_figure docs/gaad.svg` remakes it."""
    assert PICTURE.read_text("utf-8") == svg()


def test_every_region_is_drawn() -> None:
    """The picture has a frame for every map and a box for each of its valid regions."""
    drawn = ElementTree.fromstring(svg()).iter("{http://www.w3.org/2000/svg}rect")
    maps = [decompose(224, 126, panel.config) for panel in PANELS]

    assert len(list(drawn)) == sum(1 + regions.count for regions in maps)
