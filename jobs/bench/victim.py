"""A small store to harm, and what every byte of it must be.

made-up words, and two parts of noise whose arrays agree in size -> parts in memory (the truth) -> a store of 3 versions
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.store import (
    FORMAT_VERSION,
    FileRecord,
    Manifest,
    PartArrays,
    PartLayout,
    PartRecord,
    SourceRecord,
    SourceSpan,
    Storage,
    Store,
    doc_meta_line,
    open_storage,
    publish,
    write_part,
    write_patcher,
)
from bytropix.datasets.store.formats import encode
from bytropix.datasets.store.manifest import MANIFEST, quarantine_name
from bytropix.datasets.store.patch_lengths import count_lengths
from bytropix.datasets.stream import ByteStream
from bytropix.patching import PatchConfig, Patcher, fit_patcher

LAYOUTS = {
    "Zarr zstd": PartLayout(),
    "Zarr none": PartLayout(codec="none"),
    "WebDataset": PartLayout(format="webdataset"),
}
VERSIONS = 3
TWINS = 2, 3  # numbers of the train parts that agree in size
SIZES = 1_300_000, 400_000, 90_000, 60_000, 30_000
CONTEXT, BATCH = 1023, 16
_WORDS = np.array(["whale ", "sea ", "of ", "harpoon ", "and ", "a ", "ship\n", "the ", "captain ", "sails "])


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """A store, and all that reading it may ever give."""

    path: Path
    layout: PartLayout
    parts: dict[tuple[str, str], PartArrays]
    """By split and name."""
    files: dict[str, bytes]
    """Every file, by its name below the store."""
    foreign: bytes
    """The manifest of a store with parts of the same names and other bytes."""
    epoch: list[ByteBatch]
    """The batches of an epoch of the train split."""

    @property
    def twins(self) -> tuple[str, str]:
        """Names of the two train parts whose arrays agree in size, as they are stored."""
        return self.layout.part_name(TWINS[0]), self.layout.part_name(TWINS[1])


def make_victim(path: Path, layout: PartLayout) -> Victim:
    """Write a store and return it.

    Args:
        path: Where; beside it another one is written, for its manifest.
        layout: Of its parts.
    """
    other = path.with_name(f"other-{path.name}")
    write_victim(other, layout, SIZES, seed=1)
    parts = write_victim(path, layout, SIZES, seed=0)
    return Victim(
        path, layout, parts, files_of(path), (other / MANIFEST).read_bytes(), list(an_epoch(Store.open(path)))
    )


def files_of(path: Path) -> dict[str, bytes]:
    """Return the content of every file of a store by its name."""
    storage = open_storage(path)
    return {name: storage.read(name).tobytes() for name in storage.sizes()}


def write_victim(
    path: Path, layout: PartLayout, sizes: Sequence[int], *, seed: int
) -> dict[tuple[str, str], PartArrays]:
    """Write a store and return its parts.

    Args:
        path: Where.
        layout: Of its parts.
        sizes: Bytes of two train parts, of a val part, and of one train part more for each later version; with `SIZES`
            two parts of noise follow the first two.
        seed: Names the words.
    """
    generator = np.random.default_rng(seed)
    text = [_words(generator, size) for size in sizes]
    patcher = fit_patcher(text, PatchConfig())
    # The first document of a large part is longer than a sample of a tar, so that it lies there in pieces.
    first, second, val, *later = [
        _cut(values, patcher, f"text-{number}.txt", longest=max(9_000, len(values) - 100_000) if number == 0 else 9_000)
        for number, values in enumerate(text)
    ]
    train = [first, second, *(twins(layout) if sizes is SIZES else ())]
    parts = {("train", layout.part_name(number)): part for number, part in enumerate(train)}
    parts |= {("val", layout.part_name(0)): val}
    storage = open_storage(path)
    settings, table = write_patcher(storage, patcher)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind="bytes",
        config={},
        patcher=settings,
        babylon=table,
        sources=(SourceRecord(name="text-0.txt", size=len(text[0]), sha256=FileRecord.hash_of(text[0].data)),),
        parts=tuple(_write(storage, split, name, part, layout) for (split, name), part in parts.items()),
        quarantine=_quarantine(storage, 1),
        quarantined=1,
    )
    publish(storage, manifest)
    for version, part in enumerate(later, start=2):
        key = ("train", layout.part_name(len(train) + version - 2))
        parts[key] = part
        manifest = replace(
            manifest,
            version=version,
            parts=(*manifest.parts, _write(storage, *key, part, layout, version)),
            quarantine=_quarantine(storage, version),
            quarantined=version,
        )
        publish(storage, manifest, replaces=Store.open(path).fingerprint)
    return parts


def an_epoch(store: Store) -> Iterator[ByteBatch]:
    """Give the batches of an epoch of the train split."""
    yield from ByteStream(store, context=CONTEXT, batch=BATCH, epochs=1, last="short")


def twins(layout: PartLayout) -> tuple[PartArrays, PartArrays]:
    """Return two parts of noise whose arrays have the same sizes in a layout, as they are stored."""
    first = _noise(0)
    return first, next(part for part in map(_noise, count(1)) if _sizes(part, layout) == _sizes(first, layout))


def _sizes(part: PartArrays, layout: PartLayout) -> list[int]:
    """Return the sizes of the files that hold arrays; zarr.json lists checksums, of more digits or fewer."""
    files = encode(part, layout, layout.part_name(0))
    return [file.size for file in files if not file.name.endswith("zarr.json")]


def _words(generator: np.random.Generator, n_bytes: int) -> NDArray[np.uint8]:
    return np.frombuffer("".join(_WORDS[generator.integers(0, len(_WORDS), n_bytes // 3)]).encode()[:n_bytes], np.uint8)


def _cut(text: NDArray[np.uint8], patcher: Patcher, source: str, *, longest: int) -> PartArrays:
    """Return a part of documents, the first of `longest` bytes."""
    ends = np.append(np.arange(longest, len(text), 9_000), len(text)).astype(np.int64)
    entropy, starts = patcher.patch(text, ends)
    return PartArrays(text, entropy, starts, ends, _meta(ends, source))


def _noise(seed: int) -> PartArrays:
    """Return a part of noise, which no codec makes shorter."""
    generator = np.random.default_rng([7, seed])
    text, entropy = generator.integers(0, 256, (2, 300_000), dtype=np.uint8)
    ends = np.sort(generator.choice(np.arange(100_000, 300_000), 9, replace=False)).astype(np.int64)
    ends[-1] = len(text)
    starts = generator.integers(0, 2, len(text)).astype(np.bool_)
    starts[np.append(0, ends[:-1])] = True
    return PartArrays(text, entropy, starts, ends, _meta(np.arange(1, 10) * 1000, f"noise-{seed:03d}"))


def _meta(ends: NDArray[np.int64], source: str) -> bytes:
    begins = np.append(0, ends[:-1]).tolist()
    return b"".join(doc_meta_line(source=source, offset=begin) for begin in begins)


def _write(
    storage: Storage, split: str, name: str, part: PartArrays, layout: PartLayout, version: int = 1
) -> PartRecord:
    lengths = count_lengths(part.starts, 0, len(part.text))
    span = SourceSpan(
        source="text-0.txt",
        n_bytes=len(part.text),
        documents=len(part.doc_ends),
        patches=int(lengths.sum()),
        at_cap=0,
        single=int(lengths[1]),
    )
    counts = tuple(lengths[: int(np.flatnonzero(lengths)[-1]) + 1].tolist())
    return write_part(storage, split, name, part, layout=layout, spans=(span,), patch_lengths=counts, version=version)


def refused(version: int) -> list[dict[str, Any]]:
    """Return the rows of a version's list of refused inputs."""
    return [{"bytes_read": 0, "path": f"torn-{version}.gz", "reason": "truncated"}]


def _quarantine(storage: Storage, version: int) -> FileRecord:
    """Write a version's list of refused inputs, one row."""
    data = b"".join(json.dumps(row).encode() + b"\n" for row in refused(version))
    storage.write(quarantine_name(version), data)
    return FileRecord(path=quarantine_name(version), size=len(data), sha256=FileRecord.hash_of(data))
