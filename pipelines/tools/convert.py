"""The same store in another layout, without loss.

    store -> part -> arrays, checked -> the part in the other layout -> receipt
          -> table and list as they are ----------------------------> manifest, last

There and back again is the same store, byte for byte, if the flags of the layout are those it was made with. Frames of
video that are coded are carried over as they are, unless another frame codec is asked for.
"""

from dataclasses import dataclass, replace

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store import (
    FORMAT_VERSION,
    VIDEO_VERSION,
    CodedFrames,
    Manifest,
    PartLayout,
    PartRecord,
    Storage,
    Store,
    StoredFile,
    VideoLayout,
    open_part,
    open_storage,
    open_video_part,
    publish,
    write_part,
    write_video_part,
)
from bytropix.datasets.store.babylon import BABYLON
from bytropix.datasets.store.formats import SUFFIXES
from bytropix.datasets.store.manifest import MANIFEST, tidy
from bytropix.datasets.store.storage import differing_files
from bytropix.errors import ConfigError, StoreError
from bytropix.pipelines.ingest import Progress, check_apart, clear, refuse_in_the_way
from bytropix.pipelines.receipts import finished, keep_receipt, key_of
from bytropix.pipelines.runner import Runner

CONVERT_VERSION = 1  # raised when the same part and layout would give other bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What a conversion did."""

    store: Store
    """The finished store."""
    skipped: int
    """Parts that an earlier run had finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertTask:
    """One part to convert."""

    source: str
    """Where the store lies."""
    record: PartRecord
    """The part there."""
    out: str
    """Where the other one is made."""
    wanted: PartRecord
    """Its record there, without files."""
    layout: PartLayout | VideoLayout

    def __str__(self) -> str:
        return f"{self.record.split}/{self.record.name}"


def convert(
    source: str,
    out: str,
    layout: PartLayout | VideoLayout,
    runner: Runner,
    *,
    version: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Converted:
    """Make a store with the content of another.

    Args:
        source: The store, a folder or a URL.
        out: Where to make the other one.
        layout: How its parts lie; of a store of video, a `VideoLayout`, see `same_frames`.
        runner: Does the work, part by part.
        version: Which version is converted; the newest if `None`. Older ones are not carried along.
        resume: Complete what an earlier run left, or begin.
        overwrite: Remove a store that is there.
        progress: See `Progress`.

    Raises:
        ConfigError: Both `resume` and `overwrite` are asked for.
        StoreError: The store is damaged, `out` is in the way, the disk is full, or a worker died.
    """
    if resume and overwrite:
        raise ConfigError("--resume completes a store and --overwrite replaces it; give one of them")
    store, storage = Store.open(source, version), open_storage(out)
    store.require("video" if isinstance(layout, VideoLayout) else "bytes")
    check_apart(storage, [store.url])
    refuse_in_the_way(storage, there_is_leave=resume or overwrite)
    manifest = replace(
        store.manifest,
        format_version=VIDEO_VERSION if isinstance(layout, VideoLayout) else FORMAT_VERSION,
        config={key: value for key, value in store.manifest.config.items() if key != "codec"}  # of format version 1
        | {"layout": to_plain(layout)},
        parts=tuple(_wanted(record, layout) for record in store.manifest.parts),
    )
    if resume and storage.size(MANIFEST) is not None:
        return _nothing_to_do(storage, manifest)
    if overwrite:
        clear(storage)
    _copy_rest(store, storage)
    tasks = [
        ConvertTask(source=store.url, record=record, out=storage.url, wanted=wanted, layout=layout)
        for record, wanted in zip(store.manifest.parts, manifest.parts, strict=True)
    ]
    total, done = sum(record.n_bytes for record in manifest.parts), 0
    records, skipped = [], 0
    progress("convert", done, total)
    for record, was_there in runner.map(do_convert, tasks):
        records.append(record)
        skipped += was_there
        done += record.n_bytes
        progress("convert", done, total)
    publish(storage, replace(manifest, parts=tuple(records)))
    return Converted(store=Store.open(storage.url), skipped=skipped)


def do_convert(task: ConvertTask) -> tuple[PartRecord, bool]:
    """Write a part and its receipt unless an earlier run has; return its record and whether one had.

    Raises:
        StoreError: The part is damaged, or the disk is full.
    """
    storage = open_storage(task.out)
    key = key_of(task.record, task.layout, CONVERT_VERSION)
    done = finished(storage, task.wanted.split, task.wanted.name, key)
    if done is not None:
        return done, True
    if isinstance(task.layout, VideoLayout):
        record = _write_video(storage, task, task.layout)
    else:
        record = write_part(
            storage,
            task.wanted.split,
            task.wanted.name,
            open_part(open_storage(task.source), task.record).arrays(),
            layout=task.layout,
            spans=task.wanted.spans,
            patch_lengths=task.wanted.patch_lengths,
            pieces=task.wanted.pieces,
            version=task.wanted.version,
        )
    keep_receipt(storage, record, key)
    return record, False


def _write_video(storage: Storage, task: ConvertTask, layout: VideoLayout) -> PartRecord:
    """Write a part of video; its frames are decoded only where they are to be kept otherwise."""
    part = open_video_part(open_storage(task.source), task.record)
    arrays = part.arrays()
    if isinstance(arrays.frames, CodedFrames) and arrays.frames.codec != layout.used_codec:
        arrays = replace(arrays, frames=part.read_frames(0, part.frames))
    return write_video_part(
        storage,
        task.wanted.split,
        task.wanted.name,
        arrays,
        layout=layout,
        clip_frames=task.record.clip_frames,
        spans=task.wanted.spans,
        version=task.wanted.version,
    )


def same_frames(manifest: Manifest, layout: VideoLayout) -> VideoLayout:
    """Return a layout, of which a format and no codec is asked for, with the frames kept as they are in a store.

    Raises:
        ConfigError: A format cannot keep them so.
    """
    codec = next((record.codec for record in manifest.parts), "raw")
    if codec == "zstd" and layout.format == "webdataset":  # which is not compressed: the same frames are raw there
        codec = "raw"
    return from_plain(VideoLayout, to_plain(layout) | {"frame_codec": codec})


def _wanted(record: PartRecord, layout: PartLayout | VideoLayout) -> PartRecord:
    """Return the record of a part in another layout, without its files."""
    return replace(
        record,
        name=record.name.rpartition(".")[0] + SUFFIXES[layout.format],
        compressed=layout.used_codec not in ("none", "raw"),
        format=layout.format,
        codec=layout.used_codec,
        files=(),
    )


def _copy_rest(store: Store, storage: Storage) -> None:
    """Copy the table and the list of what was refused.

    Raises:
        StoreError: One is damaged.
    """
    manifest = store.manifest
    for folder, files in ((BABYLON, manifest.babylon), ("", (manifest.quarantine,))):
        for name, fault in differing_files(store.storage, folder, files):
            raise StoreError(f"{store.url}/{name}: {fault}; mend it with `bytropix verify --repair` and convert again")
    read = store.storage.read
    if manifest.babylon:
        storage.write_folder(
            BABYLON, [StoredFile(file.path, [read(f"{BABYLON}/{file.path}").data]) for file in manifest.babylon]
        )
    storage.write(manifest.quarantine.path, read(manifest.quarantine.path).tobytes())


def _nothing_to_do(storage: Storage, wanted: Manifest) -> Converted:
    """Return the finished store if it is the one asked for.

    Raises:
        StoreError: It is not.
    """
    store = Store.open(storage.url)
    there = replace(
        store.manifest,
        format_version=wanted.format_version,  # it may be that of lists, which `wanted` has none of
        parts=tuple(replace(record, files=()) for record in store.manifest.parts),
    )
    if there != wanted:
        raise StoreError(f"{store.url}: another finished store; replace it with --overwrite or choose another OUT")
    tidy(storage)
    return Converted(store=store, skipped=len(store.manifest.parts))
