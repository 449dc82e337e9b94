"""Opening stores.

place -> manifest.json, or that of an older version -> every file it names there, of its size -> Store -> parts
"""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from bytropix.datasets.store.babylon import BABYLON, load_patcher
from bytropix.datasets.store.formats import open_part
from bytropix.datasets.store.manifest import (
    MANIFEST,
    named_here,
    older_versions,
    read_manifest,
    version_name,
)
from bytropix.datasets.store.part import Part, parse_rows
from bytropix.datasets.store.parts import Parts, check_sizes, parts_by_split
from bytropix.datasets.store.rows import Rows
from bytropix.datasets.store.schema import Manifest
from bytropix.datasets.store.storage import Storage, open_storage, same_files
from bytropix.datasets.store.video_formats import open_video_part
from bytropix.datasets.store.video_part import VideoPart
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
        # Of a store of the other kind there are none, so that nobody takes it for an empty one.
        video = manifest.kind == "video"
        self._parts = {} if video else parts_by_split(storage, manifest.parts, open_part)
        self._video_parts = parts_by_split(storage, manifest.parts, open_video_part) if video else {}

    @classmethod
    def open(cls, place: str | Path, version: int | None = None) -> "Store":
        """Open a store.

        Every file that manifest.json itself names is then there with its size. Where parts lie in lists, since they are
        many, neither lists nor parts are looked at: a list is hashed, and a part's files are checked, when the part is
        first asked for.

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
        return sorted({**self._parts, **self._video_parts})

    def require(self, kind: str) -> None:
        """Refuse to be taken for a store of another kind, bytes or video.

        Raises:
            StoreError: It is not of this one.
        """
        found = self.manifest.kind
        if found != kind:
            instead = "ClipStream and `video_parts`" if found == "video" else "ByteStream and `parts`"
            raise StoreError(f"{self.url}: a store of {found}, where one of {kind} is needed; {instead} read it")

    def parts(self, split: str) -> Parts[Part]:
        """Return the parts of a split, in order, each opened when it is asked for; none if the split is empty.

        Raises:
            StoreError: The store is one of video.
        """
        self.require("bytes")
        nothing = np.empty(0, np.int64)
        return self._parts.get(split) or Parts(self.storage, (), nothing, nothing, open_part)

    def video_parts(self, split: str) -> Parts[VideoPart]:
        """Return the parts of a split of a store of video, as `parts` does.

        Raises:
            StoreError: The store is one of bytes.
        """
        self.require("video")
        nothing = np.empty(0, np.int64)
        return self._video_parts.get(split) or Parts(self.storage, (), nothing, nothing, open_video_part)

    def patcher(self) -> "Patcher":
        """Return the patcher that cut this store, from its table and settings.

        Raises:
            StoreError: The table is damaged, or the store is one of video.
        """
        self.require("bytes")
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
    unlisted = not storage.listed and version is not None and storage.size(version_name(version)) is not None
    if version is not None and (version in older or unlisted):
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
            f"{storage.url}: no such store; make one with `bytropix ingest bytes|video SOURCE --out {storage.url}`"
        )
    return StoreError(
        f"{storage.url}: unfinished or not a store (no manifest.json); run its ingest again with --resume"
    )


def _check_sizes(storage: Storage, manifest: Manifest) -> None:
    """Refuse files that are missing or of another size, of those that manifest.json itself names."""
    if not isinstance(manifest.parts, Rows):
        check_sizes(storage, named_here(manifest), below="")
        return
    for folder, files in named_here(manifest):  # a listing of all of a large store takes long
        check_sizes(storage, [(folder, files)], below=folder or None)
