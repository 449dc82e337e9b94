"""What becomes of a stream when the store it reads is harmed.

Victim -> Fault -> files changed -> an epoch, compared row by row with that of the whole store -> outcome -> restored

With checks="raise" a fault is *named* before a wrong row, *unused* (the epoch is that of the whole store, as nothing of
it was touched), or leaves an *older* version, whose epoch it must be. With checks="quarantine" an epoch has all its
batches; a row is right or empty, and where one is empty the damage is listed, until there is more than the budget.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.store import Store
from bytropix.datasets.stream import ByteStream
from bytropix.errors import StoreError
from bytropix.jobs.bench.fault_table import WrongDataError, badly_named, harmed
from bytropix.jobs.bench.faults import Fault, draw_faults
from bytropix.jobs.bench.tally import Outcome, Tally
from bytropix.jobs.bench.victim import BATCH, CONTEXT, LAYOUTS, VERSIONS, Victim, make_victim

UNBOUNDED = 1 << 30  # blocks


def harm_streams(folder: Path, *, each: int, random: int, seed: int = 0) -> tuple[Tally, Tally, list[str]]:
    """Harm a store of each layout and read a stream of it, under each policy.

    Args:
        folder: Where to make the stores.
        each: Faults of each kind.
        random: Faults of a random kind at a random place.
        seed: Names the faults.

    Returns:
        The outcomes of "raise", those of "quarantine", and a line about each fault that was not met as it should be.
    """
    raised: Tally = {}
    left_out: Tally = {}
    failures = []
    for layout, settings in LAYOUTS.items():
        victim = make_victim(folder / f"{settings.format}-{settings.used_codec}.bx", settings)
        epochs = {number: _epoch(Store.open(victim.path, number))[0] for number in range(1, VERSIONS + 1)}
        for fault in draw_faults(victim, each=each, random=random, seed=seed):
            with harmed(victim, fault):
                for tally, read in ((raised, suffer_stream), (left_out, suffer_quarantine)):
                    outcome, why = read(victim, fault, epochs)
                    tally.setdefault(fault.kind, {}).setdefault(layout, Counter())[outcome] += 1
                    if outcome == "wrong":
                        failures.append(f"{layout}, {fault.kind}, {', '.join(fault.files)}: {why}")
    return raised, left_out, failures


Epochs = dict[int, list[ByteBatch]]
"""By version of the whole store, the batches of its epoch."""


def suffer_stream(victim: Victim, fault: Fault, epochs: Epochs) -> tuple[Outcome, str]:
    """Read an epoch of a harmed store, where damage is an error, and say how that went."""
    try:
        store = Store.open(victim.path)
        wanted = epochs[store.manifest.version]
        found, _ = _epoch(store)
        _compare(found, wanted, lost_rows=False)
    except StoreError as error:
        wrong = badly_named(victim, fault, error)
        return ("wrong", f"{wrong}: {error}") if wrong else ("named", "")
    except Exception as error:  # whatever else comes out is the failure that is looked for
        return "wrong", f"{type(error).__name__}: {error}"
    return ("unused" if store.manifest.version == VERSIONS else "older"), ""


def suffer_quarantine(victim: Victim, fault: Fault, epochs: Epochs) -> tuple[Outcome, str]:
    """Read an epoch of a harmed store, where damage is left out and counted, and say how that went."""
    try:
        store = Store.open(victim.path)
        wanted = epochs[store.manifest.version]
        found, stream = _epoch(store, checks="quarantine", budget=UNBOUNDED)
        lost = _compare(found, wanted, lost_rows=True)
        blocks = sum(damage.blocks for damage in stream.quarantined)
        if bool(lost) != bool(blocks):
            raise WrongDataError(f"{lost} rows are empty and {blocks} blocks were said to be damaged")
        wrong = _exceed(store, victim, fault, blocks) if blocks else ""
    except StoreError as error:
        wrong = badly_named(victim, fault, error)
        return ("wrong", f"quarantine, {wrong}: {error}") if wrong else ("named", "")
    except Exception as error:
        return "wrong", f"quarantine, {type(error).__name__}: {error}"
    if wrong:
        return "wrong", f"over budget, {wrong}"
    if lost:
        return "left out", ""
    return ("unused" if store.manifest.version == VERSIONS else "older"), ""


def _epoch(store: Store, **policy: Any) -> tuple[list[ByteBatch], ByteStream]:
    """Return the batches of an epoch, and the stream that they came from."""
    stream = ByteStream(store, context=CONTEXT, batch=BATCH, epochs=1, last="short", **policy)
    return list(stream), stream


def _compare(found: list[ByteBatch], wanted: list[ByteBatch], *, lost_rows: bool) -> int:
    """Compare an epoch with what it must be, and return how many rows are empty that are not."""
    if len(found) != len(wanted):
        raise WrongDataError(f"an epoch of {len(found)} batches instead of {len(wanted)}")
    lost = 0
    for batch, whole in zip(found, wanted, strict=True):
        kept = batch.lengths > 0 if lost_rows else torch.ones_like(batch.lengths, dtype=torch.bool)
        lost += int((~kept).sum())
        for one, other in ((batch.lengths, whole.lengths), (batch.bytes, whole.bytes), (batch.bits, whole.bits)):
            if not torch.equal(one[kept], other[kept]):
                raise WrongDataError(f"a row of the batch at position {batch.position}")
        if batch.bytes[~kept].any() or int(batch.lengths.sum()) != batch.n_bytes:
            raise WrongDataError(f"an empty row of the batch at position {batch.position} holds something")
    return lost


def _exceed(store: Store, victim: Victim, fault: Fault, blocks: int) -> str:
    """Return what is wrong where the budget is one block less than are damaged, nothing if an error names the fault."""
    try:
        _, stream = _epoch(Store.open(store.url), checks="quarantine", budget=blocks - 1)
    except StoreError as error:
        wrong = badly_named(victim, fault, error)
        return f"{wrong}: {error}" if wrong else ""
    return f"{len(stream.quarantined)} rows in the list and a budget of {blocks - 1}, and no error"
