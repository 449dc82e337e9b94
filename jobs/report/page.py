"""The page: one HTML file without a network, the same bytes for the same store and seed.

manifest, quarantine, survey, passages -> values -> report.html.j2 | of a video store, reels -> videos.html.j2
values in a template, everything escaped -> page.html.j2 -> a file, as a whole

What a store holds is not to be trusted: names and text pass through Jinja's escaping, and the page's own policy allows
no request and no script but our own, which sorts tables and holds pictures still, and which it names by its hash.
"""

import base64
import hashlib
import os
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.jobs.drawing import COLOURS, clock
from bytropix.jobs.report import charts, contents, survey
from bytropix.jobs.report.passages import Passage, characters, choose_passages
from bytropix.jobs.report.video_page import video_values
from bytropix.jobs.store_report import length_counts, printable, refusals, split_rows, store_facts
from bytropix.patching import QUANTA_PER_BIT

GENERATOR = '<meta name="generator" content="bytropix inspect">'
CSS_COLOURS = [f"rgb({red},{green},{blue})" for red, green, blue in COLOURS]
LONGEST_NAME = 160  # characters of a name or a reason that are shown
MARKS = 3  # accents in a row that are drawn; more of them would climb over the lines above


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a patch that is drawn in one way."""

    kind: str
    """text, escape or newline."""
    text: str


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch as it is drawn."""

    tint: int
    says: str
    pieces: list[Piece]


def write_page(path: Path, store: Store, *, samples: int, seed: int) -> None:
    """Write the page of a store, in place of an earlier page but of no other file.

    Raises:
        ConfigError: The folder is missing, something else is there, or the file cannot be written.
        StoreError: The store is damaged.
    """
    if path.is_dir():
        raise ConfigError(f"--html {path}: is a folder; name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ConfigError(f"--html {path}: there is no folder {path.parent}; make it first")
    beside = path.with_name(f".writing-{path.name}")
    try:
        if path.exists() and GENERATOR.encode() not in path.read_bytes()[:1024]:
            raise ConfigError(f"--html {path}: is there and is no report of bytropix; name another file or remove it")
        page = render(store, samples=samples, seed=seed)
        try:
            with beside.open("wb") as file:
                file.write(page.encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written ({error.strerror}); name another file") from error


def render(store: Store, *, samples: int, seed: int) -> str:
    """Return the page of a store, with this many passages, or videos in full, that `seed` chooses."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bytropix.jobs.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(size=charts.size, percent=charts.percent, span=charts.span, clock=clock, shown=shown)
    name, values = PAGES[store.manifest.kind]
    template = environment.get_template(name)
    script = _source(environment, "sort.js.j2") + _source(environment, "still.js.j2")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template.render(
        generator=Markup(GENERATOR),
        style=Markup(
            environment.get_template("style.css.j2").render(sources_open=contents.SOURCES_OPEN, colours=CSS_COLOURS)
        ),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        **values(store, samples, seed),
    )


def shown(name: object) -> str:
    """Return a name or a reason as it is shown: what cannot be printed escaped, the middle of a long one left out."""
    text = printable(str(name))
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[: LONGEST_NAME * 2 // 3]} … {text[-LONGEST_NAME // 3 :]}"


def _source(environment: jinja2.Environment, name: str) -> str:
    """Return one of our own files, which goes into the page as it is."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _values(store: Store, passages: int, seed: int) -> dict[str, Any]:
    """Return what the template shows."""
    manifest = store.manifest
    splits, counts, rows = split_rows(store), length_counts(store), contents.largest_sources(store)
    n_bytes, patches = sum(row["bytes"] for row in splits), sum(counts)
    disk = contents.disk_sizes(store)
    refused = refusals(store.quarantine())
    found = survey.entropies(store, seed)
    largest = rows[: contents.SOURCES_SHOWN]
    mean = n_bytes / max(patches, 1)
    facts = store_facts(store)
    tints = charts.TINTS
    return {
        "frame": charts.frame(),
        "settings": contents.settings(manifest.config),
        "facts": facts,
        "calibration": manifest.patcher["calibration"],
        "rule": manifest.patcher["config"],
        "measure": store.patcher().table.measure,
        "n_bytes": n_bytes,
        "documents": sum(row["documents"] for row in splits),
        "patches": patches,
        "mean": mean,
        "splits": splits,
        "disk": disk,
        "on_disk": sum(amount for _, amount in disk),
        "sources": largest,
        "sources_open": contents.SOURCES_OPEN,
        "sources_total": len(rows),
        "sources_rest": sum(row["bytes"] for row in rows[len(largest) :]),
        "folders": contents.by_folder(rows),
        "refused": refused[: contents.REASONS_SHOWN],
        "refused_total": manifest.quarantined,
        "reasons_rest": max(len(refused) - contents.REASONS_SHOWN, 0),
        "dropped": sorted(facts["dropped"].items(), key=lambda item: (-item[1], item[0])),
        "charts": [
            charts.document_chart(survey.document_lengths(store, seed)),
            charts.patch_chart(counts, mean),
            charts.entropy_chart(found, n_bytes),
            charts.place_chart(found),
        ],
        "tints": [f"< {tints[0]:g}", *(f"{low:g}-{high:g}" for low, high in pairwise(tints)), f"> {tints[-1]:g}"],
        "passages": [(passage, patches_of(passage)) for passage in choose_passages(store, passages, seed)],
        "seed": seed,
    }


def patches_of(passage: Passage) -> list[Patch]:
    """Return the patches of a passage, each tinted by the mean entropy of its bytes."""
    chars = characters(passage.text.tobytes())
    starts = [int(start) for start in np.flatnonzero(passage.starts)]
    found = []
    for begin, end in pairwise([*starts, len(passage.text)]):
        bits = float(passage.entropy[begin:end].mean()) / QUANTA_PER_BIT
        says = f"{end - begin} byte{'s' if end - begin > 1 else ''}, {bits:.2f} bits each"
        inside = [(char, escaped) for place, char, escaped in chars if begin <= place < end]
        found.append(Patch(charts.tint_of(bits), says, _pieces(inside)))
    return found


def _pieces(chars: list[tuple[str, bool]]) -> list[Piece]:
    """Return the characters of a patch, those drawn alike together.

    A mark that joins the character before it gets a dotted circle to stand on where it begins a patch.
    """
    pieces: list[Piece] = []
    marks = 0
    for number, (char, escaped) in enumerate(chars):
        marks = marks + 1 if unicodedata.category(char[0]) in ("Mn", "Me") else 0
        if marks > MARKS:
            char, escaped = char.encode("unicode_escape").decode(), True
        elif number == 0 and unicodedata.category(char[0]).startswith("M"):
            char = f"\u25cc{char}"
        kind = "newline" if char == "\n" else "escape" if escaped else "text"
        if pieces and pieces[-1].kind == kind:
            pieces[-1] = Piece(kind, pieces[-1].text + char)
        else:
            pieces.append(Piece(kind, char))
    return pieces


PAGES = {"bytes": ("report.html.j2", _values), "video": ("videos.html.j2", video_values)}
