"""The work of one group of videos, in a worker process or in this one.

plan -> each video: decode, in a process of its own -> scenes -> regions -> parts, written as they fill
                    failed? the next decoder tries, and its frames take the place of the first one's
                    all failed? it is refused with the reason of the one that got furthest
     -> is the file what was scanned? -> receipt of the group
"""

import hashlib
import sys
from dataclasses import dataclass, replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from bytropix.config import from_plain, to_plain
from bytropix.datasets.store import PartRecord, Storage, open_storage
from bytropix.errors import ConfigError
from bytropix.pipelines.decoders.contract import MOST_SECONDS, DecoderName, VideoFault
from bytropix.pipelines.decoders.registry import installed
from bytropix.pipelines.receipts import is_whole, key_of, read_receipt, write_receipt
from bytropix.pipelines.video.child import decoder_process
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.gather import Gatherer
from bytropix.pipelines.video.plan import VideoGroup
from bytropix.pipelines.video.scan import ScannedVideo, file_of
from bytropix.pipelines.video.scenes import SceneFinder

STAGE_VERSION = 1  # raised when the same videos and config would give other bytes in a part
AGAIN = 4  # times as long may frames take that a decoder has given before: they are to be the same ones
CHANGED = "has changed since it was scanned"


@dataclass(frozen=True, slots=True)
class GroupTask:
    """The parts of one group to write."""

    url: str
    """Where the store lies."""
    group: VideoGroup
    config: VideoConfig
    version: int
    """The version of the store that the parts are added in."""

    def __str__(self) -> str:
        return f"{self.group.split}/{self.group.number:05d}"

    @property
    def key(self) -> str:
        """Hash of all that decides the parts' bytes and records."""
        videos = [[video.file.name, video.sha256] for video in self.group.videos]
        return key_of(videos, self.config, self.version, STAGE_VERSION, version_of("av"))


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoDone:
    """What became of a video."""

    source: str
    size: int
    """Bytes of its file."""
    frames: int
    """That are stored."""
    frames_read: int = 0
    """That were decoded, where something was wrong."""
    refused: str = ""
    """What was wrong; empty if nothing was."""
    lasting: bool = True
    """Whether it would be wrong again: not so of what was too slow, or has changed."""

    @property
    def row(self) -> dict[str, Any]:
        """Its row of quarantine."""
        kept = {"frames_kept": self.frames} if self.frames else {}
        return {
            "bytes_read": self.size,
            "frames_read": self.frames_read,
            "path": self.source,
            "reason": self.refused,
        } | kept


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupDone:
    """What became of a group."""

    records: tuple[PartRecord, ...]
    """Of its parts."""
    videos: tuple[VideoDone, ...]
    skipped: bool = False
    """Whether an earlier run wrote them."""


def do_group(task: GroupTask) -> GroupDone:
    """Write the parts of a group and their receipt unless an earlier run has.

    Raises:
        StoreError: The disk is full, or a spool file is damaged.
    """
    storage, group = open_storage(task.url), task.group
    receipt, key = f"group-{group.number:05d}", task.key
    done = _finished(storage, group.split, receipt, key)
    if done is not None:
        return done
    gatherer = Gatherer(storage, group.split, group.number, task.config, task.version)
    videos = tuple(_take(video, gatherer, task.config, storage) for video in group.videos)
    made = GroupDone(records=gatherer.close(), videos=videos)
    if all(video.lasting for video in videos):
        plain = to_plain(made)
        write_receipt(storage, group.split, receipt, key, {"records": plain["records"], "videos": plain["videos"]})
    return made


def _finished(storage: Storage, split: str, name: str, key: str) -> GroupDone | None:
    """Return what an earlier run made of a group under the same key, if all of it is there."""
    receipt = read_receipt(storage, split, name, key)
    try:
        records = tuple(from_plain(PartRecord, record) for record in receipt["records"])
        videos = tuple(from_plain(VideoDone, video) for video in receipt["videos"])
    except (KeyError, TypeError, ConfigError):
        return None
    if not all(is_whole(storage, record) for record in records):
        return None
    return GroupDone(records=records, videos=videos, skipped=True)


def _take(video: ScannedVideo, gatherer: Gatherer, config: VideoConfig, storage: Storage) -> VideoDone:
    """Decode a video into the parts, or leave them as they were."""
    with file_of(video, storage) as path:
        decoding = decode_with_fallback(video, path, gatherer, config)
        changed = "" if _is_still(path, video.sha256) else CHANGED
    done = VideoDone(
        source=video.file.name,
        size=video.size,
        frames=0,
        frames_read=decoding.frames_read,
        refused=changed or decoding.refused,
        lasting=not (changed or decoding.retry),
    )
    if changed or (decoding.refused and not config.keep_partial):
        gatherer.abandon()
        return done
    return replace(done, frames=gatherer.finish(decoding.facts))


@dataclass(slots=True)
class Decoding:
    """How far a decoder came."""

    decoder: DecoderName
    frames_read: int = 0
    refused: str = ""
    """What was wrong; empty if nothing was."""
    retry: bool = False
    """Whether the next decoder may do better."""
    bad_packets: int = 0
    corrupt: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What the last row of the video says of it."""
        return {"bad_packets": self.bad_packets, "corrupt": self.corrupt}


def decode_with_fallback(video: ScannedVideo, path: Path, gatherer: Gatherer, config: VideoConfig) -> Decoding:
    """Decode a video into the parts; where a decoder crashes or is stuck, begin again with the next one.

    If none gets through, the one that got furthest counts, and it is its frames that are kept where such are.

    Args:
        video: Which one.
        path: Its file.
        gatherer: Takes its frames; the video is under way in it when this returns.
        config: Which decoders, and what is wanted of them.
    """
    decoders = installed() if config.decoder == "auto" else [config.decoder]
    gatherer.begin(video.file.name, _facts(video, decoders[0]))
    tried: list[Decoding] = []
    while len(tried) < len(decoders) and (not tried or tried[-1].retry):
        tried.append(_decode(video, path, decoders[len(tried)], gatherer, config))
    if not tried[-1].refused:
        return tried[-1]
    best = max(reversed(tried), key=lambda decoding: decoding.frames_read)
    held = next((decoding for decoding in reversed(tried) if decoding.frames_read), best)
    if config.keep_partial and held is not best:
        patient = replace(
            config,
            stall_seconds=min(AGAIN * config.stall_seconds, MOST_SECONDS),
            file_seconds=min(AGAIN * config.file_seconds, MOST_SECONDS),
        )
        _decode(video, path, best.decoder, gatherer, patient, best.frames_read)
    alike = [decoding for decoding in tried if decoding.frames_read == best.frames_read]
    reasons = [f"{decoding.decoder}: {decoding.refused}" for decoding in alike]
    return replace(best, refused="; ".join(reasons) if len(reasons) > 1 else best.refused)


def _decode(
    video: ScannedVideo,
    path: Path,
    decoder: DecoderName,
    gatherer: Gatherer,
    config: VideoConfig,
    most: int = sys.maxsize,
) -> Decoding:
    """Decode `most` frames of a video, up to its end or fault; with the first one a decoder takes another's place."""
    finder, decoding, process = SceneFinder(config.scenes), Decoding(decoder), decoder_process()
    try:
        for frames in process.frames(path, config.wanted(decoder)):
            if not decoding.frames_read:
                gatherer.begin(video.file.name, _facts(video, decoder))
            left = most - decoding.frames_read
            gatherer.add(finder.feed(frames.images[:left], frames.times[:left]))
            decoding.frames_read += min(left, len(frames.images))
            if decoding.frames_read == most:
                break
    except VideoFault as fault:
        decoding.refused, decoding.retry = fault.reason, fault.retry
    if not (decoding.frames_read or decoding.refused):
        decoding.refused = "no frame in it"
    if decoding.frames_read:
        gatherer.add(finder.finish())
    if process.report is not None:
        decoding.bad_packets, decoding.corrupt = process.report.bad_packets, process.report.corrupt
    return decoding


def _facts(video: ScannedVideo, decoder: DecoderName) -> dict[str, Any]:
    """Return what every row of a video says of it besides counts."""
    info = video.info
    assert info is not None, "a video without a header is refused by the scan"
    return {
        "fps": info.fps,
        "duration": info.duration,
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "decoder": decoder,
        "bad_packets": 0,
        "corrupt": 0,
    }


def _is_still(path: Path, sha256: str) -> bool:
    """Return whether a file is what was scanned."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False
