"""A stream of a harmed store: an error that says where, or rows left out and counted, and never a wrong row."""

import json
from pathlib import Path

import google_crc32c
import pytest

from bytropix.datasets import ByteStream
from bytropix.datasets.store import PartLayout, Store
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.errors import ConfigError, StoreError
from bytropix.jobs.bench.fault_table import harmed
from bytropix.jobs.bench.faults import Fault
from bytropix.jobs.bench.forge import vouched
from bytropix.jobs.bench.stream_faults import harm_streams, suffer_quarantine, suffer_stream
from bytropix.jobs.bench.victim import LAYOUTS, VERSIONS, Victim, make_victim

TEXT = "parts/train/00000.zarr/bytes/c/0"


def test_every_fault_is_met_before_a_wrong_row(tmp_path: Path) -> None:
    """One fault of each kind and 25 random ones in each layout, under both policies; the bench does a thousand."""
    raised, left_out, failures = harm_streams(tmp_path, each=1, random=25)

    assert failures == []
    for tally in (raised, left_out):
        assert set(tally["random"]) == set(LAYOUTS)
        assert all(sum(found.total() for found in kind.values()) for kind in tally.values())
    for layout in LAYOUTS:
        assert raised["random"][layout]["named"] > 5
        assert left_out["random"][layout]["left out"] > 0


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """A store without compression."""
    return make_victim(tmp_path_factory.mktemp("victim") / "s.bx", PartLayout(codec="none"))


def test_a_wrong_row_would_be_found_out(victim: Victim) -> None:
    """Where metadata and manifest vouch for a changed byte no reader can tell; the comparison with the truth does."""
    data = bytearray(victim.files[TEXT])
    data[1000] ^= 1
    metadata = "parts/train/00000.zarr/bytes/zarr.json"
    meta = json.loads(victim.files[metadata])
    meta["attributes"]["block_crc32c"][0] = google_crc32c.value(bytes(data[:BLOCK_BYTES]))
    forged = Fault("forged", vouched(victim.files, {TEXT: bytes(data), metadata: json.dumps(meta).encode()}))
    epochs = {VERSIONS: victim.epoch}
    with harmed(victim, forged):
        assert suffer_stream(victim, forged, epochs)[0] == "wrong"
        assert suffer_quarantine(victim, forged, epochs)[0] == "wrong"
    flipped = Fault("flip", {TEXT: bytes(data)})
    with harmed(victim, flipped):
        assert suffer_stream(victim, flipped, epochs) == ("named", "")
        assert suffer_quarantine(victim, flipped, epochs) == ("left out", "")


@pytest.mark.parametrize("prefetch", [True, False])
def test_what_is_left_out_is_listed(victim: Victim, prefetch: bool) -> None:
    """Two damaged blocks: their rows are empty in every epoch, and one less is over the budget."""
    data = bytearray(victim.files[TEXT])
    for block in (1, 3):
        data[block * BLOCK_BYTES + 5] ^= 64
    with harmed(victim, Fault("two blocks", {TEXT: bytes(data)})):

        def read(budget: int) -> tuple[int, list[tuple[str, int, str]]]:
            stream = ByteStream(
                Store.open(victim.path),
                context=1023,
                batch=16,
                epochs=2,
                last="short",
                checks="quarantine",
                budget=budget,
                prefetch=prefetch,
            )
            empty = sum(int((batch.lengths == 0).sum()) for batch in stream)
            return empty, [(damage.array, damage.block, damage.reason) for damage in stream.quarantined]

        empty, found = read(2)
        with pytest.raises(StoreError, match=rf"{TEXT}: block \d.*that makes 2 damaged blocks") as over:
            read(1)

    assert empty == 2 * 2 * BLOCK_BYTES // 1024
    assert sorted((array, block) for array, block, _ in found) == [("bytes", 1), ("bytes", 3)]
    assert all(TEXT in reason and f"at byte {block * BLOCK_BYTES} of the file" in reason for _, block, reason in found)
    assert over.value.offset in (BLOCK_BYTES, 3 * BLOCK_BYTES)


def test_policies_that_cannot_be(victim: Victim) -> None:
    """An unknown policy and a negative budget are refused at once."""
    for flags, said in (({"checks": "ignore"}, "checks must be one of"), ({"budget": -1}, "must not be negative")):
        with pytest.raises(ConfigError, match=said):
            ByteStream(Store.open(victim.path), context=63, batch=2, **flags)  # type: ignore[arg-type]
