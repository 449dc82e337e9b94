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
    receipt = {"key": key, "record": to_plain(record)}
    storage.write(receipt_name(record.split, record.name), json.dumps(receipt, sort_keys=True).encode())


def finished(storage: Storage, split: str, name: str, key: str) -> PartRecord | None:
    """Return the record of a part that an earlier run finished under the same key and that is whole, else `None`."""
    try:
        receipt: dict[str, Any] = json.loads(storage.read(receipt_name(split, name)).tobytes())
        record = from_plain(PartRecord, receipt["record"])
        whole = receipt["key"] == key and same_files(storage, record.folder, record.files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError, StoreError):
        return None
    return record if whole else None
