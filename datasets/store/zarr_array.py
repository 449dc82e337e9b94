"""An array of a Zarr group, read by blocks or by rows, each block checked when it is first touched.

    zarr.json, hashed -> shape, chunk files or shard, crc32c of each block
    mapped raw files:  rows -> are their blocks checked? -> copied out of the map
    others:            rows -> blocks, fetched, checked, decoded -> copied

zarr-python reads the same files; this reader answers in microseconds instead of milliseconds, and takes neither a
missing nor a short chunk file for zeros.
"""

import json
import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store.codecs import decoder
from bytropix.datasets.store.part_files import PartFiles
from bytropix.datasets.store.ranges import Ranges
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.datasets.store.zarr_group import CHECKSUMS, CRC_BYTES, INDEX_ENTRY, chunk_file, with_crc
from bytropix.errors import StoreError

DTYPES = {"uint8": "|u1", "int64": "<i8", "float32": "<f4", "float64": "<f8"}


@dataclass(frozen=True, slots=True)
class _Meta:
    """What zarr.json says of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int
    """Along the first axis: of a raw chunk file, or of an inner chunk."""
    crcs: tuple[int, ...]
    decode: Callable[[Any], NDArray[np.uint8]] | None
    """What decodes an inner chunk; `None` of a raw array."""


class ZarrArray:
    """An array of a part, open for reading; safe for threads.

    Args:
        part: Its part.
        name: What messages call it.
        place: Its folder in the part.
        shape: What it must have; `None` where any length will do.
        dtype: What it must have, as numpy spells it.

    Raises:
        StoreError: It is damaged, or not what it must be.

    Attributes:
        shape: Its lengths.
        dtype: Of its elements.
        n_bytes: Raw bytes, without what fills up the last chunk.
        compressed: Whether its blocks are compressed inner chunks.
        block_bytes: Raw bytes of a block; the last one of a file may be shorter.
        blocks: How many there are.
    """

    def __init__(self, part: PartFiles, name: str, place: str, shape: tuple[int | None, ...], dtype: str) -> None:
        # The part holds its arrays; held in turn, it and its maps would stay until garbage is collected.
        self._part: PartFiles = weakref.proxy(part)
        self._name, self._place = name, place
        self._lock = threading.Lock()
        meta = self._meta(shape, dtype)
        self.shape, self.dtype, self.compressed = meta.shape, meta.dtype, meta.decode is not None
        self._mapped = part.storage.local is not None and not self.compressed
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self.n_bytes = self.shape[0] * self._row_bytes
        self._rows, self._crcs, self._decode = meta.rows, meta.crcs, meta.decode
        chunk_bytes = meta.rows * self._row_bytes
        self.block_bytes = max(1, chunk_bytes) if self.compressed else BLOCK_BYTES
        self._blocks_per_file = max(1, -(-chunk_bytes // BLOCK_BYTES))  # of a raw array
        files = -(-self.n_bytes // chunk_bytes) if chunk_bytes else 0
        self.blocks = files if self.compressed else files * self._blocks_per_file
        # Compressed arrays of bytes of format version 1 have their chunks' own checksums only.
        if len(self._crcs) != self.blocks and (self._crcs or not self.compressed or part.record.frames):
            raise self._nonsense(f"{self.blocks} blocks under {len(self._crcs)} checksums")
        if self.compressed:
            files = min(files, 1)
        self._files: list[Ranges | None] = [None] * files
        self._views: list[NDArray[Any] | None] = [None] * files
        self._file_bytes = chunk_bytes
        self._index = np.empty(0, INDEX_ENTRY)
        if self.compressed and files:
            self._index = self._shard_index()
        # Of a mapped array: the blocks that were checked, by file, and the files of which all were.
        self._checked = np.zeros((files, self._blocks_per_file), np.bool_)
        self._whole = [False] * files

    def file_of(self, number: int) -> str:
        """Return the name of a chunk or shard file below the part's folder."""
        return chunk_file(self._place, number, len(self.shape))

    def block(self, index: int) -> NDArray[np.uint8]:
        """Return a block, u8, checked, without what fills it up: a view of a mapped raw array, else memory of its own.

        Raises:
            StoreError: Its checksum is wrong, or the file is shorter than it should be.
        """
        if self.compressed:
            return self._decoded(index)[: self.n_bytes - index * self.block_bytes]
        number, within = divmod(index, self._blocks_per_file)
        begin = within * BLOCK_BYTES
        end = min(begin + BLOCK_BYTES, self._file_bytes)
        file = self._file(number)
        useful = self.n_bytes - number * self._file_bytes - begin
        if self._checked[number, within]:
            return file.range(begin, end)[:useful]
        for read in (file.range, file.anew):
            view = read(begin, end)
            if len(view) == end - begin and google_crc32c.value(view) == self._crcs[index]:
                if not self._mapped:  # memory of its own: a view would keep all of a page
                    return view[:useful].copy()
                self._checked[number, within] = True
                return view[:useful]
        raise self._damaged(index, number, begin)

    def whole(self) -> NDArray[np.uint8]:
        """Return a mapped array of one file as one view, none of which has been checked."""
        file = self._file(0)
        return file.range(0, file.size)

    def read_rows(
        self, start: int, stop: int, step: int = 1, out: NDArray[Any] | None = None, *, check: bool = True
    ) -> NDArray[Any]:
        """Return rows `start`, `start + step` ... before `stop`, copied.

        Args:
            start: First row.
            stop: Row behind the last one, at most the length of the array.
            step: At least 1.
            out: Where to write them; memory of its own if `None`.
            check: Whether blocks of a mapped array are checked; all others always are.

        Raises:
            StoreError: Some of it is damaged.
        """
        count = -(-(stop - start) // step)
        if not self._mapped or not self.n_bytes:
            return self._copied(start, stop, step, count, out)
        if out is None:
            out = np.empty((count, *self.shape[1:]), self.dtype)
        done = 0
        while start < stop:
            number = start // self._rows
            view = self._views[number]
            if view is None:
                view = self._view(number)
            low, high = start - number * self._rows, min(stop - number * self._rows, self._rows)
            if check and not self._whole[number]:
                self._check(number, low, high)
            here = -(-(high - low) // step)
            out[done : done + here] = view[low:high:step]
            done += here
            start += here * step
        return out

    def all_rows(self) -> NDArray[Any]:
        """Return all rows, checked: a view where the array is one mapped file, else memory of its own."""
        if not self._mapped or len(self._files) != 1:
            return self.read_rows(0, self.shape[0])
        self._check(0, 0, self.shape[0])
        return self._view(0)[: self.shape[0]]

    def file_of_block(self, index: int) -> str:
        """Return the name of the file that a block lies in, below the part's folder."""
        return self.file_of(0 if self.compressed else index // self._blocks_per_file)

    def prefetch(self, start: int, stop: int) -> None:
        """Have the pages fetched ahead that bytes `start` to `stop` of the array lie in."""
        first, last = start // self.block_bytes, -(-min(stop, self.n_bytes) // self.block_bytes)
        if self.compressed:
            if first < last:
                end = self._index[last - 1]
                self._file(0).prefetch(int(self._index["offset"][first]), int(end["offset"]) + int(end["stored"]))
            return
        while start < min(stop, self.n_bytes):
            number, within = divmod(start, self._file_bytes)
            self._file(number).prefetch(within, min(self._file_bytes, within + stop - start))
            start = (number + 1) * self._file_bytes

    def _copied(self, start: int, stop: int, step: int, count: int, out: NDArray[Any] | None) -> NDArray[Any]:
        """Return rows put together from blocks."""
        size = self._row_bytes
        if step == 1 and start < stop:  # one long row
            rows, size = range(1), size * (stop - start)
            base, pitch = start * self._row_bytes, size
        else:
            rows = range(count)
            base, pitch = start * size, step * size
        target = out if out is not None and out.flags.c_contiguous else None
        flat = np.empty(0, np.uint8) if target is None else target.reshape(-1).view(np.uint8)
        held = -1
        block = flat
        begin = 0
        for row in rows:
            place, end = base + row * pitch, base + row * pitch + size
            while place < end:
                index, begin = self._block_at(place)
                if index != held:
                    block, held = self.block(index), index
                    if len(flat) == 0:  # not before the array has shown that it holds so much
                        flat = np.empty(count * self._row_bytes, np.uint8)
                high = min(end, begin + len(block))
                to = row * size + place - (base + row * pitch)
                flat[to : to + high - place] = block[place - begin : high - begin]
                place = high
        if target is not None:
            return target
        found = flat.view(self.dtype).reshape(count, *self.shape[1:])
        if out is None:
            return found
        out[:] = found
        return out

    def _block_at(self, place: int) -> tuple[int, int]:
        """Return the block that a byte of the array lies in, and the byte at which it begins."""
        if self.compressed:
            index = place // self.block_bytes
            return index, index * self.block_bytes
        number, within = divmod(place, self._file_bytes)
        block = within // BLOCK_BYTES
        return number * self._blocks_per_file + block, number * self._file_bytes + block * BLOCK_BYTES

    def _check(self, number: int, low: int, high: int) -> None:
        """Check the blocks of a mapped file that rows `low` to `high` of it lie in."""
        first, last = low * self._row_bytes // BLOCK_BYTES, -(-high * self._row_bytes // BLOCK_BYTES)
        flags = self._checked[number]
        if not flags[first:last].all():
            for within in range(first, last):
                self.block(number * self._blocks_per_file + within)
            self._whole[number] = bool(flags.all())

    def _view(self, number: int) -> NDArray[Any]:
        """Return a mapped file as an array."""
        file = self._file(number)
        view = file.range(0, file.size).view(self.dtype).reshape(self._rows, *self.shape[1:])
        self._views[number] = view
        return view

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        """Return a whole inner chunk of a compressed array; the array's last one is filled up."""
        assert self._decode is not None
        offset, stored = (int(value) for value in self._index[index])
        file = self._file(0)
        for read in (file.range, file.anew):
            chunk = read(offset, offset + stored)
            if len(chunk) != stored or stored <= CRC_BYTES:
                continue
            crc = int(google_crc32c.value(chunk[:-CRC_BYTES].tobytes()))
            if crc == int.from_bytes(chunk[-CRC_BYTES:].tobytes(), "little") and (
                not self._crcs or crc == self._crcs[index]
            ):
                try:
                    return self._decode(chunk[:-CRC_BYTES])
                except (RuntimeError, ValueError) as error:
                    raise self._damaged(index, 0, offset) from error
        raise self._damaged(index, 0, offset)

    def _file(self, number: int) -> Ranges:
        """Return a chunk or shard file, opened on first use, and once only: blocks are views of one map."""
        file = self._files[number]
        if file is not None:
            return file
        with self._lock:
            if (file := self._files[number]) is None:
                name = self.file_of(number)
                file = self._part.ranges(name)
                if not self.compressed and file.size != self._file_bytes:
                    raise StoreError(
                        f"{self._part.url}/{name}: holds {file.size} bytes, not {self._file_bytes}; mend it with "
                        "`bytropix verify --repair` or restore the part"
                    )
                self._files[number] = file
            return file

    def _shard_index(self) -> NDArray[np.void]:
        """Return where the inner chunks lie, from the checked end of the shard file."""
        length = INDEX_ENTRY.itemsize * self.blocks + CRC_BYTES
        file = self._file(0)
        begin = max(0, file.size - length)
        for read in (file.range, file.anew):
            tail = read(begin, file.size).tobytes()
            if len(tail) == length and with_crc(tail[:-CRC_BYTES]) == tail:
                return np.frombuffer(tail[:-CRC_BYTES], INDEX_ENTRY)
        raise self._part.damaged(self.file_of(0), begin, f"the shard index of '{self._name}'")

    def _meta(self, shape: tuple[int | None, ...], dtype: str) -> _Meta:
        """Return what zarr.json says, if it says what it must."""
        text = self._part.checked_file(f"{self._place}/zarr.json").tobytes()
        try:
            said = json.loads(text)
            lengths = tuple(int(length) for length in said["shape"])
            chunks = said["chunk_grid"]["configuration"]["chunk_shape"]
            crcs = tuple(said.get("attributes", {}).get(CHECKSUMS, ()))
            first = said["codecs"][0]
            sharded = first["name"] == "sharding_indexed"
            if sharded:
                chunks = first["configuration"]["chunk_shape"]
            rows = int(chunks[0])
            kind = DTYPES[said["data_type"]]
            rest = [max(1, length) for length in lengths[1:]]
            fits = [have for have, want in zip(lengths, shape, strict=True) if want in (None, have)]
            if len(fits) != len(shape) or min(lengths) < 0 or rows < 1 or list(chunks[1:]) != rest or kind != dtype:
                raise ValueError(f"{said['data_type']} of shape {lengths} in chunks of {chunks}")
            inner = first["configuration"]["codecs"] if sharded else []
            decode = decoder(inner, rows * math.prod(lengths[1:]) * np.dtype(kind).itemsize) if sharded else None
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._nonsense(repr(error)) from error
        return _Meta(lengths, np.dtype(kind), rows, crcs, decode)

    def _nonsense(self, why: str) -> StoreError:
        return self._part.nonsense(f"{self._place}/zarr.json", why)

    def _damaged(self, index: int, number: int, offset: int) -> StoreError:
        return self._part.damaged(self.file_of(number), offset, f"block {index} of '{self._name}'")
