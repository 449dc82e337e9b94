"""Opening and publishing stores.

    manifest.json -> checks (finished? version? whole? files there, of their size, inside the store?) -> Store

The manifest holds the sha256 of its own text, and that of every other file.
"""

import hashlib
import json
import re
import shutil
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store.commit import flush_folder, new_folder, record_files, room_for, same_files, write_file
from bytropix.datasets.store.part_reader import Part
from bytropix.datasets.store.part_writer import write_array
from bytropix.datasets.store.schema import FORMAT_VERSION, FileRecord, Manifest
from bytropix.errors import ConfigError, StoreError
from bytropix.patching import EntropyTable, Patcher

_CHECKSUM = re.compile(rb'"checksum": "([0-9a-f]{64})"')


class Store:
    """A finished store, open for reading.

    Attributes:
        path: Its folder.
        manifest: What it holds.
        fingerprint: sha256 of manifest.json, in hex; two stores of one fingerprint hold the same bytes.
    """

    def __init__(self, path: Path, manifest: Manifest, fingerprint: str) -> None:
        self.path, self.manifest, self.fingerprint = path, manifest, fingerprint
        self._parts = [Part(path, record) for record in manifest.parts]

    @classmethod
    def open(cls, path: str | Path) -> "Store":
        """Open a store.

        Raises:
            StoreError: It is missing, unfinished, newer than this version, or damaged.
        """
        root = Path(path)
        if not root.is_dir():
            raise StoreError(f"{root}: no such store; make one with `bytropix ingest bytes SOURCE --out {root}`")
        file = root / "manifest.json"
        if not file.is_file():
            raise StoreError(
                f"{root}: unfinished or not a store (no manifest.json); run its ingest again with --resume"
            )
        data = file.read_bytes()
        manifest = _parse(file, data)
        for record in manifest.parts:
            _check_files(root, ("parts", record.split, record.name), record.files)
        _check_files(root, ("babylon",), manifest.babylon)
        _check_files(root, (), (manifest.quarantine,))
        return cls(root, manifest, hashlib.sha256(data).hexdigest())

    @property
    def splits(self) -> list[str]:
        """Names of the splits that hold something."""
        return sorted({part.split for part in self._parts})

    def parts(self, split: str) -> list[Part]:
        """Return the parts of a split, in order; none if the split is empty."""
        return [part for part in self._parts if part.split == split]

    def patcher(self) -> Patcher:
        """Return the patcher that cut this store, from its table and settings.

        Raises:
            StoreError: The table is damaged.
        """
        if not same_files(self.path / "babylon", self.manifest.babylon):
            raise StoreError(
                f"{self.path / 'babylon'}: the entropy table is damaged (a hash is wrong); restore it or ingest again"
            )
        return load_patcher(self.path, self.manifest.patcher)

    def quarantine(self) -> list[dict[str, Any]]:
        """Return one row per input that was refused: path, reason, bytes_read.

        Raises:
            StoreError: The list is damaged.
        """
        path = self.path / "quarantine.jsonl"
        if not same_files(self.path, (self.manifest.quarantine,)):
            raise StoreError(f"{path}: damaged (its hash is wrong); restore it or ingest again")
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_patcher(root: Path, patcher: Patcher) -> dict[str, Any]:
    """Write the table of a patcher below `root` and return its settings for the manifest."""
    with new_folder(root / "babylon") as beside:
        group = zarr.open_group(beside, mode="w", attributes={"measure": patcher.table.measure})
        for name, values in patcher.table.arrays().items():
            write_array(group, beside, name, values, codec="zstd")
    return patcher.settings()


def load_patcher(root: Path, settings: dict[str, Any]) -> Patcher:
    """Return the patcher of `settings` with the table below `root`.

    Raises:
        StoreError: The table is missing or damaged.
    """
    try:
        group = zarr.open_group(root / "babylon", mode="r")
        arrays = {name: np.asarray(array[:]) for name, array in group.arrays()}
        table = EntropyTable.from_arrays(arrays, typing.cast(Any, group.attrs["measure"]))
        return Patcher.from_settings(settings, table)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        raise StoreError(
            f"{root / 'babylon'}: the entropy table is damaged ({error}); restore it or ingest again"
        ) from error


def patcher_files(root: Path) -> tuple[FileRecord, ...]:
    """Return every file of the table that `write_patcher` wrote."""
    return record_files(root / "babylon")


def publish(root: Path, manifest: Manifest) -> None:
    """Write manifest.json, which makes the store whole, after everything that it does not name has gone."""
    with room_for(root):
        sweep(root, {f"parts/{part.split}/{part.name}" for part in manifest.parts} | {"babylon", "quarantine.jsonl"})
        flush_folder(root)
        flush_folder(root.absolute().parent)
    write_file(root / "manifest.json", manifest_text(manifest))


def sweep(root: Path, keep: set[str]) -> None:
    """Remove what is not in `keep` from a store: receipts, half-written things, parts of another plan."""
    places = [*root.iterdir(), *(root / "parts").iterdir(), *(root / "parts").glob("*/*")]
    for path in places:
        name = path.relative_to(root).as_posix()
        if not any(kept == name or kept.startswith(f"{name}/") for kept in keep) and path.exists():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def manifest_text(manifest: Manifest) -> bytes:
    """Return the manifest as JSON that holds the sha256 of itself, taken with an empty checksum."""
    plain = {"checksum": "", **to_plain(manifest)}
    text = (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()
    return text.replace(b'"checksum": ""', f'"checksum": "{hashlib.sha256(text).hexdigest()}"'.encode(), 1)


def _parse(file: Path, data: bytes) -> Manifest:
    """Return the manifest in `data`."""
    try:
        plain = json.loads(data)
        version = plain["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file}: damaged ({error}); restore it or ingest again") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreError(
            f"{file}: format version {version!r} is newer than this bytropix reads ({FORMAT_VERSION}); upgrade bytropix"
        )
    found = _CHECKSUM.search(data)
    blank = _CHECKSUM.sub(b'"checksum": ""', data, count=1)
    if found is None or found[1] != hashlib.sha256(blank).hexdigest().encode():
        raise StoreError(f"{file}: damaged (its checksum is wrong); restore it or ingest again")
    try:
        return from_plain(Manifest, {key: value for key, value in plain.items() if key != "checksum"})
    except ConfigError as error:
        raise StoreError(f"{file}: damaged ({error}); restore it or ingest again") from error


def _check_files(root: Path, folder: Sequence[str], files: tuple[FileRecord, ...]) -> None:
    """Refuse files that are missing, of another size, or outside the store."""
    for name in (*folder, *(file.path for file in files)):
        steps = name.split("/")
        if not all(steps) or {".", ".."} & set(steps) or "\\" in name or ":" in name:
            raise StoreError(
                f"{root / 'manifest.json'}: names {name!r}, which is no path inside the store; do not trust it"
            )
    place = root.joinpath(*folder)
    for file in files:
        path = place / file.path
        size = path.stat().st_size if path.is_file() else None
        if size != file.size:
            found = "missing" if size is None else f"{size} bytes instead of {file.size}"
            raise StoreError(f"{path}: {found}; the store is damaged: restore the file or ingest again")
