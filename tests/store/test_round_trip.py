"""A part is a plain Zarr group, and our reader finds in it what plain zarr finds."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from bytropix.datasets.store import Part, PartArrays, PartLayout, Store, open_part, open_storage, write_part
from bytropix.datasets.store.schema import BLOCK_BYTES, doc_meta_line, dump_row


def test_plain_zarr_reads_the_same(shared_store: Path) -> None:
    """zarr-python, which knows nothing of us, opens every part; both readers agree on every array."""
    store = Store.open(shared_store)
    for part in [*store.parts("train"), *store.parts("val")]:
        group = zarr.open_group(part.url, mode="r")
        arrays = {name: np.asarray(array[:]) for name, array in group.arrays()}

        assert sorted(arrays) == ["bytes", "doc_ends", "doc_meta", "entropy", "starts"]
        assert [arrays[name].dtype.str for name in sorted(arrays)] == ["|u1", "<i8", "|u1", "|u1", "|u1"]
        for name in ("bytes", "entropy", "starts"):
            np.testing.assert_array_equal(arrays[name], part.read(name, 0, len(arrays[name])))
        np.testing.assert_array_equal(arrays["doc_ends"], part.doc_ends)
        assert [json.loads(line) for line in arrays["doc_meta"].tobytes().splitlines()] == part.doc_meta()
        assert (len(arrays["bytes"]), len(arrays["starts"])) == (part.n_bytes, -(-part.n_bytes // 8))


def test_layout_is_the_documented_one(shared_store: Path) -> None:
    """Manifest, table, quarantine and parts lie where the architecture says, one data file to an array."""
    part = shared_store / "parts" / "train" / "00001.zarr"

    assert sorted(path.name for path in shared_store.iterdir()) == [
        "babylon",
        "manifest.json",
        "parts",
        "quarantine.jsonl",
    ]
    assert sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file()) == [
        name
        for array in ("bytes", "doc_ends", "doc_meta", "entropy", "starts")
        for name in (f"{array}/c/0", f"{array}/zarr.json")
    ] + ["zarr.json"]


@pytest.mark.parametrize("codec", ["zstd", "none"])
@pytest.mark.parametrize(
    "size", [1, 7, 8, 9, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 8 * BLOCK_BYTES, 8 * BLOCK_BYTES + 1]
)
def test_sizes_around_block_borders(tmp_path: Path, codec: str, size: int) -> None:
    """Parts that end just before, at and after a block of bytes or of start bits come back whole, from both readers."""
    generator = np.random.default_rng(size)
    text, entropy = generator.integers(0, 256, (2, size), np.uint8)
    starts = generator.random(size) < 0.3
    ends = np.arange(1, size + 1, dtype=np.int64)[-min(size, 40_000) :]
    arrays = PartArrays(text, entropy, starts, ends, b"{}\n" * len(ends))
    storage, layout = open_storage(tmp_path), PartLayout(codec=codec)  # type: ignore[arg-type]
    record = write_part(storage, "train", "p.zarr", arrays, layout=layout, spans=(), patch_lengths=(0, 1))
    part, plain = open_part(storage, record), zarr.open_group(tmp_path / "parts" / "train" / "p.zarr", mode="r")
    for name, wanted in (("bytes", text), ("entropy", entropy), ("starts", np.packbits(starts, bitorder="little"))):
        np.testing.assert_array_equal(wanted, part.read(name, 0, len(wanted)))
        np.testing.assert_array_equal(wanted, np.asarray(plain[name][:]))  # type: ignore[index]
    np.testing.assert_array_equal(ends, part.doc_ends)
    assert len(ends) == len(part.doc_meta())


@pytest.mark.parametrize("source", ["a.txt", 'é"\\\n', "\udc80"])
@pytest.mark.parametrize(("record", "of"), [("", 0), ("m/1", 0), ("m/1", 7), ("", 7)])
def test_rows_of_documents_are_plain_json(source: str, record: str, of: int) -> None:
    """A row that is put together by hand is what the JSON writer makes of it, keys sorted, byte for byte."""
    row: dict[str, object] = {"offset": 12, "source": source, "record": record, "of": of}

    assert dump_row({name: value for name, value in row.items() if value or name in ("offset", "source")}) == (
        doc_meta_line(source=source, offset=12, record=record, of=of)
    )


def test_reads_of_any_stretch(shared_store: Path) -> None:
    """A stretch that begins and ends inside blocks is the same stretch of the whole."""
    part = Store.open(shared_store).parts("train")[0]
    whole = part.read("bytes", 0, part.n_bytes)
    generator = np.random.default_rng(3)
    for start, stop in np.sort(generator.integers(0, part.n_bytes, (50, 2))):
        np.testing.assert_array_equal(whole[start:stop], part.read("bytes", int(start), int(stop)))


def test_raw_blocks_are_views(shared_store: Path) -> None:
    """A block of an uncompressed part is the mapped file itself; one of a compressed part is memory of its own."""
    part = Store.open(shared_store).parts("train")[0]

    assert part.mapped == (not part.record.compressed)
    if part.mapped:
        assert np.shares_memory(part.block("bytes", 0), part.whole("bytes"))
    else:
        assert not np.shares_memory(part.block("bytes", 0), part.block("bytes", 0))


def test_threads_share_one_map(shared_store: Path) -> None:
    """Readers keep addresses of blocks, so threads that open an array at the same moment must get the same map."""
    for _ in range(20):
        part = Store.open(shared_store).parts("train")[0]
        together = threading.Barrier(4)

        def opened(part: Part = part, together: threading.Barrier = together) -> object:
            together.wait()
            return part._array("bytes")._file(0)

        with ThreadPoolExecutor(4) as executor:
            tasks = [executor.submit(opened) for _ in range(4)]

        assert len({id(task.result()) for task in tasks}) == 1


def test_same_arrays_are_the_same_files(tmp_path: Path) -> None:
    """Writing a part twice gives equal records, hashes included."""
    text = np.arange(100_000, dtype=np.int64).astype(np.uint8)
    arrays = PartArrays(text, text, text < 9, np.array([100_000]), b"{}\n")
    one, two = (
        write_part(
            open_storage(tmp_path / name),
            "train",
            "p.zarr",
            arrays,
            layout=PartLayout(),
            spans=(),
            patch_lengths=(0, 1),
        )
        for name in "ab"
    )

    assert one == two
