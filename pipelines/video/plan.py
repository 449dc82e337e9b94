"""Which videos make which group of parts: a function of their content, their headers and the config alone.

    scanned videos by name -> sides by content hash -> groups whose decoded frames take about `part_bytes` -> tasks

A group is the work of one worker. How many frames a video has is a guess from its header: a wrong one makes parts that
are larger in number or smaller, never other frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bytropix.pipelines.plan import SPLITS, hash_limit
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.scan import ScannedVideo


@dataclass(frozen=True, slots=True)
class VideoGroup:
    """Videos that one worker decodes."""

    split: str
    number: int
    """Of the group in its split, which names its parts."""
    videos: tuple[ScannedVideo, ...]


def plan_groups(videos: Sequence[ScannedVideo], config: VideoConfig) -> list[VideoGroup]:
    """Return the groups, train before val; videos keep their order."""
    return [group for split in SPLITS for group in _pack(split, videos, config)]


def split_of(sha256: str, val_fraction: float) -> str:
    """Return the split of a video by the hash of its file: the least hashes go to val."""
    return "val" if int(sha256[:16], 16) < int(hash_limit(val_fraction)) else "train"


def frames_expected(video: ScannedVideo, config: VideoConfig) -> int:
    """Return about how many frames of a video will be stored, at least 1; a part's worth if its header does not say."""
    info = video.info
    if info is None:
        return 1
    if config.fps and info.duration:
        return max(1, round(info.duration * config.fps))
    return info.frames or round(info.duration * info.fps) or config.part_frames


def _pack(split: str, videos: Sequence[ScannedVideo], config: VideoConfig) -> Iterator[VideoGroup]:
    """Fill groups in order; one closes before the video that would pass a part's worth of frames."""
    number = frames = 0
    held: list[ScannedVideo] = []
    for video in videos:
        if split_of(video.sha256, config.val_fraction) != split:
            continue
        more = frames_expected(video, config)
        if held and frames + more > config.part_frames:
            yield VideoGroup(split, number, tuple(held))
            number, frames, held = number + 1, 0, []
        held.append(video)
        frames += more
    if held:
        yield VideoGroup(split, number, tuple(held))
