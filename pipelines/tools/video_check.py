"""What a part of video must obey besides its hashes, and a store of video as a whole.

part -> arrays -> ends, boxes, times, rows -> units decoded, counted -> spans, sides -> as the manifest says?
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from bytropix.datasets.store import CodedFrames, Manifest, VideoArrays, VideoPart
from bytropix.datasets.store.video_part import broken_rules, units_of
from bytropix.errors import StoreError
from bytropix.pipelines.plan import hash_limit

DECODED_BYTES = 16 << 20  # of frames in memory at a time


def broken_video_rules(
    part: VideoPart, val_fraction: float, hashes: Mapping[str, str]
) -> Iterator[tuple[int | None, str]]:
    """Give what is wrong with a part whose files are those that were written, and the byte of a file, if known.

    Args:
        part: The part.
        val_fraction: Share of videos, by their hash, that belong to val.
        hashes: sha256 of each source that the part's spans name.
    """
    try:
        arrays = part.arrays()
        said = broken_rules(arrays)
        if said:
            yield from ((None, what) for what in said)
            return
        yield from _wrong_units(arrays, part)
    except StoreError as error:
        yield error.offset, str(error)
        return
    yield from _wrong_spans(arrays, part)
    for source, sha256 in hashes.items():
        if (int(sha256[:16], 16) < int(hash_limit(val_fraction))) != (part.split == "val"):
            yield None, f"{source} belongs to the other split by its hash"


def _wrong_units(arrays: VideoArrays, part: VideoPart) -> Iterator[tuple[None, str]]:
    """Give what is wrong with coded frames; each of them is decoded once.

    Raises:
        StoreError: A unit cannot be decoded, or holds other frames than it should.
    """
    if not isinstance(arrays.frames, CodedFrames):
        return
    jpeg = arrays.frames.codec == "jpeg"
    stops = np.arange(1, part.frames + 1) if jpeg else units_of(arrays.scene_ends, part.clip_frames)
    if not np.array_equal(arrays.frames.unit_stops, stops):
        yield None, f"frames are not coded in units of {part.clip_frames}"
    at_once = max(1, DECODED_BYTES // (part.height * part.width * 3))
    for first in range(0, part.frames, at_once):
        part.read_frames(first, min(part.frames, first + at_once))


def _wrong_spans(arrays: VideoArrays, part: VideoPart) -> Iterator[tuple[None, str]]:
    """Give spans of the manifest that do not tell which videos lie in the part."""
    rows = [json.loads(line) for line in arrays.video_meta.splitlines()]
    record = part.record
    in_spans = sum(span.documents for span in record.spans)
    if not len(rows) == record.documents == in_spans:
        yield None, f"{len(rows)} videos instead of {record.documents}, of which its spans count {in_spans}"
        return
    number = 0
    for span in record.spans:
        own = rows[number : number + span.documents]
        number += span.documents
        strange = [row["source"] for row in own if row["source"] != span.source]
        if strange:
            yield None, f"a row of video_meta is of {strange[0]}, where the manifest has {span.source}"
        n_bytes = sum(row["frames"] for row in own) * part.height * part.width * 3
        if n_bytes != span.n_bytes:
            yield None, f"{n_bytes} bytes of frames from {span.source} instead of {span.n_bytes}"
        if span.patches or span.at_cap or span.single:
            yield None, f"patches of {span.source}, which is video"


def videos_begun(part: VideoPart) -> int:
    """Return how many videos begin in a part; others go on from an earlier one."""
    return sum(row["first"] == 0 for row in part.video_meta())


def hashes_by_name(manifest: Manifest) -> dict[str, str]:
    """Return the sha256 of each source of a store of video; of names that several have, none; of bytes, nothing."""
    if manifest.kind != "video":
        return {}
    count = Counter(source.name for source in manifest.sources)
    return {source.name: source.sha256 for source in manifest.sources if count[source.name] == 1}


def wrong_sum(manifest: Manifest, refused: bytes, begun: int) -> Iterator[str]:
    """Give what does not add up of a store of video.

    Args:
        manifest: Its manifest.
        refused: Its list of what was refused; a video of which frames were kept is stored as well.
        begun: How many videos begin in its parts.
    """
    kept = sum(b'"frames_kept": ' in line for line in refused.splitlines())
    out = begun + sum(manifest.dropped.values()) + manifest.quarantined - kept
    if manifest.documents_in not in (None, out):
        yield (
            f"version {manifest.version}: {manifest.documents_in} videos came in, {out} were stored, dropped or "
            "quarantined"
        )
