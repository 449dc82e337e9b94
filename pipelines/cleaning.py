"""Duplicates among documents, exact and near.

    scanned files in order + documents that the store has already -> equal hashes -> near duplicates by MinHash and LSH
                                                                  -> files without them, and how many were dropped

A document is dropped where an earlier one is like it, in order of file and place, so the order of the command line does
not matter. Exact duplicates are told by 128 bits of their sha256.
"""

import functools
import importlib.util
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bytropix.errors import ConfigError
from bytropix.pipelines.config import CleanConfig

if TYPE_CHECKING:
    from bytropix.pipelines.cutter import Signer
    from bytropix.pipelines.scan import ScannedFile

DUPLICATE, NEAR_DUPLICATE = "duplicate", "near_duplicate"
HASHES = 128  # of a signature; its estimate is off by 0.04 to 0.09
WORDS = 5  # of a shingle
SEED, SCHEME = 1, "affine32"  # of the hash functions

Known = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint32]]
"""First and second words of the digests of documents, u64 [d] each, and their signatures, u32 [d, HASHES] or [0, 0]."""


def check_installed(clean: CleanConfig) -> None:
    """Refuse to look for near duplicates without the package that does it.

    Raises:
        ConfigError: It is not installed.
    """
    if clean.near_duplicates and importlib.util.find_spec("datasketch") is None:
        raise ConfigError("near_duplicates needs the package datasketch; pip install 'bytropix[dedup]'")


@functools.cache
def signer(threshold: float) -> "Signer | None":
    """Return what gives a document's MinHash, u32 [HASHES]; `None` if near duplicates are kept."""
    if not threshold:
        return None
    from datasketch import MinHash

    permutations = MinHash(num_perm=HASHES, seed=SEED, scheme=SCHEME).permutations

    def sign(document: memoryview) -> NDArray[np.uint32]:
        words = bytes(document).split()
        shingles = {b" ".join(words[first : first + WORDS]) for first in range(max(1, len(words) - WORDS + 1))}
        found = MinHash(num_perm=HASHES, seed=SEED, hashfunc=zlib.crc32, permutations=permutations, scheme=SCHEME)
        found.update_batch(shingles)
        return np.asarray(found.hashvalues, np.uint32)

    return sign


def drop_duplicates(
    scanned: Sequence["ScannedFile"],
    clean: CleanConfig,
    known: Known | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list["ScannedFile"]:
    """Return files without the documents that an earlier one is like.

    Args:
        scanned: Files in order.
        clean: What to drop.
        known: Documents that come before all of them.
        progress: Called with the documents that were compared, and with all of them.
    """
    files = list(scanned)
    if clean.drop_duplicates:
        columns = [(file.documents.digests, file.documents.seconds) for file in files]
        again = _equal_earlier([(known[0], known[1]), *columns] if known else columns)
        files = _without(files, again[1:] if known else again, DUPLICATE)
    if clean.near_duplicates:
        near = _near_earlier(files, clean.near_duplicates, known[2] if known else np.empty((0, 0), np.uint32), progress)
        files = _without(files, near, NEAR_DUPLICATE)
    return files


def _equal_earlier(columns: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]]) -> list[NDArray[np.bool_]]:
    """Return which documents have the digest of an earlier one, bool [d] for each file."""
    if not columns:
        return []
    first, second = (np.concatenate(words) for words in zip(*columns, strict=True))
    order = np.lexsort((second, first))  # stable: of equal ones, the first stays first
    again = np.zeros(len(first), np.bool_)
    same = (first[order[1:]] == first[order[:-1]]) & (second[order[1:]] == second[order[:-1]])
    again[order[1:][same]] = True
    return np.split(again, np.cumsum([len(first) for first, _ in columns])[:-1])


def _near_earlier(
    files: Sequence["ScannedFile"],
    threshold: float,
    known: NDArray[np.uint32],
    progress: Callable[[int, int], None],
) -> list[NDArray[np.bool_]]:
    """Return which documents are like an earlier one that stays, bool [d] for each file."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=HASHES)
    total, done = sum(len(file.documents) for file in files), 0
    for number, signature in enumerate(known):
        index.insert(("", number), _lean(signature), check_duplication=False)
    found = []
    for place, file in enumerate(files):
        near = np.zeros(len(file.documents), np.bool_)
        for number, signature in enumerate(file.signatures):
            likely = _lean(signature)
            if any(np.mean(_signature_of(files, known, key) == signature) >= threshold for key in index.query(likely)):
                near[number] = True
            else:
                index.insert((place, number), likely, check_duplication=False)
        found.append(near)
        done += len(near)
        progress(done, total)
    return found


def _lean(signature: NDArray[np.uint32]) -> Any:
    """Return a signature as datasketch takes it."""
    from datasketch import LeanMinHash

    return LeanMinHash(seed=SEED, hashvalues=signature, scheme=SCHEME)


def _signature_of(
    files: Sequence["ScannedFile"], known: NDArray[np.uint32], key: tuple[int | str, int]
) -> NDArray[np.uint32]:
    """Return the signature that was put into the index under a key."""
    place, number = key
    values: NDArray[np.uint32] = known[number] if isinstance(place, str) else files[place].signatures[number]
    return values


def _without(files: list["ScannedFile"], marked: Iterable[NDArray[np.bool_]], cause: str) -> list["ScannedFile"]:
    """Return files without the documents that are marked, which are counted under a cause."""
    left = []
    for file, drop in zip(files, marked, strict=True):
        if drop.any():
            kept = np.flatnonzero(~drop)
            file = replace(
                file,
                documents=file.documents.take(kept),
                signatures=file.signatures[kept] if len(file.signatures) else file.signatures,
                dropped=dict(Counter(file.dropped) + Counter({cause: int(drop.sum())})),
            )
        left.append(file)
    return left
