"""Stores whose checksums are right and whose content is not, as a forger or a faulty writer would leave them.

files of a store, some changed -> sizes and hashes in the manifest follow -> the manifest is signed anew
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from bytropix.datasets.store import FileRecord
from bytropix.datasets.store.manifest import MANIFEST


def signed(plain: Any) -> bytes:
    """Return the text of a manifest, given as plain data, with its right checksum."""
    if not isinstance(plain, dict):
        return json.dumps(plain).encode()
    text = (json.dumps(plain | {"checksum": ""}, sort_keys=True) + "\n").encode()
    return signed_text(text)


def signed_text(text: bytes) -> bytes:
    """Return the text of a manifest, in which the checksum is empty, with its right checksum."""
    return text.replace(b'"checksum": ""', f'"checksum": "{hashlib.sha256(text).hexdigest()}"'.encode(), 1)


def vouched(files: Mapping[str, bytes], changes: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return changes to a store's files, and with them a manifest that vouches for what is changed.

    Args:
        files: The store's files by name.
        changes: New content of some.
    """
    plain = json.loads(files[MANIFEST])
    for name, record in _records(plain):
        if name in changes:
            record |= {"size": len(changes[name]), "sha256": FileRecord.hash_of(changes[name])}
    return {**changes, MANIFEST: signed(plain)}


def _records(plain: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give name and record of every file that a manifest, as plain data, speaks of."""
    for part in plain["parts"]:
        folder = f"parts/{part['split']}" + ("" if part["format"] == "webdataset" else f"/{part['name']}")
        yield from ((f"{folder}/{record['path']}", record) for record in part["files"])
    yield from ((f"babylon/{record['path']}", record) for record in plain["babylon"])
    yield plain["quarantine"]["path"], plain["quarantine"]
