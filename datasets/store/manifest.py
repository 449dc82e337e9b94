"""Opening and publishing stores.

manifest.json -> checks (finished? version? files there, of their size, inside the store?) -> Store
"""

import hashlib
import json
import typing
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store.commit import new_folder, write_file
from bytropix.datasets.store.part_reader import Part
from bytropix.datasets.store.part_writer import write_array
from bytropix.datasets.store.schema import FORMAT_VERSION, Manifest, PartRecord
from bytropix.errors import ConfigError, StoreError
from bytropix.patching import EntropyTable, Patcher


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
            _check_files(root, record)
        return cls(root, manifest, hashlib.sha256(data).hexdigest())

    @property
    def splits(self) -> list[str]:
        """Names of the splits that hold something."""
        return sorted({part.split for part in self._parts})

    def parts(self, split: str) -> list[Part]:
        """Return the parts of a split, in order; none if the split is empty."""
        return [part for part in self._parts if part.split == split]

    def patcher(self) -> Patcher:
        """Return the patcher that cut this store, from its table and settings."""
        return load_patcher(self.path, self.manifest.patcher)


def write_patcher(root: Path, patcher: Patcher) -> dict[str, Any]:
    """Write the table of a patcher below `root` and return its settings for the manifest."""
    with new_folder(root / "babylon") as beside:
        group = zarr.open_group(beside, mode="w", attributes={"measure": patcher.table.measure})
        for name, values in patcher.table.arrays().items():
            write_array(group, name, values, codec="zstd")
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
    except (OSError, KeyError, ValueError, RuntimeError, ConfigError) as error:
        raise StoreError(
            f"{root / 'babylon'}: the entropy table is damaged ({error}); restore it or ingest again"
        ) from error


def publish(root: Path, manifest: Manifest) -> None:
    """Write manifest.json, which makes the store whole."""
    write_file(root / "manifest.json", (json.dumps(to_plain(manifest), indent=1, sort_keys=True) + "\n").encode())


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
    try:
        return from_plain(Manifest, plain)
    except ConfigError as error:
        raise StoreError(f"{file}: damaged ({error}); restore it or ingest again") from error


def _check_files(root: Path, record: PartRecord) -> None:
    """Refuse a part whose files are missing, of another size, or outside the store."""
    names = [record.split, record.name, *(file.path for file in record.files)]
    for name in names:
        parts = name.split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\\" in name or ":" in name:
            raise StoreError(
                f"{root / 'manifest.json'}: names {name!r}, which is no path inside the store; do not trust it"
            )
    folder = root / "parts" / record.split / record.name
    for file in record.files:
        path = folder / file.path
        size = path.stat().st_size if path.is_file() else None
        if size != file.size:
            found = "missing" if size is None else f"{size} bytes instead of {file.size}"
            raise StoreError(f"{path}: {found}; the store is damaged: restore the file or ingest again")
