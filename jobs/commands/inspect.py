"""`bytropix inspect`: what is in a store, how it is cut, and a few passages of it; of a store of video, which videos.

manifest -> tables, histogram        parts -> passages with patch borders, coloured by entropy | videos, scenes, faults
"""

import json
import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.jobs.report import Passage, characters, choose_passages, write_page
from bytropix.jobs.store_report import cut, length_counts, printable, source_rows, split_rows, store_facts
from bytropix.jobs.video_report import video_lines, video_report
from bytropix.patching import QUANTA_PER_BIT

PASSAGES = 3
PASSAGES_ON_PAGE = 20
VIDEOS_ON_PAGE = 24
BAR = 50
# 256-colour codes from certain to surprising: blue, green, yellow, red. They are legible on light and dark grounds.
COLOURS = (27, 33, 37, 71, 106, 136, 166, 196)
BITS_PER_COLOUR = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspect:
    """Show what is in a store."""

    store: tyro.conf.Positional[str]
    """The store: its folder or URL."""
    version: int | None = None
    """Which version of it; the newest unless you say."""
    html: Path | None = None
    """Write a web page to this file instead: sizes, sources, histograms, refusals, passages shaded by entropy or videos
    with their regions drawn in. It needs no network. An earlier page of ours is replaced, any other file is left
    alone."""
    passages: int | None = None
    """How many passages of a store of bytes to show: 3, or 20 on a web page, unless you say."""
    videos: int | None = None
    """How many videos a web page shows in full, of a store of video: 24 unless you say."""
    seed: int = 0
    """Chooses the passages or videos, and what is sampled of a large store."""
    json: bool = False
    """Print one JSON object with everything, long lists uncut, on stdout."""

    def __call__(self) -> int:
        """Print the report."""
        store = Store.open(self.store, self.version)
        video = store.manifest.kind == "video"
        count = self._count(video=video)
        if self.html is not None:
            write_page(self.html, store, samples=count, seed=self.seed)
            print(f"wrote {printable(str(self.html))}; open it in a browser", file=sys.stderr)
            if not self.json:
                return 0
        if video:
            report = video_report(store)
            lines = video_lines(report)
        else:
            report = _report(store)
            passages = choose_passages(store, PASSAGES if self.passages is None else self.passages, self.seed)
            report["passages"] = [_plain(passage) for passage in passages]
            lines = _lines(report) + _passage_lines(passages)
        text = json.dumps(report, sort_keys=True) if self.json else "\n".join(lines)
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        return 0

    def _count(self, *, video: bool) -> int:
        """Return how many samples a page shows.

        Raises:
            ConfigError: The number is negative, or of what the store has none of.
        """
        asked, other = (self.videos, self.passages) if video else (self.passages, self.videos)
        flag, wrong = ("--videos", "--passages") if video else ("--passages", "--videos")
        if other is not None:
            raise ConfigError(f"{wrong} is not for a store of {'video' if video else 'bytes'}; use {flag}")
        if asked is not None and asked < 0:
            raise ConfigError(f"{flag} must be 0 or more, got {asked}")
        return asked if asked is not None else VIDEOS_ON_PAGE if video else PASSAGES_ON_PAGE


def _passage_lines(passages: list[Passage]) -> list[str]:
    """Return passages for people."""
    colour = _has_colour()
    lines = []
    for passage in passages:
        lines += [
            "",
            f"{passage.split}/{passage.part}, bytes {passage.begin} to {passage.end}",
            show(passage, colour=colour),
        ]
    return lines


def show(passage: Passage, *, colour: bool) -> str:
    """Return a passage with | before each patch but the first; bytes that are no printable text are escaped."""
    shown = []
    for begin, char, _ in characters(passage.text.tobytes()):
        char = "\\n\n" if char == "\n" else char
        border = "|" if passage.starts[begin] and begin else ""
        if colour:
            step = min(int(passage.entropy[begin] / QUANTA_PER_BIT / BITS_PER_COLOUR), len(COLOURS) - 1)
            char = f"\x1b[38;5;{COLOURS[step]}m{char}\x1b[0m"
        shown.append(border + char)
    return "".join(shown)


def _has_colour() -> bool:
    """Return whether stdout is a terminal that shows colours and the user wants them."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if sys.platform == "win32":
        os.system("")
    return True


def _plain(passage: Passage) -> dict[str, Any]:
    """Return a passage as plain data."""
    return {
        "split": passage.split,
        "part": passage.part,
        "begin": passage.begin,
        "end": passage.end,
        "patches": show(passage, colour=False),
    }


def _report(store: Store) -> dict[str, Any]:
    """Return everything about a store as plain data."""
    manifest = store.manifest
    return {
        "store": store.url,
        **store_facts(store),
        "config": manifest.config,
        "patcher": manifest.patcher,
        "splits": split_rows(store),
        "sources": source_rows(store),
        "source_files": len(manifest.sources),
        "patch_lengths": length_counts(store),
        "quarantine": store.quarantine(),
    }


def _lines(report: dict[str, Any]) -> list[str]:
    """Return the report for people, long lists cut."""
    rule, level = report["patcher"]["config"], report["patcher"]["calibration"]
    lines = [
        f"{printable(report['store'])}: {report['kind']}, version {report['version']}, {report['format']} of format "
        f"version {report['format_version']}, codec {report['codec']}",
        f"patches by rule {rule['rule']}, {rule['min_patch']} to {rule['max_patch']} bytes, aimed at a mean of "
        f"{rule['mean_patch']:g}; level {level['level']}, which gave "
        f"{level['sample_bytes'] / max(level['sample_patches'], 1):.2f} on the fitted sample",
        "",
        f"{'split':<6}{'parts':>7}{'documents':>12}{'bytes':>17}{'patches':>15}{'mean':>8}",
    ]
    lines += [
        f"{row['split']:<6}{row['parts']:>7,}{row['documents']:>12,}{row['bytes']:>17,}{row['patches']:>15,}"
        f"{row['mean_patch']:>8.2f}"
        for row in report["splits"]
    ]
    lines += ["", f"{'mean':>7}{'at cap':>9}{'1 byte':>9}{'bytes':>17}  source"]
    lines += cut(
        [
            f"{row['mean_patch']:>7.2f}{row['at_cap']:>9.2%}{row['single']:>9.2%}{row['bytes']:>17,}"
            f"  {printable(row['source'])}"
            for row in report["sources"]
        ]
    )
    lines += ["", "patch length, share of patches"]
    lines += _histogram(report["patch_lengths"])
    dropped = ", ".join(f"{count:,} {printable(cause)}" for cause, count in sorted(report["dropped"].items()))
    lines += [
        "",
        f"documents: {report['documents_in']:,} came in, {report['documents_stored']:,} are stored, "
        f"{sum(report['dropped'].values()):,} dropped{f' ({dropped})' if dropped else ''}, "
        f"{report['quarantined']:,} refused",
    ]
    if report["quarantine"]:
        lines += ["", f"quarantine: {len(report['quarantine']):,} refused"]
        lines += cut([f"{printable(row['path'])}: {printable(row['reason'])}" for row in report["quarantine"]])
    return lines


def _histogram(counts: list[int]) -> list[str]:
    """Return bars of the shares of patch lengths; from 16 bytes on, lengths are grouped by doubling."""
    edges = [*range(1, 17), *(1 << k for k in range(5, 12))]
    bins = []
    for low, high in pairwise(edges):
        if low < len(counts):
            name = str(low) if high == low + 1 else f"{low}-{min(high, len(counts)) - 1}"
            bins.append((name, sum(counts[low:high])))
    total, most = sum(counts), max(count for _, count in bins)
    rows = [f"{name:>9}{count / total:>8.2%}  {'#' * round(BAR * count / most)}" for name, count in bins]
    return [row.rstrip() for row in rows]
