"""Opening stores.

place -> manifest.json, or that of an older version -> every file there, of its size -> Store -> parts
"""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bytropix.datasets.store.babylon import BABYLON, load_patcher
from bytropix.datasets.store.formats import open_part
from bytropix.datasets.store.manifest import (
    MANIFEST,
    older_versions,
    read_manifest,
    record_groups,
    version_name,
)
from bytropix.datasets.store.part import Part, parse_rows
from bytropix.datasets.store.schema import Manifest
from bytropix.datasets.store.storage import Storage, open_storage, same_files
from bytropix.errors import StoreError

if TYPE_CHECKING:
    from bytropix.patching import Patcher


class Store:
    """A finished store, open for reading.

    Attributes:
        storage: Where it lies.
        manifest: What it holds.
        fingerprint: sha256 of its manifest, in hex; two stores of one fingerprint hold the same bytes.
    """

    def __init__(self, storage: Storage, manifest: Manifest, fingerprint: str) -> None:
        self.storage, self.manifest, self.fingerprint = storage, manifest, fingerprint
        self._parts = [open_part(storage, record) for record in manifest.parts]

    @classmethod
    def open(cls, place: str | Path, version: int | None = None) -> "Store":
        """Open a store.

        Args:
            place: Its folder or URL.
            version: Which version; the newest if `None`.

        Raises:
            StoreError: It is missing, unfinished, newer than this version, or damaged.
        """
        storage = open_storage(place)
        manifest, fingerprint = find_manifest(storage, version)
        _check_sizes(storage, manifest)
        return cls(storage, manifest, fingerprint)

    @property
    def url(self) -> str:
        """Where it lies: its folder or URL."""
        return self.storage.url

    @property
    def name(self) -> str:
        """The last step of its place, by custom NAME.bx."""
        return Path(self.url).name if self.storage.local else PurePosixPath(self.url).name

    @property
    def path(self) -> Path:
        """Its folder.

        Raises:
            StoreError: It lies on no disk of this machine.
        """
        if self.storage.local is None:
            raise StoreError(f"{self.url}: this needs a store on a disk; copy it to one first")
        return self.storage.local

    @property
    def splits(self) -> list[str]:
        """Names of the splits that hold something."""
        return sorted({part.split for part in self._parts})

    def parts(self, split: str) -> list[Part]:
        """Return the parts of a split, in order; none if the split is empty."""
        return [part for part in self._parts if part.split == split]

    def patcher(self) -> "Patcher":
        """Return the patcher that cut this store, from its table and settings.

        Raises:
            StoreError: The table is damaged.
        """
        if not same_files(self.storage, BABYLON, self.manifest.babylon):
            raise StoreError(
                f"{self.url}/{BABYLON}: the entropy table is damaged (a hash is wrong); restore it or ingest again"
            )
        return load_patcher(self.storage, self.manifest.patcher)

    def quarantine(self) -> list[dict[str, Any]]:
        """Return one row per input that was refused: path, reason, bytes_read.

        Raises:
            StoreError: The list is damaged.
        """
        file = self.manifest.quarantine
        if not same_files(self.storage, "", [file]):
            raise StoreError(f"{self.url}/{file.path}: damaged (its hash is wrong); restore it or ingest again")
        return parse_rows(self.storage.read(file.path).tobytes(), f"{self.url}/{file.path}")


def find_manifest(storage: Storage, version: int | None = None) -> tuple[Manifest, str]:
    """Return the manifest of a version, the newest if `None`, and its fingerprint; whatever else is there.

    Raises:
        StoreError: There is no such store or version, or the manifest is damaged.
    """
    if storage.size(MANIFEST) is None:
        raise _unfinished(storage)
    older = older_versions(storage)
    if version is not None and version in older:
        return read_manifest(storage, version_name(version))
    manifest, fingerprint = read_manifest(storage)
    if older and manifest.version < older[-1]:
        raise StoreError(
            f"{storage.url}/{MANIFEST}: is that of version {manifest.version}, but version {older[-1]} is kept as an "
            "older one; restore the newest manifest.json from a copy"
        )
    if version not in (None, manifest.version):
        raise StoreError(
            f"{storage.url}: there is no version {version}; the newest is {manifest.version}, "
            f"older ones that are kept: {older or 'none'}"
        )
    return manifest, fingerprint


def _unfinished(storage: Storage) -> StoreError:
    """Return what to say of a place without a manifest."""
    if not storage.sizes():
        return StoreError(
            f"{storage.url}: no such store; make one with `bytropix ingest bytes SOURCE --out {storage.url}`"
        )
    return StoreError(
        f"{storage.url}: unfinished or not a store (no manifest.json); run its ingest again with --resume"
    )


def _check_sizes(storage: Storage, manifest: Manifest) -> None:
    """Refuse files that are missing or of another size."""
    sizes: dict[str, int] = {}
    if storage.local is None:  # one listing instead of a question for each file
        sizes = storage.sizes()
    for folder, files in record_groups(manifest):
        for file in files:
            name = f"{folder}/{file.path}" if folder else file.path
            size = storage.size(name) if storage.local is not None else sizes.get(name)
            if size != file.size:
                found = "missing" if size is None else f"{size} bytes instead of {file.size}"
                raise StoreError(
                    f"{storage.url}/{name}: {found}; the store is damaged: mend it with `bytropix verify --repair`, "
                    "restore the file, or ingest again"
                )
