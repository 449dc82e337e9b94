"""What becomes of a store's reader when the store is harmed.

Victim -> Fault -> files changed -> everything is read and compared with the truth -> outcome -> files restored -> Tally

A fault is *named* when reading raises StoreError before a wrong byte was given, with the file or part that was harmed,
and the place where a block of data is concerned. It may also hit what no reader of ours uses (the header of a tar's
member), or leave an older version of the store that is whole: then every byte given is right. Anything else is wrong.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from bytropix.datasets.store import Store
from bytropix.datasets.store.manifest import MANIFEST, record_groups
from bytropix.datasets.store.storage import differing_files
from bytropix.datasets.store.tar_part import SAMPLE_BYTES
from bytropix.errors import StoreError
from bytropix.jobs.bench.faults import NAMED, Fault, draw_faults
from bytropix.jobs.bench.tally import Outcome, Tally
from bytropix.jobs.bench.victim import LAYOUTS, VERSIONS, Victim, an_epoch, make_victim, refused

STREAMED = 8  # every so many faults are read through a stream, too


class WrongDataError(Exception):
    """Something was read that is not what was written."""


def harm(folder: Path, *, each: int, random: int) -> tuple[Tally, list[str]]:
    """Harm a store of each layout.

    Args:
        folder: Where to make the stores.
        each: Faults of each kind.
        random: Faults of a random kind at a random place.

    Returns:
        The outcomes, and a line about each fault that was not met as it should be.
    """
    tally: Tally = {kind: {} for kind in (*NAMED, "random")}
    failures = []
    for layout, settings in LAYOUTS.items():
        victim = make_victim(folder / f"{settings.format}-{settings.used_codec}.bx", settings)
        for number, fault in enumerate(draw_faults(victim, each=each, random=random)):
            outcome, why = suffer(victim, fault, streamed=number % STREAMED == 0)
            tally[fault.kind].setdefault(layout, Counter())[outcome] += 1
            if outcome == "wrong":
                failures.append(f"{layout}, {fault.kind}, {', '.join(fault.files)}: {why}")
    return tally, failures


def suffer(victim: Victim, fault: Fault, *, streamed: bool = False) -> tuple[Outcome, str]:
    """Harm a store, read all of it, and mend it again.

    Args:
        victim: The store.
        fault: The harm.
        streamed: Read an epoch of a stream, before all else.

    Returns:
        The outcome, and what was wrong if it is `wrong`.
    """
    with harmed(victim, fault):
        return _outcome(victim, fault, streamed=streamed)


@contextmanager
def harmed(victim: Victim, fault: Fault) -> Iterator[None]:
    """Harm a store for a while."""
    for name, content in fault.files.items():
        path = victim.path / name
        path.unlink()  # not written over: what has been mapped stays as it was
        if content is not None:
            path.write_bytes(content)
    try:
        yield
    finally:
        for name in fault.files:
            (victim.path / name).unlink(missing_ok=True)
            (victim.path / name).write_bytes(victim.files[name])


def _outcome(victim: Victim, fault: Fault, *, streamed: bool) -> tuple[Outcome, str]:
    """Read a harmed store and say how that went."""
    try:
        store = Store.open(victim.path)
        if streamed and store.manifest.version == VERSIONS:
            _stream(store, victim)
        _read(store, victim)
        if not all(name.startswith("parts/") for name in fault.files):  # it takes longer than all the rest
            _read_beside(victim)
            store.patcher()
    except StoreError as error:
        fault_in_it = badly_named(victim, fault, error)
        return ("wrong", f"{fault_in_it}: {error}") if fault_in_it else ("named", "")
    except Exception as error:  # whatever else comes out is the failure that is looked for
        return "wrong", f"{type(error).__name__}: {error}"
    if store.manifest.version != VERSIONS:
        return "older", ""
    groups = record_groups(store.manifest)
    named = {name for folder, files in groups for name, _ in differing_files(store.storage, folder, files)}
    return ("unused", "") if named & set(fault.files) else ("wrong", "neither reading nor hashing names it")


def _stream(store: Store, victim: Victim) -> None:
    """Compare an epoch of a stream with that of the whole store."""
    for found, wanted in zip(an_epoch(store), victim.epoch, strict=True):
        if not (torch.equal(found.bytes, wanted.bytes) and torch.equal(found.bits, wanted.bits)):
            raise WrongDataError("a batch")


def _read(store: Store, victim: Victim) -> None:
    """Read all parts and compare them block by block with the truth."""
    for record in store.manifest.parts:
        _check((record.split, record.name) in victim.parts, f"part {record.split}/{record.name}")
    for part in (part for split in store.splits for part in store.parts(split)):
        truth = victim.parts[part.split, part.name]
        bits = np.packbits(truth.starts, bitorder="little")
        _check(part.n_bytes == len(truth.text), f"the size of {part.name}")
        for name, wanted in (("bytes", truth.text), ("entropy", truth.entropy), ("starts", bits)):
            size = part.block_bytes(name)
            for index in range(-(-len(wanted) // size)):
                stretch = wanted[index * size : (index + 1) * size]
                _check(np.array_equal(part.block(name, index), stretch), f"block {index} of {name} of {part.name}")
        _check(np.array_equal(part.doc_ends, truth.doc_ends), f"where documents of {part.name} end")
        _check(part.doc_meta_lines() == truth.doc_meta, f"the rows of {part.name}")


def _read_beside(victim: Victim) -> None:
    """Read every version's manifest and list, and compare them with the truth."""
    for version in range(1, Store.open(victim.path).manifest.version + 1):
        store = Store.open(victim.path, version)
        _check(store.manifest.version == version and store.quarantine() == refused(version), f"version {version}")


def _check(right: object, what: str) -> None:
    if not right:
        raise WrongDataError(what)


def badly_named(victim: Victim, fault: Fault, error: StoreError) -> str:
    """Return what is wrong with an error about a fault, nothing if it says what it should."""
    said = str(error)
    if "\n" in said:
        return "more than one line"
    names = [name for name in fault.files if name in said or _called(name) in said]
    if MANIFEST in fault.files and "/parts/" in said:
        return ""  # of a manifest that is whole in itself, that the parts are not those it speaks of
    if not names:
        return "names another file or none"
    name = names[0]
    old, new = victim.files[name], fault.files[name]
    if new is None or len(new) != len(old) or not name.startswith("parts/") or not name.endswith((".tar", "/c/0")):
        return ""
    changed = np.flatnonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8))
    if error.offset is None or not changed[0] - SAMPLE_BYTES < error.offset <= changed[-1]:
        return f"says offset {error.offset}, changed are {changed[0]} to {changed[-1]}"
    return ""


def _called(name: str) -> str:
    """Return what else an error may call a file: the table is one thing, and an older version has a number."""
    version = re.fullmatch(r"versions/0*(\d+)\.json", name)
    return f"no version {version[1]}" if version else "/babylon:" if name.startswith("babylon/") else name
