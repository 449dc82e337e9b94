"""Other patches for a store, in place: only `starts` is written anew.

    sample -> the rule calibrated anew on the stored table
    parts -> their starts, beside the old ones                (a)
    manifest that names them there: from now on they count    (b)
    each gets its own name                                    (c)
    manifest that names them so                               (d)
    what no manifest names is removed                         (e)

Whenever it dies, the manifest in place names files that are there: up to (b) the old cut, from then on the new one. A
rerun goes on from there and ends with the same bytes.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store import (
    FORMAT_VERSION,
    Manifest,
    PartLayout,
    PartRecord,
    Store,
    open_part,
    open_storage,
    publish,
    settled,
    write_starts,
)
from bytropix.datasets.store.manifest import kept_names
from bytropix.datasets.store.schema import NEXT
from bytropix.errors import ConfigError
from bytropix.patching import PatchConfig, calibrate_patcher
from bytropix.pipelines.append import config_of
from bytropix.pipelines.ingest import Progress
from bytropix.pipelines.receipts import RECEIPTS, finished, keep_receipt, key_of
from bytropix.pipelines.runner import Runner
from bytropix.pipelines.tools.part_check import patcher_of
from bytropix.pipelines.tools.recount import recount
from bytropix.pipelines.tools.sample import stored_sample

REPATCH_VERSION = 1  # raised when the same part and patcher would give other bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class RepatchTask:
    """One part whose starts are written anew."""

    url: str
    record: PartRecord
    layout: PartLayout
    patcher: str
    """Settings of the new patcher and hashes of the table, see `patcher_of`."""

    def __str__(self) -> str:
        return f"{self.record.split}/{self.record.name}"


def repatch(
    place: str,
    changes: dict[str, Any],
    runner: Runner,
    progress: Progress = lambda stage, done, total: None,
) -> Store:
    """Cut a store into other patches. Its older versions are dropped, as they would name starts that are gone.

    Args:
        place: Its folder or URL.
        changes: Fields of `PatchConfig` and their new values.
        runner: Does the work, part by part.
        progress: See `Progress`.

    Raises:
        ConfigError: A value cannot work, or the rule needs another table than the store has.
        StoreError: The store is damaged, another job changes it, the disk is full, or a worker died.
    """
    store = Store.open(place)
    store.require("bytes")
    store = _settle(store)
    patch = from_plain(PatchConfig, {**store.manifest.patcher["config"], **changes})
    if to_plain(patch) == store.manifest.patcher["config"]:
        _tidy(store)
        return store
    manifest = _calibrated(store, patch, runner)
    tasks = [
        RepatchTask(
            url=store.url,
            record=record,
            layout=config_of(manifest).layout,
            patcher=json.dumps([manifest.patcher, [file.sha256 for file in manifest.babylon]], sort_keys=True),
        )
        for record in manifest.parts
    ]
    total, done = sum(record.n_bytes for record in manifest.parts), 0
    records = []
    progress("repatch", done, total)
    for record in runner.map(do_repatch, tasks):
        records.append(record)
        done += record.n_bytes
        progress("repatch", done, total)
    publish(store.storage, replace(manifest, parts=tuple(records)), replaces=store.fingerprint, forget=True)
    return _settle(Store.open(place))


def do_repatch(task: RepatchTask) -> PartRecord:
    """Write a part's starts beside the old ones, and a receipt, unless an earlier run has; return the record.

    Raises:
        StoreError: The part is damaged, or the disk is full.
    """
    storage = open_storage(task.url)
    key = key_of(task.record, task.layout, task.patcher, REPATCH_VERSION)
    done = finished(storage, task.record.split, task.record.name, key)
    if done is not None:
        return done
    patcher = patcher_of(task.url, task.patcher)
    arrays = open_part(storage, task.record).arrays()
    starts = patcher.cut(arrays.text, arrays.entropy, arrays.doc_ends)
    spans, lengths = recount(starts, arrays.doc_ends, task.record.spans, patcher.config.max_patch)
    arrays = replace(arrays, starts=starts)
    record = write_starts(storage, task.record, arrays, layout=task.layout, spans=spans, patch_lengths=lengths)
    keep_receipt(storage, record, key)
    return record


def _calibrated(store: Store, patch: PatchConfig, runner: Runner) -> Manifest:
    """Return the manifest with another patcher, whose parts are still those that are there."""
    table = store.patcher().table
    try:
        patcher = calibrate_patcher(table, stored_sample(store, runner), patch)
    except ConfigError as error:
        raise ConfigError(f"{store.url}: {error}; ingest again with --rule {patch.rule}") from error
    return replace(
        store.manifest,
        format_version=FORMAT_VERSION,
        config={**store.manifest.config, "patch": to_plain(patch)},
        patcher=patcher.settings(),
    )


def _settle(store: Store) -> Store:
    """Give starts that lie beside their own name, steps (c) to (e), and return the store."""
    if not any(record.beside for record in store.manifest.parts):
        return store
    records = []
    for record in store.manifest.parts:
        own, moves = settled(record) if record.beside else (record, [])
        for beside, name in moves:
            store.storage.link(beside, name)
        records.append(own)
    publish(store.storage, replace(store.manifest, parts=tuple(records)), replaces=store.fingerprint, forget=True)
    return Store.open(store.url)


def _tidy(store: Store) -> None:
    """Remove what a repatch left that was over, or was given up for the cut that is there."""
    keep = kept_names(store.storage, store.manifest)
    names = [*store.storage.sizes("parts"), *store.storage.sizes(RECEIPTS)]
    left = [name for name in names if name not in keep and (NEXT in name or name.startswith(RECEIPTS))]
    store.storage.remove(left)
    store.storage.prune()
