"""Receipts of parts that are written but not published, so that a run that died need not write them again.

part -> receipts/<split>-<name>.json: its record, under a key of all that decides its bytes -> skipped by the rerun
"""

import hashlib
import json
from typing import Any

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store import PartRecord, Storage
from bytropix.datasets.store.storage import same_files
from bytropix.errors import ConfigError, StoreError

RECEIPTS = "receipts"


def key_of(*what: object) -> str:
    """Return a hash of all that decides a part's bytes, given as dataclasses or plain data."""
    return hashlib.sha256(json.dumps([to_plain(one) for one in what], sort_keys=True).encode()).hexdigest()


def receipt_name(split: str, name: str) -> str:
    """Return where the receipt of a part lies until the store is published."""
    return f"{RECEIPTS}/{split}-{name}.json"


def keep_receipt(storage: Storage, record: PartRecord, key: str) -> None:
    """Write the receipt of a part that is there.

    Args:
        storage: The store's.
        record: Of the part.
        key: Hash of all that decides its bytes.
    """
    write_receipt(storage, record.split, record.name, key, {"record": to_plain(record)})


def finished(storage: Storage, split: str, name: str, key: str) -> PartRecord | None:
    """Return the record of a part that an earlier run finished under the same key and that is whole, else `None`."""
    try:
        receipt = read_receipt(storage, split, name, key)
        record = from_plain(PartRecord, receipt["record"])
    except (KeyError, TypeError, ConfigError):
        return None
    return record if is_whole(storage, record) else None


def write_receipt(storage: Storage, split: str, name: str, key: str, what: dict[str, Any]) -> None:
    """Write a receipt: plain data under the hash of all that decides it."""
    storage.write(receipt_name(split, name), json.dumps({"key": key, **what}, sort_keys=True).encode())


def read_receipt(storage: Storage, split: str, name: str, key: str) -> dict[str, Any]:
    """Return what a receipt under this key holds; nothing if there is none, or one of another key."""
    try:
        receipt: dict[str, Any] = json.loads(storage.read(receipt_name(split, name)).tobytes())
        return receipt if receipt["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, StoreError):
        return {}


def is_whole(storage: Storage, record: PartRecord) -> bool:
    """Return whether every file of a part is there as its record says."""
    try:
        return same_files(storage, record.folder, record.files)
    except (OSError, StoreError):
        return False
