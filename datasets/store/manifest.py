"""Reading and writing manifest.json.

Manifest -> text with the sha256 of itself -> publish: the old version is kept, manifest.json written, the rest swept
manifest.json -> checks (version? whole? all names inside the store?) -> Manifest
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store.commit import BESIDE
from bytropix.datasets.store.formats import SUFFIXES
from bytropix.datasets.store.schema import FORMAT_VERSION, FileRecord, Manifest
from bytropix.datasets.store.storage import Storage
from bytropix.errors import ConfigError, StoreError

MANIFEST = "manifest.json"
_CHECKSUM = re.compile(rb'"checksum": "([0-9a-f]{64})"')


def version_name(version: int) -> str:
    """Return where the manifest of an older version is kept."""
    return f"versions/{version:05d}.json"


def quarantine_name(version: int) -> str:
    """Return where the list of what a version refused lies."""
    return "quarantine.jsonl" if version == 1 else f"quarantine-{version:05d}.jsonl"


def manifest_text(manifest: Manifest) -> bytes:
    """Return the manifest as JSON that holds the sha256 of itself, taken with an empty checksum."""
    plain = {"checksum": "", **to_plain(manifest)}
    text = (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()
    return text.replace(b'"checksum": ""', f'"checksum": "{hashlib.sha256(text).hexdigest()}"'.encode(), 1)


def read_manifest(storage: Storage, name: str = MANIFEST) -> tuple[Manifest, str]:
    """Return a manifest and the sha256 of its file, in hex.

    Raises:
        StoreError: It is damaged, newer than this version, or names something outside the store.
    """
    data = storage.read(name).tobytes()
    place = f"{storage.url}/{name}"
    manifest = _parse(place, data)
    for folder, files in record_groups(manifest):
        for step in ([folder] if folder else []) + [file.path for file in files]:
            check_inside(place, step)
    for part in manifest.parts:
        if part.format not in SUFFIXES:
            raise StoreError(f"{place}: a part of format {part.format!r}, which is unknown here; upgrade bytropix")
        if part.n_bytes < 1 or part.documents < 1:
            raise StoreError(
                f"{place}: part {part.split}/{part.name} of {part.n_bytes} bytes in {part.documents} documents; "
                "do not trust it"
            )
    return manifest, hashlib.sha256(data).hexdigest()


def record_groups(manifest: Manifest) -> Iterator[tuple[str, Sequence[FileRecord]]]:
    """Give every folder that a manifest speaks of, below the store, with the files it names there."""
    for part in manifest.parts:
        yield part.folder, part.files
    yield "babylon", manifest.babylon
    yield "", (manifest.quarantine,)


def names_of(manifest: Manifest) -> set[str]:
    """Return the names, below the store, of all files that a manifest speaks of."""
    return {
        f"{folder}/{file.path}" if folder else file.path for folder, files in record_groups(manifest) for file in files
    }


def check_inside(place: str, name: str) -> None:
    """Refuse a name that is no path inside the store.

    Raises:
        StoreError: It is not.
    """
    steps = name.split("/")
    if not all(steps) or {".", ".."} & set(steps) or "\\" in name or ":" in name or "\0" in name:
        raise StoreError(f"{place}: names {name!r}, which is no path inside the store; do not trust it")


def publish(storage: Storage, manifest: Manifest, *, replaces: str = "", forget: bool = False) -> None:
    """Write manifest.json, which makes the store whole, and remove what no version names.

    What goes is removed before a first version is published, so that a finished store is complete and nothing else; and
    after a later one, since its files are trusted until then.

    Args:
        storage: The store's.
        manifest: What it holds.
        replaces: The fingerprint of the version that this one follows; empty for a store that had none.
        forget: Drop all older versions: their files have changed.

    Raises:
        StoreError: Another job has published something else in the meantime, or the place cannot be written.
    """
    text = manifest_text(manifest)
    if not replaces:
        sweep(storage, names_of(manifest))
        if not storage.create(MANIFEST, text) and storage.read(MANIFEST).tobytes() != text:
            raise StoreError(f"{storage.url}: another job has finished a store here; choose another --out")
        return
    current, fingerprint = read_manifest(storage)
    if fingerprint != replaces:
        raise StoreError(f"{storage.url}: another job has changed the store in the meantime; run again")
    if not forget:
        storage.write(version_name(current.version), storage.read(MANIFEST).tobytes())
    storage.write(MANIFEST, text)
    sweep(storage, names_of(manifest) if forget else kept_names(storage, manifest))


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


def _parse(place: str, data: bytes) -> Manifest:
    """Return the manifest in `data`."""
    try:
        plain = json.loads(data)
        version = plain["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{place}: damaged ({error}); restore it or ingest again") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreError(
            f"{place}: format version {version!r} is newer than this bytropix reads ({FORMAT_VERSION}); "
            "upgrade bytropix"
        )
    found = _CHECKSUM.search(data)
    blank = _CHECKSUM.sub(b'"checksum": ""', data, count=1)
    if found is None or found[1] != hashlib.sha256(blank).hexdigest().encode():
        raise StoreError(f"{place}: damaged (its checksum is wrong); restore it or ingest again")
    try:
        return from_plain(Manifest, {key: value for key, value in plain.items() if key != "checksum"})
    except ConfigError as error:
        raise StoreError(f"{place}: damaged ({error}); restore it or ingest again") from error
