"""The batch gather: bytes and start bits as stored, from mapped and from decoded blocks."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.datasets.blocks import ArrayName
from bytropix.datasets.gather import Gatherer, Rows
from bytropix.datasets.order import Places
from bytropix.errors import StoreError


class ArrayPart:
    """A part in memory, cut into blocks; counts how often each block is fetched."""

    def __init__(self, size: int, *, block: int, compressed: bool, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.text = generator.integers(0, 256, size, dtype=np.uint8)
        self.flags = generator.random(size) < 0.2
        self.n_bytes = size
        self.mapped = not compressed
        self.fetched: list[tuple[str, int]] = []
        self._block = block
        self._arrays = {"bytes": self.text, "starts": np.packbits(self.flags, bitorder="little")}

    def block_bytes(self, name: ArrayName) -> int:
        """Return the block size, the same for both arrays."""
        return self._block

    def block(self, name: ArrayName, index: int) -> NDArray[np.uint8]:
        """Return one block, a copy if this part counts as compressed."""
        self.fetched.append((name, index))
        found = self._arrays[name][index * self._block : (index + 1) * self._block]
        return found.copy() if not self.mapped else found


class BrokenPart(ArrayPart):
    """A part whose second block of text cannot be read."""

    def block(self, name: ArrayName, index: int) -> NDArray[np.uint8]:
        """Refuse block 1 of the text."""
        if (name, index) == ("bytes", 1):
            raise StoreError("part 00000, block 1: wrong checksum")
        return super().block(name, index)


def gathered(parts: list[ArrayPart], windows: list[tuple[int, int, int]], *, width: int, counted: int) -> Rows:
    """Gather (part, offset, length) windows."""
    part, offset, length = (np.array(column, dtype=np.int64) for column in zip(*windows, strict=True))
    return Gatherer(parts)(Places(part, offset), length, width=width, counted=counted)


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
    gather = Gatherer([part])
    offsets = np.random.default_rng(1).integers(0, 4096 - 100, 400)
    for chunk in offsets.reshape(8, 50):
        gather(Places(np.zeros(50, dtype=np.int64), chunk), np.full(50, 100), width=100, counted=99)
    assert len(part.fetched) == len(set(part.fetched))
    assert sum(name == "bytes" for name, _ in part.fetched) == 16


def test_a_small_cache_gives_the_same_rows() -> None:
    """Eviction of decoded blocks changes the number of fetches and nothing else."""
    part = ArrayPart(4096, block=64, compressed=True)
    gather = Gatherer([part], cache_bytes=512)
    generator = np.random.default_rng(1)
    for _ in range(20):
        windows = [(0, int(offset), 90) for offset in generator.integers(0, 4000, 10)]
        offsets = np.array([offset for _, offset, _ in windows], dtype=np.int64)
        rows = gather(Places(np.zeros(10, dtype=np.int64), offsets), np.full(10, 90), width=90, counted=90)
        check([part], windows, rows, 90)
    assert len(part.fetched) > len(set(part.fetched))


def test_a_delivered_row_never_changes() -> None:
    """Memory is used again only when the rows that were delivered from it are gone."""
    part = ArrayPart(4096, block=4096, compressed=False)
    gather = Gatherer([part])

    def take(offset: int) -> Rows:
        places = Places(np.zeros(1, dtype=np.int64), np.array([offset]))
        return gather(places, np.array([64]), width=64, counted=64)

    kept = [take(offset).bytes[0] for offset in range(0, 1280, 64)]
    assert part.text[:1280].tolist() == np.concatenate(kept).tolist()


def test_memory_comes_back() -> None:
    """Without holders, the next gather writes to the same place."""
    part = ArrayPart(4096, block=4096, compressed=False)
    gather = Gatherer([part])

    def addresses() -> Iterator[int]:
        for offset in range(5):
            places = Places(np.zeros(1, dtype=np.int64), np.array([offset]))
            yield gather(places, np.array([64]), width=64, counted=64).bytes.ctypes.data
            gc.collect()

    assert len(set(addresses())) == 1


def test_a_broken_block_stops_the_gather_that_touches_it() -> None:
    """Windows outside the block are delivered, a window over it raises."""
    part = BrokenPart(1000, block=100, compressed=False)
    gathered([part], [(0, 0, 100), (0, 200, 300)], width=300, counted=300)
    with pytest.raises(StoreError, match="block 1"):
        gathered([part], [(0, 50, 51)], width=51, counted=51)


@pytest.mark.parametrize("window", [(0, 450, 51), (0, -1, 10), (0, 0, 65)])
def test_a_window_outside_its_part_or_row_is_refused(window: tuple[int, int, int]) -> None:
    """Compiled code copies by address, so a range is checked before."""
    with pytest.raises(IndexError, match="past its part"):
        gathered([ArrayPart(500, block=100, compressed=False)], [window], width=64, counted=64)
