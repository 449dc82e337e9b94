"""Damaged files of a store fetched from another place where they lie as they were recorded.

file -> its record in a manifest -> is it in a copy, with its size and hash? -> written in place of the damaged one
"""

from collections.abc import Iterable

from bytropix.datasets.store import FileRecord, Manifest, Storage
from bytropix.datasets.store.manifest import list_files, named_here, record_groups
from bytropix.datasets.store.storage import same_files
from bytropix.errors import StoreError


def mend_from_copies(
    storage: Storage, manifests: Iterable[Manifest], bad: set[str], copies: Iterable[Storage]
) -> list[str]:
    """Put files in place of damaged ones, which leave `bad`; return their names below the store.

    Args:
        storage: The store's.
        manifests: Of all versions that are kept.
        bad: Names of damaged files, below the store.
        copies: Where else they may lie, under the same names.

    Raises:
        StoreError: The disk is full, or a place cannot be reached.
    """
    mended = []
    for name, file in _recorded(manifests):
        found = next((copy for copy in copies if name in bad and same_files(copy, _folder(name, file), [file])), None)
        if found is not None:
            with storage.open_write(name) as target:
                target.write(found.read(name).data)
            bad.remove(name)
            mended.append(name)
    return mended


def _recorded(manifests: Iterable[Manifest]) -> Iterable[tuple[str, FileRecord]]:
    """Give the name, below the store, and the record of every file that manifests speak of, lists first."""
    for manifest in manifests:
        yield from ((file.path, file) for file in list_files(manifest))
        try:
            for folder, files in record_groups(manifest):
                yield from ((f"{folder}/{file.path}" if folder else file.path, file) for file in files)
        except StoreError:  # a list is lost, and with it what it names
            for folder, files in named_here(manifest):
                yield from ((f"{folder}/{file.path}" if folder else file.path, file) for file in files)


def _folder(name: str, file: FileRecord) -> str:
    """Return the folder that a record is below."""
    return name.removesuffix(file.path).rstrip("/")
