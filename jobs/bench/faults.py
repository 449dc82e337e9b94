"""Ways to harm a store, by kind.

Victim, generator -> a place or a pair of files is drawn -> Fault: the files that change, each with its new content
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from bytropix.datasets.store.manifest import MANIFEST, version_name
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.datasets.store.tar_part import MEMBERS
from bytropix.datasets.store.tar_writer import TAR_BLOCK
from bytropix.datasets.store.zarr_group import CRC_BYTES, INDEX_ENTRY
from bytropix.jobs.bench.victim import VERSIONS, Victim

Content = bytes | None
Place = tuple[str, int, int]  # a file, and where a stretch of it begins and ends


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to a store.

    Attributes:
        kind: What sort of harm it is.
        files: New content of each file that changes; None where it vanishes.
    """

    kind: str
    files: dict[str, Content]


Draw = Callable[[Victim, np.random.Generator], dict[str, Content] | None]


@cache
def places(victim: Victim) -> dict[str, list[Place]]:
    """Return the stretches of a store's files by what lies there: data, header, padding, index, manifest, rest."""
    found: dict[str, list[Place]] = {name: [] for name in ("data", "header", "padding", "index", "manifest", "rest")}
    for name, content in victim.files.items():
        whole = (name, 0, len(content))
        if name == MANIFEST:
            found["manifest"].append(whole)
        elif not name.startswith("parts/"):
            found["rest"].append(whole)
        elif name.endswith("/zarr.json"):
            found["header"].append(whole)
        elif name.endswith(".index"):
            found["index"].append(whole)
            for what, place in _tar_places(name.removesuffix(".index") + ".tar", content):
                found[what].append(place)
        elif not name.endswith(".tar"):
            end = len(content) - (_shard_index(victim, name) if victim.layout.used_codec != "none" else 0)
            found["data"].append((name, 0, end))
            if end < len(content):
                found["index"].append((name, end, len(content)))
    return found


def _tar_places(tar: str, index: bytes) -> Iterator[tuple[str, Place]]:
    """Give the headers, the contents and the padding of a tar's members."""
    for row in np.lib.format.read_array(io.BytesIO(index)):
        n_bytes = int(row["n_bytes"])
        sizes = {"starts": -(-n_bytes // 8), "json": int(row["n_json"])}
        for member in MEMBERS:
            at = int(row[f"{member}_at"])
            end = at + sizes.get(member, n_bytes)
            yield "header", (tar, at - TAR_BLOCK, at)
            yield "data", (tar, at, end)
            if -end % TAR_BLOCK:
                yield "padding", (tar, end, end + -end % TAR_BLOCK)


def _shard_index(victim: Victim, name: str) -> int:
    """Return the bytes of the index at the end of a shard file."""
    _, split, part, array, *_ = name.split("/")
    arrays = victim.parts[split, part]
    sizes = {"starts": -(-len(arrays.text) // 8), "doc_ends": arrays.doc_ends.nbytes, "doc_meta": len(arrays.doc_meta)}
    blocks = -(-sizes.get(array, len(arrays.text)) // BLOCK_BYTES)
    return blocks * INDEX_ENTRY.itemsize + CRC_BYTES


def _flip(what: str) -> Draw:
    """Return what flips one bit in a stretch of some sort."""

    def draw(victim: Victim, generator: np.random.Generator) -> dict[str, Content] | None:
        stretches = places(victim)[what]
        if not stretches:
            return None
        name, begin, end = stretches[int(generator.integers(len(stretches)))]
        return {name: _flipped(victim.files[name], int(generator.integers(begin, end)), generator)}

    return draw


def _flipped(data: bytes, place: int, generator: np.random.Generator) -> bytes:
    bit = 1 << int(generator.integers(8))
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def _any_file(victim: Victim, generator: np.random.Generator) -> str:
    return list(victim.files)[int(generator.integers(len(victim.files)))]


def _cut(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    name = _any_file(victim, generator)
    return {name: victim.files[name][: int(generator.integers(len(victim.files[name])))]}


def _missing(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    return {_any_file(victim, generator): None}


def _swapped(victim: Victim, generator: np.random.Generator) -> dict[str, Content] | None:
    """Exchange the same file of two parts."""
    one, other = (list(victim.parts)[number] for number in generator.choice(len(victim.parts), 2, replace=False))
    pairs = list(zip(_files_of(victim, *one), _files_of(victim, *other), strict=True))
    return _exchanged(victim, [pairs[int(generator.integers(len(pairs)))]])


def _swapped_twins(victim: Victim, generator: np.random.Generator) -> dict[str, Content] | None:
    """Exchange the same file of two parts whose arrays agree in size, as they are stored."""
    pairs = [pair for pair in _twin_files(victim) if len(victim.files[pair[0]]) == len(victim.files[pair[1]])]
    return _exchanged(victim, [pairs[int(generator.integers(len(pairs)))]])


def _whole_twins(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Exchange two parts whose arrays agree in size."""
    return _exchanged(victim, _twin_files(victim))


def _twin_files(victim: Victim) -> list[tuple[str, str]]:
    one, other = (_files_of(victim, "train", name) for name in victim.twins)
    return list(zip(one, other, strict=True))


def _exchanged(victim: Victim, pairs: Sequence[tuple[str, str]]) -> dict[str, Content]:
    found: dict[str, Content] = {}
    for one, other in pairs:
        found |= {one: victim.files[other], other: victim.files[one]}
    return found


def _files_of(victim: Victim, split: str, part: str) -> list[str]:
    """Return the files of a part, in an order that is the same for all parts."""
    stem = f"parts/{split}/{part.partition('.')[0]}."
    return [name for name in victim.files if name.startswith(stem)]


def _torn(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Cut the manifest, empty it, or put the begin of the new one before the end of an older one."""
    new, old = victim.files[MANIFEST], victim.files[version_name(VERSIONS - 1)]
    place = int(generator.integers(1, min(len(new), len(old))))
    torn = [
        new[:place],
        b"",
        new[:place] + old[place:],
        old[:place] + new[place:],
        new[:place] + bytes(len(new) - place),
    ]
    found = torn[int(generator.integers(len(torn)))]
    return {MANIFEST: new if found == old else found}


def _older(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Put the manifest of an older version in place."""
    return {MANIFEST: victim.files[version_name(int(generator.integers(1, VERSIONS)))]}


def _foreign(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Put the manifest of a store in place that has the same names in it, but other bytes."""
    return {MANIFEST: victim.foreign}


def _zeroed(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Blank a stretch, as a lost sector does."""
    name = _any_file(victim, generator)
    data = victim.files[name]
    begin = int(generator.integers(len(data)))
    end = min(len(data), begin + int(generator.integers(1, 65_536)))
    return {name: data[:begin] + bytes(end - begin) + data[end:]}


def _misplaced(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Write a stretch of another file over one of this, as a drive that errs about the place does."""
    name, other = _any_file(victim, generator), _any_file(victim, generator)
    data, source = victim.files[name], victim.files[other]
    length = int(generator.integers(1, min(len(data), len(source), 65_536) + 1))
    begin = int(generator.integers(len(data) - length + 1))
    there = int(generator.integers(len(source) - length + 1))
    return {name: data[:begin] + source[there : there + length] + data[begin + length :]}


def _shifted(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Put a byte in and drop the last, so that the size stays."""
    name = _any_file(victim, generator)
    data = victim.files[name]
    place = int(generator.integers(len(data)))
    return {name: (data[:place] + bytes([int(generator.integers(256))]) + data[place:])[: len(data)]}


def _grown(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Append what a writer that began anew without cutting would leave."""
    name = _any_file(victim, generator)
    return {name: victim.files[name] + generator.bytes(int(generator.integers(1, 1000)))}


def _replaced(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    """Give a file the content of any other."""
    return {_any_file(victim, generator): victim.files[_any_file(victim, generator)]}


def _any_flip(victim: Victim, generator: np.random.Generator) -> dict[str, Content]:
    name = _any_file(victim, generator)
    data = victim.files[name]
    return {name: _flipped(data, int(generator.integers(len(data))), generator)}


NAMED: dict[str, Draw] = {
    "one bit flipped in data": _flip("data"),
    "one bit flipped in a header": _flip("header"),
    "one bit flipped in padding": _flip("padding"),
    "one bit flipped in an index": _flip("index"),
    "one bit flipped in the manifest": _flip("manifest"),
    "one bit flipped in the table, the lists": _flip("rest"),
    "a file cut short": _cut,
    "a file missing": _missing,
    "files of two parts exchanged": _swapped,
    "the same, of equal size": _swapped_twins,
    "two parts of equal size exchanged": _whole_twins,
    "the manifest torn": _torn,
    "an older manifest in place": _older,
    "another store's manifest in place": _foreign,
}
RANDOM: tuple[Draw, ...] = (
    _any_flip,
    _cut,
    _missing,
    _swapped,
    _swapped_twins,
    _torn,
    _zeroed,
    _misplaced,
    _shifted,
    _grown,
    _replaced,
)


def draw_faults(victim: Victim, *, each: int, random: int, seed: int = 0) -> Iterator[Fault]:
    """Give faults that change something: `each` of every kind that a layout can have, then random ones.

    Args:
        victim: The store.
        each: Faults of a kind.
        random: Faults of a random kind at a random place.
        seed: Names the sequence.
    """
    generator = np.random.default_rng(seed)
    for kind, draw in NAMED.items():
        yield from _some(kind, [draw], victim, generator, each)
    yield from _some("random", RANDOM, victim, generator, random)


def _some(
    kind: str, draws: Sequence[Draw], victim: Victim, generator: np.random.Generator, number: int
) -> Iterator[Fault]:
    """Give a number of faults that change something, none where a layout has no such place."""
    given = 0
    while given < number:
        files = draws[int(generator.integers(len(draws)))](victim, generator)
        if files is None:
            return
        changed = {name: content for name, content in files.items() if content != victim.files[name]}
        if changed:
            given += 1
            yield Fault(kind, changed)
