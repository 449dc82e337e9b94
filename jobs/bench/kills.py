"""Runs that are killed at random moments, and what is found then.

    what was there before -> copy -> the operation, in a process that is killed -> a reader looks
                                  -> the operation once more, to its end        -> the same files as undisturbed?

Processes are forked, so that all is imported once. Call this where there are no threads: a process of its own.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from bytropix.datasets.store import Store
from bytropix.datasets.store.manifest import MANIFEST
from bytropix.errors import BytropixError, StoreError

T = TypeVar("T")
Found = Literal["unfinished", "before", "after"]
OURS = 2
"""Exit code of a process that ended with an error of ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Something that writes stores, and may be asked to do it again."""

    name: str
    operation: Callable[[Path], None]
    """Works in a folder, and completes what an earlier call of it left; can be pickled."""
    before: Path | None = None
    """What the folder holds at first; `None` for nothing."""
    store: str = "store.bx"
    """The store in that folder which a reader opens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One run that was disturbed."""

    case: str
    how: str
    """What was done to it."""
    found: Found | None
    """What a reader saw then; `None` if it was something else."""
    fault: str
    """What was wrong; empty if all was well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """What an undisturbed run of a case makes."""

    tree: dict[str, bytes]
    """Path and content of every file."""
    before: str
    """Hash of what the store that was there delivers; empty if there was none."""
    after: str
    """Hash of what the store delivers in the end."""
    seconds: float


def kill_at_random(case: Case, folder: Path, trials: int, seed: int) -> list[Trial]:
    """Kill an operation `trials` times, at moments spread evenly over the time that it takes and a little more.

    Args:
        case: What to do.
        folder: An empty folder to work in.
        trials: How often.
        seed: Of the moments.
    """
    whole = undisturbed(case, folder)
    generator = random.Random(seed)
    span = 1.1 * whole.seconds / trials
    moments = [span * (number + generator.random()) for number in range(trials)]
    return [disturbed(case, whole, folder, f"killed after {moment:.3f} s", after=moment) for moment in moments]


def undisturbed(case: Case, folder: Path) -> Whole:
    """Do an operation in peace, twice: here, where all that is loaded stays for the forks to come, and in a fork.

    Raises:
        RuntimeError: It failed by itself, or made something else the second time.
    """
    case.operation(_prepare(case, folder / "first"))
    place = _prepare(case, folder / "whole")
    before = _content(place / case.store)
    begin = time.perf_counter()
    code = _in_child(lambda: case.operation(place))
    seconds = time.perf_counter() - begin
    whole = Whole(tree=tree(place), before=before, after=_content(place / case.store), seconds=seconds)
    if code or differing(tree(folder / "first"), whole.tree):
        raise RuntimeError(f"{case.name}: two runs in peace do not agree, the second ended with {code}")
    return whole


def disturbed(
    case: Case,
    whole: Whole,
    folder: Path,
    how: str,
    *,
    after: float | None = None,
    trouble: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Trial:
    """Do an operation in a process that is killed after some seconds, or in trouble; look; do it again; compare."""
    place = _prepare(case, folder / "disturbed")

    def run() -> None:
        with trouble():
            case.operation(place)

    code = _in_child(run, after)
    found, fault = look(place / case.store, whole)
    if code not in (0, OURS, -signal.SIGKILL):
        fault = fault or f"it ended with {code}, which is no error of ours"
    if not fault and (code := _in_child(lambda: case.operation(place))):
        fault = f"the rerun ended with {code}"
    if not fault and (names := differing(whole.tree, tree(place))):
        fault = f"the rerun made other files: {', '.join(names[:5])}"
    return Trial(case=case.name, how=how, found=found, fault=fault)


def look(store: Path, whole: Whole) -> tuple[Found | None, str]:
    """Read a store to its last byte; return which one it is, or what is wrong with it."""
    try:
        opened = Store.open(store)
    except StoreError as error:
        if whole.before:
            return None, f"a store was there, and now: {error}"
        return (None, str(error)) if (store / MANIFEST).exists() else ("unfinished", "")
    try:
        content = content_of(opened)
    except BytropixError as error:
        return None, f"it is published, and torn: {error}"
    if content not in (whole.before, whole.after):
        return None, "it is published, and is neither the store from before nor the one to be"
    return ("after" if content == whole.after else "before"), ""


def content_of(store: Store) -> str:
    """Return a hash of all that a store delivers, whatever its files are called."""
    if store.manifest.kind == "video":
        return _content_of_films(store)
    digest = hashlib.sha256(json.dumps(store.manifest.patcher, sort_keys=True).encode())
    for part in (part for split in store.splits for part in store.parts(split)):
        arrays = part.arrays()
        digest.update(f"{part.split} {part.n_bytes}".encode())
        for array in (arrays.text, arrays.entropy, arrays.starts, arrays.doc_ends):
            digest.update(array.tobytes())
        digest.update(arrays.doc_meta)
    store.patcher()
    return digest.hexdigest()


def _content_of_films(store: Store) -> str:
    """Return a hash of all that a store of video delivers."""
    digest = hashlib.sha256()
    for part in (part for split in store.splits for part in store.video_parts(split)):
        digest.update(f"{part.record.split} {part.frames}".encode())
        boxes = part.regions(0, part.frames), part.motion(0, part.frames)
        for array in (part.read_frames(0, part.frames), *boxes, part.pts, part.video_ends, part.scene_ends):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps(part.video_meta()).encode())
    return digest.hexdigest()


def in_fresh_process(work: Callable[..., T], *arguments: object) -> T:
    """Return what `work` returns in a process that has no threads yet."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def tally(trials: Sequence[Trial]) -> str:
    """Return in one line what readers saw, and what was wrong."""
    counts = Counter(trial.found or "torn" for trial in trials)
    faults = sum(bool(trial.fault) for trial in trials)
    seen = ", ".join(f"{count} {found}" for found, count in sorted(counts.items()))
    return f"{len(trials)} runs, readers saw: {seen}; {faults} faults"


def differing(wanted: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """Return the names of files and folders that are not the same."""
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def _prepare(case: Case, place: Path) -> Path:
    """Return a folder that holds what was there before, and nothing of an earlier run."""
    shutil.rmtree(place, ignore_errors=True)
    if case.before is None:
        place.mkdir(parents=True)
    else:
        shutil.copytree(case.before, place)
    return place


def _in_child(work: Callable[[], None], after: float | None = None) -> int:
    """Do something in a fork of this process, killed after so many seconds, and return how it ended."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BytropixError:
            code = OURS
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tree(folder: Path) -> dict[str, bytes]:
    """Return path and content of all that a folder holds."""
    return dict(_entries(folder))


def _entries(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        yield path.relative_to(folder).as_posix(), path.read_bytes() if path.is_file() else b"(folder)"


def _content(store: Path) -> str:
    """Return the hash of a store's content, empty if there is none."""
    return content_of(Store.open(store)) if store.exists() else ""
