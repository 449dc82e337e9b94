"""One part of a store, checked byte by byte and rule by rule.

    files -> sha256 -> those of the manifest? -> where does the damage begin?
    arrays -> documents, their sides, the cut made anew, counts -> as the manifest says?

A part is a task for a runner. Its files are read once; what it holds is in memory only while it is its turn.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bytropix.datasets.store import (
    FileRecord,
    Manifest,
    Part,
    PartArrays,
    PartRecord,
    Storage,
    VideoPart,
    load_patcher,
    open_part,
    open_storage,
    open_video_part,
)
from bytropix.datasets.store.ranges import MappedFile
from bytropix.datasets.store.schema import BLOCK_BYTES
from bytropix.errors import StoreError
from bytropix.patching import Patcher
from bytropix.pipelines.plan import hash_limit
from bytropix.pipelines.tools.recount import recount
from bytropix.pipelines.tools.video_check import broken_video_rules, videos_begun


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that is not as the manifest says."""

    part: str
    """Split and name of the part; empty where it is none of a part's."""
    file: str
    """The file, below the store; empty where the files are right and what they hold is not."""
    offset: int | None
    """First byte of the first damaged block of the file, or of what is wrong in the part, if that is known."""
    fault: str
    """What is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartCheck:
    """One part to check."""

    url: str
    """Where the store lies."""
    record: PartRecord
    patcher: str
    """Settings of the patcher and hashes of its table as JSON; empty: the table is damaged, cuts are not made anew."""
    val_fraction: float
    hashes_only: bool
    videos: tuple[tuple[str, str], ...] = ()
    """Of a part of video: names and sha256 of its sources, which decide its side."""

    def __str__(self) -> str:
        return f"{self.record.split}/{self.record.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartChecked:
    """What was found."""

    n_bytes: int
    """Bytes of the files that were hashed."""
    seconds: float
    """How long hashing them took, reading included."""
    faults: tuple[Fault, ...]
    videos: int = 0
    """How many begin in it, if it is one of video and whole."""


class ReadOnce:
    """Storage whose files are fetched once, however often they are read.

    Args:
        storage: Where they lie.
        instead: Contents of files that are not to be fetched at all.
    """

    def __init__(self, storage: Storage, instead: Mapping[str, bytes] | None = None) -> None:
        self.url, self.local, self._storage = storage.url, storage.local, storage
        self._held = {name: np.frombuffer(data, np.uint8) for name, data in (instead or {}).items()}

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, `None` if there is none of that name."""
        return self._storage.size(name)

    def read(self, name: str) -> NDArray[np.uint8]:
        """Return a file."""
        if name not in self._held:
            self._held[name] = self._storage.read(name)
        return self._held[name]

    def ranges(self, name: str, record: FileRecord) -> MappedFile:
        """Return a file to be read by ranges; past the cache of pages, which would hide what is wrong with it."""
        return MappedFile(self.read(name))


def check_part(task: PartCheck) -> PartChecked:
    """Check one part.

    Raises:
        StoreError: The place cannot be reached.
    """
    storage = cast(Storage, ReadOnce(open_storage(task.url)))
    part = open_video_part(storage, task.record) if task.record.frames else open_part(storage, task.record)
    n_bytes, seconds, faults = check_files(storage, task.record.folder, task.record.files, str(task))
    faults = [_located(part, fault) for fault in faults]
    if not faults and not task.hashes_only:
        if isinstance(part, VideoPart):
            broken = broken_video_rules(part, task.val_fraction, dict(task.videos))
        else:
            broken = _broken_rules(part, task)
        faults = [Fault(part=str(task), file="", offset=offset, fault=said) for offset, said in broken]
    begun = videos_begun(part) if isinstance(part, VideoPart) and not faults and not task.hashes_only else 0
    return PartChecked(n_bytes=n_bytes, seconds=seconds, faults=tuple(faults), videos=begun)


def check_files(
    storage: Storage, folder: str, files: tuple[FileRecord, ...], part: str = ""
) -> tuple[int, float, list[Fault]]:
    """Hash files and return their bytes, the seconds it took, and the faults."""
    n_bytes, seconds, faults = 0, 0.0, []
    for file in files:
        name = f"{folder}/{file.path}" if folder else file.path
        size = storage.size(name)
        if size is None:
            faults.append(Fault(part=part, file=name, offset=None, fault="missing"))
            continue
        begin = time.perf_counter()
        try:
            digest = _sha256(storage, name)
        except (OSError, StoreError) as error:
            faults.append(Fault(part=part, file=name, offset=None, fault=f"cannot be read: {error}"))
            continue
        seconds += time.perf_counter() - begin
        n_bytes += size
        if size != file.size:
            said, offset = f"{size} bytes instead of {file.size}", min(size, file.size)
            faults.append(Fault(part=part, file=name, offset=offset, fault=said))
        elif digest != file.sha256:
            offset_if_one_block = 0 if size <= BLOCK_BYTES else None
            faults.append(Fault(part=part, file=name, offset=offset_if_one_block, fault="its sha256 is wrong"))
    return n_bytes, seconds, faults


def _sha256(storage: Storage, name: str) -> str:
    """Return the sha256 of a file, in hex."""
    if storage.local is None:
        return FileRecord.hash_of(storage.read(name).data)
    # A bad sector is an error of read(), where it would end a process that has the file mapped.
    with (storage.local / name).open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _located(part: Part | VideoPart, fault: Fault) -> Fault:
    """Return a fault with the first block whose checksum is wrong, where checksums tell."""
    if fault.fault == "missing":
        return fault
    offset = part.first_damage(fault.file.removeprefix(f"{part.record.folder}/"))
    return fault if offset is None else replace(fault, offset=offset)


def _broken_rules(part: Part, task: PartCheck) -> Iterator[tuple[int | None, str]]:
    """Give what is wrong with a part whose files are those that were written, and the byte of the part, if known."""
    record = task.record
    try:
        arrays = part.arrays()
    except StoreError as error:
        yield error.offset, str(error)
        return
    steps = np.diff(arrays.doc_ends, prepend=0)
    if not len(steps) or steps.min() < 1 or arrays.doc_ends[-1] != record.n_bytes:
        yield None, f"doc_ends do not ascend to {record.n_bytes}, the bytes of the part"
        return
    in_spans = sum(span.documents for span in record.spans)
    if not len(steps) == record.documents == in_spans:
        yield None, f"{len(steps)} documents instead of {record.documents}, of which its spans count {in_spans}"
        return
    yield from _wrong_sides(arrays, record.split, task.val_fraction)
    yield from _wrong_lines(arrays, record)
    if task.patcher:
        patcher = patcher_of(task.url, task.patcher)
        cut = list(_wrong_cut(arrays, patcher))
        # Where the cut is not what the table gives, counts of it say nothing.
        yield from cut or _wrong_counts(arrays, record, patcher.config.max_patch)


def _wrong_sides(arrays: PartArrays, split: str, val_fraction: float) -> Iterator[tuple[int, str]]:
    """Give documents whose hash belongs to the other split."""
    limit = int(hash_limit(val_fraction))
    text = arrays.text.data
    begin = 0
    for number, end in enumerate(arrays.doc_ends.tolist()):
        digest = int.from_bytes(hashlib.sha256(text[begin:end]).digest()[:8], "big")
        if (digest < limit) != (split == "val"):
            yield begin, f"document {number} belongs to the other split by its hash"
            return
        begin = end


def _wrong_lines(arrays: PartArrays, record: PartRecord) -> Iterator[tuple[None, str]]:
    """Give rows of doc_meta that are none, or are not of the source that the manifest says."""
    lines = arrays.doc_meta.splitlines()
    if len(lines) != record.documents:
        yield None, f"{len(lines)} rows of doc_meta for {record.documents} documents"
        return
    number = pieces = 0
    for span in record.spans:
        for line in lines[number : number + span.documents]:
            row = _row(line)
            if row is None or row["source"] != span.source:
                yield None, f"row {number} of doc_meta is not of {span.source}"
                return
            pieces += "of" in row
            number += 1
    if pieces != record.pieces:
        yield None, f"{pieces} pieces of longer documents instead of {record.pieces}"


def _row(line: bytes) -> dict[str, Any] | None:
    """Return a row of doc_meta, `None` if it is not one."""
    try:
        row = json.loads(line)
        good = isinstance(row["source"], str) and isinstance(row["offset"], int) and row["offset"] >= 0
    except (ValueError, KeyError, TypeError):
        return None
    return row if good else None


def _wrong_cut(arrays: PartArrays, patcher: Patcher) -> Iterator[tuple[int, str]]:
    """Give the first byte where entropies or starts are not what the store's table gives."""
    entropy, starts = patcher.patch(arrays.text, arrays.doc_ends)
    for name, found, wanted in (("entropy", arrays.entropy, entropy), ("starts", arrays.starts, starts)):
        differs = found != wanted
        if differs.any():
            yield int(np.argmax(differs)), f"{name} is not what the store's table gives"


def _wrong_counts(arrays: PartArrays, record: PartRecord, cap: int) -> Iterator[tuple[None, str]]:
    """Give counts of the manifest that are not those of the part."""
    spans, lengths = recount(arrays.starts, arrays.doc_ends, record.spans, cap)
    for found, said in zip(spans, record.spans, strict=True):
        for name, count in asdict(found).items():
            if count != getattr(said, name):
                yield None, f"{count} {name} from {found.source} instead of {getattr(said, name)}"
    if lengths != record.patch_lengths:
        yield None, "patch_lengths are not those of the part"


def patcher_key(manifest: Manifest) -> str:
    """Return settings of a store's patcher and hashes of its table as JSON, for `patcher_of`."""
    return json.dumps([manifest.patcher, [file.sha256 for file in manifest.babylon]], sort_keys=True)


@lru_cache(maxsize=1)
def patcher_of(url: str, key: str) -> Patcher:
    """Return the patcher of a store, loaded once per process."""
    settings, _ = json.loads(key)
    return load_patcher(open_storage(url), settings)
