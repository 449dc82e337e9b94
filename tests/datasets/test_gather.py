"""The batch gather: bytes and start bits as stored, from mapped and from decoded blocks."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.datasets.blocks import MOST_MAPPED
from bytropix.datasets.gather import CACHE_BYTES, Gatherer, Rows
from bytropix.datasets.quarantine import Quarantine
from bytropix.datasets.windows import Runs
from bytropix.errors import StoreError


class ArrayPart:
    """A part in memory, cut into blocks; counts how often each block is fetched."""

    def __init__(self, size: int, *, block: int, compressed: bool, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.text = generator.integers(0, 256, size, dtype=np.uint8)
        self.flags = generator.random(size) < 0.2
        self.n_bytes = size
        self.mapped, self.remote = not compressed, False
        self.url = f"part-{seed}"
        self.fetched: list[tuple[str, int]] = []
        self.block_bytes = block
        self._arrays = {"bytes": self.text, "starts": np.packbits(self.flags, bitorder="little")}

    def whole(self, name: str) -> NDArray[np.uint8]:
        """Return an array as one view."""
        return self._arrays[name]

    def prefetch(self, name: str, first: int, stop: int) -> None:
        """Do nothing: everything is here."""

    def block(self, name: str, index: int) -> NDArray[np.uint8]:
        """Return one block, a copy if this part counts as compressed."""
        self.fetched.append((name, index))
        found = self._arrays[name][index * self.block_bytes : (index + 1) * self.block_bytes]
        return found.copy() if not self.mapped else found


class BrokenPart(ArrayPart):
    """A part whose second block of text cannot be read."""

    def block(self, name: str, index: int) -> NDArray[np.uint8]:
        """Refuse block 1 of the text."""
        if (name, index) == ("bytes", 1):
            raise StoreError("part 00000, block 1: wrong checksum")
        return super().block(name, index)


def gatherer(parts: list[ArrayPart], *, cache_bytes: int = CACHE_BYTES) -> Gatherer:
    """Return a gatherer of parts in memory, whose blocks are small."""
    sizes = np.array([part.n_bytes for part in parts], dtype=np.int64)
    return Gatherer(parts, sizes, cache_bytes=cache_bytes, block_bytes=parts[0].block_bytes)


def single(windows: list[tuple[int, int, int]]) -> Runs:
    """Return rows of one (part, offset, length) each."""
    part, offset, length = (np.array(column, dtype=np.int64) for column in zip(*windows, strict=True))
    return Runs.single(part, offset, offset + length)


def gathered(parts: list[ArrayPart], windows: list[tuple[int, int, int]], *, width: int, counted: int) -> Rows:
    """Gather (part, offset, length) windows."""
    return gatherer(parts)(single(windows), width=width, counted=counted)


def check(parts: list[ArrayPart], windows: list[tuple[int, int, int]], rows: Rows, counted: int) -> None:
    """Compare gathered rows with slices of the parts, one by one."""
    for row, (part, offset, length) in enumerate(windows):
        expected_flags = parts[part].flags[offset : offset + length].copy()
        expected_flags[0] = True
        assert parts[part].text[offset : offset + length].tolist() == rows.bytes[row, :length].tolist()
        assert expected_flags.tolist() == rows.starts[row, :length].tolist()
        assert not rows.bytes[row, length:].any()
        assert not np.unpackbits(rows.bits[row], bitorder="little")[length:].any()
        assert int(expected_flags[:counted].sum()) == rows.patches[row]


@st.composite
def window_lists(draw: st.DrawFn) -> tuple[list[tuple[int, int, int]], int, int]:
    """Draw windows of two parts of 500 and 333 bytes, with a row width and a counted width."""
    width = draw(st.integers(1, 200))
    windows = []
    for _ in range(draw(st.integers(1, 12))):
        part = draw(st.integers(0, 1))
        length = draw(st.integers(1, width))
        windows.append((part, draw(st.integers(0, (500, 333)[part] - length)), length))
    return windows, width, draw(st.integers(0, width))


@settings(deadline=None)
@given(drawn=window_lists(), block=st.sampled_from([1, 7, 64, 1000]), compressed=st.booleans())
def test_rows_are_the_stored_bytes_and_bits(
    drawn: tuple[list[tuple[int, int, int]], int, int], block: int, compressed: bool
) -> None:
    """Any windows, bit offsets, block borders and row widths, mapped or decoded."""
    windows, width, counted = drawn
    parts = [ArrayPart(size, block=block, compressed=compressed, seed=seed) for seed, size in enumerate((500, 333))]
    check(parts, windows, gathered(parts, windows, width=width, counted=counted), counted)


@pytest.mark.parametrize("compressed", [False, True])
def test_each_block_is_fetched_once(compressed: bool) -> None:
    """Many windows over the same blocks, in several calls, cost one fetch a block."""
    part = ArrayPart(4096, block=256, compressed=compressed)
    gather = gatherer([part])
    offsets = np.random.default_rng(1).integers(0, 4096 - 100, 400)
    for chunk in offsets.reshape(8, 50):
        gather(single([(0, offset, 100) for offset in chunk.tolist()]), width=100, counted=99)
    assert len(part.fetched) == len(set(part.fetched))
    assert sum(name == "bytes" for name, _ in part.fetched) == 16


def test_a_small_cache_gives_the_same_rows() -> None:
    """Eviction of decoded blocks changes the number of fetches and nothing else."""
    part = ArrayPart(4096, block=64, compressed=True)
    gather = gatherer([part], cache_bytes=512)
    generator = np.random.default_rng(1)
    for _ in range(20):
        windows = [(0, int(offset), 90) for offset in generator.integers(0, 4000, 10)]
        rows = gather(single(windows), width=90, counted=90)
        check([part], windows, rows, 90)
    assert len(part.fetched) > len(set(part.fetched))


def test_a_delivered_row_never_changes() -> None:
    """Memory is used again only when the rows that were delivered from it are gone."""
    part = ArrayPart(4096, block=4096, compressed=False)
    gather = gatherer([part])

    def take(offset: int) -> Rows:
        return gather(single([(0, offset, 64)]), width=64, counted=64)

    kept = [take(offset).bytes[0] for offset in range(0, 1280, 64)]
    assert part.text[:1280].tolist() == torch.cat(kept).tolist()


def test_memory_comes_back() -> None:
    """Without holders, the next gather writes to the same place."""
    part = ArrayPart(4096, block=4096, compressed=False)
    gather = gatherer([part])

    def addresses() -> Iterator[int]:
        for offset in range(5):
            yield gather(single([(0, offset, 64)]), width=64, counted=64).bytes.data_ptr()
            gc.collect()

    assert len(set(addresses())) == 1


def test_a_broken_block_stops_the_gather_that_touches_it() -> None:
    """Windows outside the block are delivered, a window over it raises."""
    part = BrokenPart(1000, block=100, compressed=False)
    gathered([part], [(0, 0, 100), (0, 200, 300)], width=300, counted=300)
    with pytest.raises(StoreError, match="block 1"):
        gathered([part], [(0, 50, 51)], width=51, counted=51)


def test_other_threads_gather_on_after_an_error() -> None:
    """What was fetched beside a broken block is fetched again, and not taken from where nothing is."""
    part = BrokenPart(5000, block=1000, compressed=True)
    gather = gatherer([part])
    with pytest.raises(StoreError):
        gather(single([(0, 100, 800), (0, 1100, 800), (0, 2100, 800)]), width=800, counted=1)
    windows = [(0, 100, 800)]

    check([part], windows, gather(single(windows), width=800, counted=1), 1)


@pytest.mark.parametrize("window", [(0, 450, 51), (0, -1, 10), (0, 0, 65)])
def test_a_window_outside_its_part_or_row_is_refused(window: tuple[int, int, int]) -> None:
    """Compiled code copies by address, so a range is checked before."""
    with pytest.raises(IndexError, match=r"past its part|longer than its columns"):
        gathered([ArrayPart(500, block=100, compressed=False)], [window], width=64, counted=64)


@st.composite
def rows_of_runs(draw: st.DrawFn) -> list[list[tuple[int, int, int]]]:
    """Draw rows of up to five runs (part, offset, length) each of 1 to 90 bytes, some rows without any."""
    run = st.tuples(st.integers(0, 1), st.integers(0, 240), st.integers(1, 90))
    return draw(st.lists(st.lists(run, max_size=5), min_size=1, max_size=8))


@settings(deadline=None)
@given(rows=rows_of_runs(), compressed=st.booleans(), documents=st.booleans())
def test_runs_are_laid_end_to_end(rows: list[list[tuple[int, int, int]]], compressed: bool, documents: bool) -> None:
    """Bytes and bits of runs from anywhere follow each other in a row; documents are numbered and open patches."""
    parts = [ArrayPart(size, block=64, compressed=compressed, seed=seed) for seed, size in enumerate((500, 333))]
    first = np.cumsum([0, *(len(row) for row in rows)])
    flat = [run for row in rows for run in row]
    part, offset, length = np.array(flat, dtype=np.int64).reshape(-1, 3).T.copy()
    found = gatherer(parts)(Runs(first, part, offset, offset + length), width=450, counted=449, documents=documents)
    for number, row in enumerate(rows):
        text = [byte for p, o, n in row for byte in parts[p].text[o : o + n].tolist()]
        flags = [flag for p, o, n in row for flag in [documents or parts[p].flags[o], *parts[p].flags[o + 1 : o + n]]]
        flags[:1] = [True]
        assert found.lengths[number] == len(text)
        assert text + [0] * (450 - len(text)) == found.bytes[number].tolist()
        assert [bool(flag) for flag in flags] == found.starts[number, : max(1, len(text))].tolist()
        assert not found.starts[number, max(1, len(text)) :].any()
        assert int(found.patches[number]) == int(found.starts[number, :449].sum())
        if documents:
            assert found.documents is not None
            numbers = [index for index, (_, _, n) in enumerate(row, start=1) for _ in range(n)]
            assert numbers + [0] * (450 - len(text)) == found.documents[number].tolist()


@pytest.mark.parametrize("compressed", [False, True])
def test_quarantine_empties_the_rows_of_a_broken_block(compressed: bool) -> None:
    """Rows over it are empty, others whole; it is asked for once, counted, and one block too many is an error."""
    part = BrokenPart(1000, block=100, compressed=compressed)
    sizes = np.array([1000])
    gather = Gatherer([part], sizes, quarantine=Quarantine("quarantine", 1), block_bytes=100)
    windows = [(0, 0, 100), (0, 50, 51), (0, 199, 30), (0, 200, 30)]
    for _ in range(2):
        rows = gather(single(windows), width=100, counted=100)
        assert rows.lengths.tolist() == [100, 0, 0, 30]
        assert not rows.bytes[1:3].any()
        assert rows.starts[1:3].sum(1).tolist() == [1, 1]
        assert rows.bytes[3, :30].tolist() == part.text[200:230].tolist()
    assert [(damage.array, damage.block, damage.blocks) for damage in gather.quarantine.found] == [("bytes", 1, 1)]
    strict = Gatherer([part], sizes, quarantine=Quarantine("quarantine", 0), block_bytes=100)
    with pytest.raises(StoreError, match="block 1: wrong checksum; that makes 1 damaged blocks, more than the 0"):
        strict(single(windows), width=100, counted=100)


def test_a_row_over_two_parts_of_which_one_is_lost_is_empty() -> None:
    """Half a row is no row."""
    parts = [ArrayPart(300, block=100, compressed=True), BrokenPart(300, block=100, compressed=True, seed=1)]
    gather = Gatherer(parts, np.array([300, 300]), quarantine=Quarantine("quarantine", 1), block_bytes=100)
    runs = Runs(np.array([0, 2, 3]), np.array([0, 1, 0]), np.array([250, 100, 0]), np.array([300, 130, 40]))
    rows = gather(runs, width=100, counted=100)

    assert rows.lengths.tolist() == [0, 40]
    assert not rows.bytes[0].any()


def test_many_mapped_parts_keep_few_maps_open() -> None:
    """Each map takes a file descriptor: of hundreds of parts some are let go, and their rows stay right."""
    parts = [ArrayPart(64, block=64, compressed=False, seed=seed) for seed in range(400)]
    gather = gatherer(parts)
    for _ in range(2):
        for some in np.arange(400).reshape(-1, 20).tolist():
            windows = [(part, 5, 50) for part in some]
            check(parts, windows, gather(single(windows), width=50, counted=50), 50)
    assert len(gather._bytes._views) <= MOST_MAPPED
