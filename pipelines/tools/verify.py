"""A store, checked as a whole: every file of every version that is kept, every rule that what is in it obeys.

manifests -> parts, in the runner -> faults of parts --\
          -> table, lists, sums, names ----------------> Verified: faults, warnings, how fast
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from bytropix.datasets.store import Manifest, PartRecord, Storage, open_storage
from bytropix.datasets.store.babylon import BABYLON
from bytropix.datasets.store.manifest import (
    MANIFEST,
    list_files,
    names_of,
    older_versions,
    read_manifest,
    version_name,
)
from bytropix.datasets.store.store import find_manifest
from bytropix.errors import StoreError
from bytropix.pipelines.ingest import Progress
from bytropix.pipelines.runner import Runner
from bytropix.pipelines.tools.part_check import Fault, PartCheck, check_files, check_part, patcher_key
from bytropix.pipelines.tools.video_check import hashes_by_name, wrong_sum


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What a check of a store found."""

    url: str
    """Where the store lies."""
    manifests: tuple[Manifest, ...]
    """The versions that were checked, the newest first."""
    faults: tuple[Fault, ...]
    """What is damaged or wrong; empty if the store is whole."""
    warnings: tuple[str, ...]
    """What is odd and harms nothing."""
    n_bytes: int
    """Bytes of the files that were hashed."""
    hash_seconds: float
    """How long hashing took, added up over the workers."""


def verify(
    place: str,
    runner: Runner,
    *,
    version: int | None = None,
    hashes_only: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Verified:
    """Check a store.

    Args:
        place: Its folder or URL.
        runner: Does the work, part by part.
        version: Check this version alone; all that are kept if `None`.
        hashes_only: Compare the files with the manifest, and leave out what is in them.
        progress: See `Progress`.

    Raises:
        StoreError: There is no such store or version.
    """
    storage = open_storage(place)
    manifests, faults = _manifests(storage, version)
    lost = bool(faults)  # with a manifest, what it names
    n_bytes, seconds = 0, 0.0
    good_tables = set()
    for manifest in manifests:
        table, listed = (
            check_files(storage, BABYLON, manifest.babylon),
            check_files(storage, "", (manifest.quarantine,)),
        )
        for size, took, found in (table, listed):
            n_bytes, seconds = n_bytes + size, seconds + took
            faults += found
        if not table[2]:
            good_tables.add(manifest.version)
        rows = None if listed[2] else storage.read(manifest.quarantine.path).tobytes().count(b"\n")
        faults += [Fault(part="", file="", offset=None, fault=said) for said in _broken_sums(manifest, rows)]
    hashes = {manifest.version: hashes_by_name(manifest) for manifest in manifests}
    tasks = (  # one by one, since there may be millions
        PartCheck(
            url=storage.url,
            record=record,
            patcher=patcher_key(manifest) if manifest.version in good_tables else "",
            val_fraction=manifest.config["val_fraction"],
            hashes_only=hashes_only,
            videos=_hashes(record, hashes[manifest.version]),
        )
        for manifest, record in _parts(manifests)
    )
    total = sum(file.size for _, record in _parts(manifests) for file in record.files)
    done = begun = 0
    progress("verify", done, total)
    for (_, record), checked in zip(_parts(manifests), runner.map(check_part, tasks), strict=True):
        n_bytes, seconds = n_bytes + checked.n_bytes, seconds + checked.seconds
        faults += checked.faults
        begun += checked.videos
        done += sum(file.size for file in record.files)
        progress("verify", done, total)
    for manifest in manifests if not (faults or hashes_only) else ():
        if manifest.kind == "video":  # which is of one version
            refused = storage.read(manifest.quarantine.path).tobytes()
            said = wrong_sum(manifest, refused, begun)
            faults += [Fault(part="", file="", offset=None, fault=what) for what in said]
    return Verified(
        url=storage.url,
        manifests=tuple(manifests),
        faults=tuple(dict.fromkeys(faults)),  # versions share their table
        warnings=tuple(_unnamed(storage, manifests) if version is None and not lost else ()),
        n_bytes=n_bytes,
        hash_seconds=seconds,
    )


def _hashes(record: PartRecord, hashes: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return name and sha256 of the sources of a part of video."""
    named = dict.fromkeys(span.source for span in record.spans) if hashes else ()
    return tuple((name, hashes[name]) for name in named if name in hashes)


def _manifests(storage: Storage, version: int | None) -> tuple[list[Manifest], list[Fault]]:
    """Return the manifests to check, the newest first, and the faults of those that are damaged, or lists of them."""
    if version is not None or storage.size(MANIFEST) is None:
        manifest = find_manifest(storage, version)[0]
        faults = list(_damaged_lists(storage, manifest))
        return [] if faults else [manifest], faults
    found, faults = [], []
    for name in [MANIFEST, *(version_name(older) for older in reversed(older_versions(storage)))]:
        try:
            manifest = read_manifest(storage, name)[0]
        except StoreError as error:
            said = str(error).removeprefix(f"{storage.url}/{name}: ")
            faults.append(Fault(part="", file=name, offset=None, fault=said))
            continue
        damaged = list(_damaged_lists(storage, manifest))
        faults += damaged
        found += [] if damaged else [manifest]
    return found, faults


def _damaged_lists(storage: Storage, manifest: Manifest) -> Iterator[Fault]:
    """Give the lists of a manifest that are missing or damaged, or hold what no list of ours does."""
    damaged = check_files(storage, "", list_files(manifest))[2]
    yield from damaged
    for rows in () if damaged else (manifest.parts, manifest.sources):
        try:
            for _ in rows:
                pass
        except StoreError as error:
            file, _, said = str(error).removeprefix(f"{storage.url}/").partition(", ")
            yield Fault(part="", file=file, offset=None, fault=said)


def _parts(manifests: list[Manifest]) -> Iterator[tuple[Manifest, PartRecord]]:
    """Give each part once, however many versions hold it."""
    seen = set()
    for manifest in manifests:
        for record in manifest.parts:
            key = hashlib.sha256(repr((record.folder, record.name, record.files)).encode()).digest()
            if key not in seen:
                seen.add(key)
                yield manifest, record


def _broken_sums(manifest: Manifest, rows: int | None) -> Iterator[str]:
    """Give what does not add up in a manifest; `rows` are those of its list of what was refused, if that is whole."""
    version = f"version {manifest.version}: "
    out = manifest.documents + sum(manifest.dropped.values()) + manifest.quarantined
    if manifest.kind != "video" and manifest.documents_in not in (None, out):
        yield f"{version}{manifest.documents_in} documents came in, {out} were stored, dropped or quarantined"
    if rows not in (None, manifest.quarantined):
        yield f"{version}{rows} rows of {manifest.quarantine.path} instead of {manifest.quarantined}"
    known = {source.name for source in manifest.sources}
    for record in manifest.parts:
        strange = [span.source for span in record.spans if span.source not in known]
        if strange:
            yield f"{version}{record.split}/{record.name} holds documents of {strange[0]}, which is no source"
        if record.n_bytes != sum(span.n_bytes for span in record.spans):
            yield f"{version}the spans of {record.split}/{record.name} do not add up to its bytes"
    places = [(record.split, record.name) for record in manifest.parts]
    if len(set(places)) < len(places):
        yield f"{version}a part is named twice"


def _unnamed(storage: Storage, manifests: list[Manifest]) -> Iterator[str]:
    """Give files that no version names."""
    named = {MANIFEST} | {version_name(older) for older in older_versions(storage)}
    named = named.union(*(names_of(manifest) for manifest in manifests))
    for name in storage.sizes():
        if name not in named:
            yield f"{name}: no version names it; a job that ended early left it"
