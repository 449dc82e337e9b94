"""`bytropix inspect`: what is in a store, how it is cut, and a few passages of it.

manifest -> tables, histogram        parts -> passages with patch borders, coloured by entropy
"""

import json
import os
import random
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from bytropix.datasets.store import Part, Store
from bytropix.jobs.store_report import length_counts, printable, source_rows, split_rows
from bytropix.patching import QUANTA_PER_BIT

PASSAGE_BYTES = 400
ROWS_SHOWN = 20
BAR = 50
# 256-colour codes from certain to surprising: blue, green, yellow, red. They are legible on light and dark grounds.
COLOURS = (27, 33, 37, 71, 106, 136, 166, 196)
BITS_PER_COLOUR = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspect:
    """Show what is in a store."""

    store: tyro.conf.Positional[Path]
    """The store."""
    passages: int = 3
    """How many passages to show, with | between patches."""
    seed: int = 0
    """Chooses the passages."""
    json: bool = False
    """Print one JSON object with everything, long lists uncut, on stdout."""

    def __call__(self) -> int:
        """Print the report."""
        store = Store.open(self.store)
        report = _report(store)
        passages = choose_passages(store, self.passages, self.seed)
        if self.json:
            report["passages"] = [_plain(passage) for passage in passages]
            print(json.dumps(report, sort_keys=True))
            return 0
        colour = _has_colour()
        lines = _lines(report)
        for passage in passages:
            lines += [
                "",
                f"{passage.split}/{passage.part}, bytes {passage.begin} to {passage.end}",
                show(passage, colour=colour),
            ]
        text = "\n".join(lines) + "\n"
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Passage:
    """A stretch of one document."""

    split: str
    part: str
    begin: int
    """First byte in the part."""
    text: NDArray[np.uint8]
    entropy: NDArray[np.uint8]
    """In 1/32 bit."""
    starts: NDArray[np.bool_]

    @property
    def end(self) -> int:
        """Past the last byte in the part."""
        return self.begin + len(self.text)


def choose_passages(store: Store, count: int, seed: int) -> list[Passage]:
    """Return passages that begin with a patch, each from a document that a seeded generator picks."""
    parts = [part for split in store.splits for part in store.parts(split)]
    generator = random.Random(seed)
    sizes = [part.n_bytes for part in parts]
    return [_passage(generator.choices(parts, sizes)[0], generator.random()) for _ in range(count)]


def _passage(part: Part, share: float) -> Passage:
    """Return the passage of `part` around the byte at `share` of it."""
    place = int(share * part.n_bytes)
    ends = part.doc_ends
    document = int(np.searchsorted(ends, place, side="right"))
    end = min(int(ends[document]), place + PASSAGE_BYTES)
    first = int(ends[document - 1]) if document else 0
    begin = max(first, end - PASSAGE_BYTES)
    bits = part.read("starts", begin // 8, (end + 7) // 8)
    starts = np.unpackbits(bits, bitorder="little")[begin % 8 :][: end - begin].astype(bool)
    skip = int(np.argmax(starts))
    return Passage(
        split=part.split,
        part=part.name,
        begin=begin + skip,
        text=part.read("bytes", begin + skip, end),
        entropy=part.read("entropy", begin + skip, end),
        starts=starts[skip:],
    )


def show(passage: Passage, *, colour: bool) -> str:
    """Return a passage with | before each patch but the first; bytes that are no printable text are escaped."""
    shown = []
    for begin, char in _characters(passage.text.tobytes()):
        border = "|" if passage.starts[begin] and begin else ""
        if colour:
            step = min(int(passage.entropy[begin] / QUANTA_PER_BIT / BITS_PER_COLOUR), len(COLOURS) - 1)
            char = f"\x1b[38;5;{COLOURS[step]}m{char}\x1b[0m"
        shown.append(border + char)
    return "".join(shown)


def _characters(data: bytes) -> list[tuple[int, str]]:
    """Return each character's first byte and how it is printed; what no character begins with goes byte by byte."""
    found = []
    place = 0
    for char in data.decode("utf-8", "surrogateescape"):
        if char == "\n":
            found.append((place, "\\n\n"))
        elif "\udc80" <= char <= "\udcff":
            found.append((place, f"\\x{data[place]:02x}"))
        else:
            found.append((place, printable(char)))
        place += len(char.encode("utf-8", "surrogateescape"))
    return found


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
        "fingerprint": store.fingerprint,
        "kind": manifest.kind,
        "format_version": manifest.format_version,
        "codec": manifest.parts[0].codec,
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
        f"{printable(report['store'])}: {report['kind']}, format {report['format_version']}, codec {report['codec']}",
        f"patches by rule {rule['rule']}, {rule['min_patch']} to {rule['max_patch']} bytes, aimed at a mean of "
        f"{rule['mean_patch']:g}; level {level['level']}, which gave "
        f"{level['sample_bytes'] / level['sample_patches']:.2f} on the fitted sample",
        "",
        f"{'split':<6}{'parts':>7}{'documents':>12}{'bytes':>17}{'patches':>15}{'mean':>8}",
    ]
    lines += [
        f"{row['split']:<6}{row['parts']:>7,}{row['documents']:>12,}{row['bytes']:>17,}{row['patches']:>15,}"
        f"{row['mean_patch']:>8.2f}"
        for row in report["splits"]
    ]
    lines += ["", f"{'mean':>7}{'at cap':>9}{'1 byte':>9}{'bytes':>17}  source"]
    lines += _cut(
        [
            f"{row['mean_patch']:>7.2f}{row['at_cap']:>9.2%}{row['single']:>9.2%}{row['bytes']:>17,}"
            f"  {printable(row['source'])}"
            for row in report["sources"]
        ]
    )
    lines += ["", "patch length, share of patches"]
    lines += _histogram(report["patch_lengths"])
    if report["quarantine"]:
        lines += ["", f"quarantine: {len(report['quarantine']):,} refused"]
        lines += _cut([f"{printable(row['path'])}: {printable(row['reason'])}" for row in report["quarantine"]])
    return lines


def _cut(lines: list[str]) -> list[str]:
    """Return the first lines and how many more there are."""
    rest = len(lines) - ROWS_SHOWN
    return lines if rest <= 0 else [*lines[:ROWS_SHOWN], f"... and {rest:,} more (all of them with --json)"]


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
