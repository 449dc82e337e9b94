"""Passages of a store: stretches of whole patches that a seeded generator picks.

parts, weighted by their bytes -> a byte -> the stretch around it, within its document -> characters
"""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import Part, Store, open_part, part_bytes
from bytropix.jobs.store_report import printable

PASSAGE_BYTES = 400


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Passage:
    """A stretch of one document, from the start of a patch."""

    split: str
    part: str
    begin: int
    """First byte in the part."""
    text: NDArray[np.uint8]
    entropy: NDArray[np.uint8]
    """In 1/32 bit."""
    starts: NDArray[np.bool_]
    source: str = ""
    record: str = ""
    """Of the source, where that has records."""

    @property
    def end(self) -> int:
        """Past the last byte in the part."""
        return self.begin + len(self.text)


def choose_passages(store: Store, count: int, seed: int) -> list[Passage]:
    """Return passages of whole patches, each from a document that a seeded generator picks; none of an empty store."""
    records = store.manifest.parts
    if not records:
        return []
    generator = random.Random(seed)
    sizes = part_bytes(records).tolist()
    places = range(len(records))
    picks = [(generator.choices(places, sizes)[0], generator.random()) for _ in range(count)]
    found: dict[tuple[int, float], Passage] = {}
    for place in sorted({place for place, _ in picks}):
        # Opened once and let go, so that a remote part is fetched once and no more than one is in memory.
        part = open_part(store.storage, records[place])
        found |= {pick: _passage(part, pick[1]) for pick in picks if pick[0] == place}
    return [found[pick] for pick in picks]


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
    places = np.flatnonzero(starts)
    # The last patch is left out where the passage would cut it: half a character is not what the document holds.
    if end < ends[document] and len(places) > 1:
        end = begin + int(places[-1])
    skip = int(places[0]) if len(places) else 0
    meta = part.doc_meta()[document]
    return Passage(
        split=part.split,
        part=part.name,
        begin=begin + skip,
        text=part.read("bytes", begin + skip, end),
        entropy=part.read("entropy", begin + skip, end),
        starts=starts[skip : end - begin],
        source=meta["source"],
        record=meta.get("record", ""),
    )


def characters(data: bytes) -> list[tuple[int, str, bool]]:
    """Return each character's first byte, how it is shown, and whether that is an escape.

    Control characters, odd spaces and marks that turn the direction of writing are escaped; what no character begins
    with goes byte by byte. A newline stays one.
    """
    found = []
    place = 0
    for char in data.decode("utf-8", "surrogateescape"):
        shown = char if char == "\n" else printable(char)
        if "\udc80" <= char <= "\udcff":
            shown = f"\\x{data[place]:02x}"
        found.append((place, shown, shown != char))
        place += len(char.encode("utf-8", "surrogateescape"))
    return found
