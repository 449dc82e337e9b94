"""The benchmark of scale: its stores of one part, named again and again, are stores like any other."""

from pathlib import Path

import pytest

from bytropix.datasets.store import Store
from bytropix.datasets.stream import ByteStream
from bytropix.errors import StoreError
from bytropix.jobs.bench.scale import WINDOW, forge_manifest, forge_store, opening, order_memory, resuming

TEXT = bytes(range(97, 123)) * 4_000
PART_BYTES, PARTS = len(TEXT), 2_000


def test_every_row_of_a_forged_store_can_be_read(tmp_path: Path) -> None:
    """A batch from anywhere holds the text, and figures come of it, each with a target."""
    place = tmp_path / "s.bx"
    forge_store(place, TEXT, PART_BYTES, PARTS * PART_BYTES)
    stream = ByteStream(Store.open(place), context=WINDOW - 1, batch=8)
    stream.load_state_dict(stream.state_dict() | {"position": stream.windows // 2})
    batch = next(iter(stream))

    assert stream.n_bytes >= PARTS * PART_BYTES
    assert all(row.tobytes() in 3 * TEXT for row in batch.bytes.numpy())
    rows = [opening(place, "100 kB", 1), resuming(place, 1), order_memory()]
    assert all(row.value and row.targets for row in rows)
    assert rows[2].met(rows[2].targets[0])


def test_a_forged_manifest_opens_and_has_no_rows(tmp_path: Path) -> None:
    """Without its parts a store opens, and tells of the first that is touched."""
    place = tmp_path / "s.bx"
    forge_manifest(place, TEXT, 1 << 30, 1 << 40)
    stream = ByteStream(Store.open(place), context=WINDOW - 1, batch=8)

    with pytest.raises(StoreError, match="do not trust it"):
        next(iter(stream))
