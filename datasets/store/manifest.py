"""Reading and writing manifest.json.

Manifest -> lists, where rows are many -> text with the sha256 of itself -> publish: the old version is kept,
            manifest.json written, the rest swept
manifest.json -> checks (version? whole? all names inside the store?) -> Manifest, whose lists are still unread
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store.commit import BESIDE
from bytropix.datasets.store.rows import Listing, Rows, listed, lists_from_plain
from bytropix.datasets.store.schema import (
    LISTED_VERSION,
    VIDEO_VERSION,
    FileRecord,
    Manifest,
    PartRecord,
    SourceRecord,
    plain_row,
)
from bytropix.datasets.store.storage import Storage
from bytropix.datasets.store.trust import check_inside, check_kind, check_part, check_total
from bytropix.errors import ConfigError, StoreError

MANIFEST = "manifest.json"
KINDS = ("bytes", "video")  # of stores
PART_LISTS, SOURCE_LISTS = "part_lists", "source_lists"  # in place of parts and sources
DEFAULT_LISTING = Listing()
_CHECKSUM = re.compile(rb'"checksum": "([0-9a-f]{64})"')


def version_name(version: int) -> str:
    """Return where the manifest of an older version is kept."""
    return f"versions/{version:05d}.json"


def quarantine_name(version: int) -> str:
    """Return where the list of what a version refused lies."""
    return "quarantine.jsonl" if version == 1 else f"quarantine-{version:05d}.jsonl"


def manifest_text(manifest: Manifest) -> bytes:
    """Return the manifest as JSON that holds the sha256 of itself, taken with an empty checksum."""
    plain = {"checksum": "", **to_plain(replace(manifest, parts=(), sources=()))}
    entries = {key: json.dumps(value, indent=1, sort_keys=True) for key, value in plain.items()}
    for rows, field, key in ((manifest.parts, "parts", PART_LISTS), (manifest.sources, "sources", SOURCE_LISTS)):
        if isinstance(rows, Rows):  # a line each, as the sizes of their parts are many
            del entries[field]
            lines = ",\n ".join(json.dumps(one.plain(), sort_keys=True) for one in rows.lists)
            entries[key] = f"[\n {lines}\n]"
        else:
            entries[field] = json.dumps([plain_row(row) for row in rows], indent=1, sort_keys=True)
    indented = ((key, value.replace("\n", "\n ")) for key, value in sorted(entries.items()))
    text = ("{\n" + ",\n".join(f' "{key}": {value}' for key, value in indented) + "\n}\n").encode()
    return text.replace(b'"checksum": ""', f'"checksum": "{hashlib.sha256(text).hexdigest()}"'.encode(), 1)


def read_manifest(storage: Storage, name: str = MANIFEST) -> tuple[Manifest, str]:
    """Return a manifest and the sha256 of its file, in hex.

    Raises:
        StoreError: It is damaged, newer than this version, or names something outside the store.
    """
    data = storage.read(name).tobytes()
    place = f"{storage.url}/{name}"
    manifest = _parse(storage, place, data)
    for folder, files in named_here(manifest):
        for step in ([folder] if folder else []) + [file.path for file in files]:
            check_inside(place, step)
    if not isinstance(manifest.parts, Rows):
        for part in manifest.parts:
            check_part(place, part)
            check_kind(place, manifest.kind, part)
        check_total(place, [part.n_bytes for part in manifest.parts])
    return manifest, hashlib.sha256(data).hexdigest()


def named_here(manifest: Manifest) -> Iterator[tuple[str, Sequence[FileRecord]]]:
    """Give every folder, below the store, whose files a manifest itself names, with these; lists are not read."""
    if not isinstance(manifest.parts, Rows):
        for part in manifest.parts:
            yield part.folder, part.files
    yield "babylon", manifest.babylon
    yield "", (manifest.quarantine,)


def list_files(manifest: Manifest) -> tuple[FileRecord, ...]:
    """Return the files of a manifest's lists."""
    return tuple(file for rows in (manifest.parts, manifest.sources) if isinstance(rows, Rows) for file in rows.files)


def record_groups(manifest: Manifest) -> Iterator[tuple[str, Sequence[FileRecord]]]:
    """Give every folder that a manifest and its lists speak of, below the store, with the files that are named there.

    Raises:
        StoreError: A list is missing or damaged.
    """
    yield from named_here(manifest)
    yield "", list_files(manifest)
    if isinstance(manifest.parts, Rows):
        for part in manifest.parts:
            yield part.folder, part.files


def names_of(manifest: Manifest) -> set[str]:
    """Return the names, below the store, of all files that a manifest and its lists speak of.

    Raises:
        StoreError: A list is missing or damaged.
    """
    return {
        f"{folder}/{file.path}" if folder else file.path for folder, files in record_groups(manifest) for file in files
    }


def publish(
    storage: Storage,
    manifest: Manifest,
    *,
    replaces: str = "",
    forget: bool = False,
    listing: Listing = DEFAULT_LISTING,
) -> None:
    """Write manifest.json, which makes the store whole, and remove what no version names.

    Where parts or sources are many, lists of them are written first.

    What goes is removed before a first version is published, so that a finished store is complete and nothing else; and
    after a later one, since its files are trusted until then.

    Args:
        storage: The store's.
        manifest: What it holds.
        replaces: The fingerprint of the version that this one follows; empty for a store that had none.
        forget: Drop all older versions: their files have changed.
        listing: How many rows are many.

    Raises:
        StoreError: Another job has published something else in the meantime, or the place cannot be written.
    """
    if not replaces:
        manifest, text = _with_lists(storage, manifest, listing)
        sweep(storage, names_of(manifest))
        if not storage.create(MANIFEST, text) and storage.read(MANIFEST).tobytes() != text:
            raise StoreError(f"{storage.url}: another job has finished a store here; choose another --out")
        return
    current, fingerprint = read_manifest(storage)
    if fingerprint != replaces:
        raise StoreError(f"{storage.url}: another job has changed the store in the meantime; run again")
    manifest, text = _with_lists(storage, manifest, listing)
    if not forget:
        storage.write(version_name(current.version), storage.read(MANIFEST).tobytes())
    storage.write(MANIFEST, text)
    sweep(storage, names_of(manifest) if forget else kept_names(storage, manifest))


def _with_lists(storage: Storage, manifest: Manifest, listing: Listing) -> tuple[Manifest, bytes]:
    """Write the lists that a manifest needs; return it with them, and its text."""
    parts = listed(storage, PartRecord, manifest.parts, listing)
    sources = listed(storage, SourceRecord, manifest.sources, listing)
    if isinstance(parts, Rows) or isinstance(sources, Rows):
        manifest = replace(manifest, format_version=LISTED_VERSION)
    if manifest.kind == "video":
        manifest = replace(manifest, format_version=VIDEO_VERSION)
    manifest = replace(manifest, parts=parts, sources=sources)
    return manifest, manifest_text(manifest)


def kept_names(storage: Storage, manifest: Manifest) -> set[str]:
    """Return the names of all files that a manifest or an older version of it needs."""
    keep = names_of(manifest)
    for version in older_versions(storage):
        keep |= {version_name(version)} | names_of(read_manifest(storage, version_name(version))[0])
    return keep


def older_versions(storage: Storage) -> list[int]:
    """Return the numbers of the versions whose manifests are kept."""
    found = [re.fullmatch(r"versions/(\d{5})\.json", name) for name in storage.sizes("versions")]
    return sorted(int(match[1]) for match in found if match)


def sweep(storage: Storage, keep: set[str]) -> None:
    """Remove every file but the manifest and those in `keep`: receipts, spools, half-written things, empty folders."""
    storage.remove([name for name in storage.sizes() if name not in keep and name != MANIFEST])
    storage.prune()


def tidy(storage: Storage) -> None:
    """Remove what a job left that was killed in its very last step, when the manifest had got its name."""
    storage.remove([name for name in storage.sizes() if name.startswith(BESIDE)])


def _parse(storage: Storage, place: str, data: bytes) -> Manifest:
    """Return the manifest in `data`."""
    try:
        plain = json.loads(data)
        version = plain["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{place}: damaged ({error}); restore it or ingest again") from error
    if not isinstance(version, int) or version > VIDEO_VERSION:
        raise StoreError(
            f"{place}: format version {version!r} is newer than this bytropix reads ({VIDEO_VERSION}); upgrade bytropix"
        )
    found = _CHECKSUM.search(data)
    blank = _CHECKSUM.sub(b'"checksum": ""', data, count=1)
    if found is None or found[1] != hashlib.sha256(blank).hexdigest().encode():
        raise StoreError(f"{place}: damaged (its checksum is wrong); restore it or ingest again")
    plain.pop("checksum", None)
    try:
        rows: dict[str, Any] = {}
        if PART_LISTS in plain:
            rows["parts"] = lists_from_plain(storage, place, PartRecord, plain.pop(PART_LISTS))
        if SOURCE_LISTS in plain:
            rows["sources"] = lists_from_plain(storage, place, SourceRecord, plain.pop(SOURCE_LISTS))
        both = sorted(rows.keys() & plain.keys())
        if both:
            raise ConfigError(f"both {both[0]} and lists of them")
        manifest = replace(from_plain(Manifest, plain | dict.fromkeys(rows, ())), **rows)
        if manifest.kind not in KINDS:
            raise ConfigError(f"a store of {manifest.kind!r}; this bytropix knows {', '.join(KINDS)}")
        return manifest
    except ConfigError as error:
        raise StoreError(f"{place}: damaged ({error}); restore it or ingest again") from error
