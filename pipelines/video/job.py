"""One run over some videos: from files that were found to parts that are written.

files -> scan, in the runner -> enough of them good? -> plan -> groups, in the runner -> what each video became
                                                             -> still enough? do the sums add up? -> Built
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from bytropix.datasets.store import PartRecord
from bytropix.errors import SourceError, StoreError
from bytropix.pipelines.reasons import EMPTY
from bytropix.pipelines.runner import Runner
from bytropix.pipelines.sources import SourceFile
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.part_task import GroupDone, GroupTask, VideoDone, do_group
from bytropix.pipelines.video.plan import plan_groups
from bytropix.pipelines.video.scan import ScannedVideo, VideoScanTask, do_video_scan, video_scan_tasks
from bytropix.pipelines.workplace import Workplace, is_elsewhere, too_many_bad

FEW_BYTES = 1 << 20  # of files, which are decoded before more processes have started
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltVideo:
    """Parts that are written but not published."""

    videos: tuple[ScannedVideo, ...]
    """What passed the scan, in order."""
    records: tuple[PartRecord, ...]
    quarantine: tuple[dict[str, Any], ...]
    """One row for each file that is refused, or of which not all is kept."""
    videos_in: int
    """How many files there were."""
    nothing_left: int
    """Videos whose every frame was left out, as black or frozen."""
    skipped: int
    """Parts that an earlier run had finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoJob(Workplace):
    """One run over some sources."""

    config: VideoConfig

    def build(self, files: Sequence[SourceFile], make_way: Callable[[], None], quarantine: str) -> BuiltVideo:
        """Scan files and write their parts.

        Args:
            files: What was found.
            make_way: Called once the inputs are known to be good, before the first part is written.
            quarantine: Name of the list of what is refused.

        Raises:
            SourceError: Nothing is left, or something is bad and `strict`.
            TooManyBadError: More is bad than `max_bad` allows; the list is in the store's folder.
            StoreError: The disk is full, or a worker died.
        """
        try:
            with self.runner(files) as runner:
                scanned = self.scan(files, runner, keep=True)
                rows = [row_of(video) for video in scanned if video.refused]
                videos = [video for video in scanned if not video.refused]
                self._judge(rows, len(scanned))
                if not videos:
                    raise nothing_left(rows)
                make_way()
                groups = list(self._groups(videos, runner))
        except SourceError:
            self.drop_spool()
            raise
        done = [video for group in groups for video in group.videos]
        rows += [video.row for video in done if video.refused]
        rows.sort(key=lambda row: (row["path"], row["reason"]))
        self._judge(rows, len(scanned))
        if not any(video.frames for video in done):
            raise nothing_left(rows)
        records = tuple(record for group in groups for record in group.records)
        check_sums(videos, done, records)
        self.storage.write(quarantine, lines_of(rows))
        return BuiltVideo(
            videos=tuple(videos),
            records=records,
            quarantine=tuple(rows),
            videos_in=len(scanned),
            nothing_left=sum(not (video.frames or video.refused) for video in done),
            skipped=sum(len(group.records) for group in groups if group.skipped),
        )

    def scan(self, files: Sequence[SourceFile], runner: Runner, *, keep: bool) -> list[ScannedVideo]:
        """Scan files and sort them by name and content.

        Raises:
            SourceError: One is bad and `strict`.
        """
        remote = [file for file in files if is_elsewhere(file)]
        if remote and keep:
            self.say(f"{len(remote):,} files lie elsewhere: each is fetched once, into the store's spool folder")
        tasks = list(video_scan_tasks(self.found_by_all(files), self.place, self.config.wanted(), keep=keep))
        return self.in_order(_scanned(tasks, runner), sum(file.size for file in files), _check_strict)

    def runner(self, files: Sequence[SourceFile]) -> AbstractContextManager[Runner]:
        """Return what does the work: this process, more of them, or a Dask cluster."""
        much = sum(file.size for file in files) > FEW_BYTES or any(is_elsewhere(file) for file in files)
        return self.open_runner(several=len(files) > 1 and much, task_module="bytropix.pipelines.video.part_task")

    def _groups(self, videos: Sequence[ScannedVideo], runner: Runner) -> Iterator[GroupDone]:
        """Give what became of each group.

        Raises:
            SourceError: A video is bad and `strict`.
        """
        groups = plan_groups(videos, self.config)
        tasks = (GroupTask(self.place, group, self.config, 1) for group in groups)
        total, done = sum(video.size for video in videos), 0
        self.progress("decode", 0, total)
        for made in runner.map(do_group, tasks):
            for video in made.videos:
                if self.strict and video.refused:
                    raise bad(video.source, video.refused)
                done += video.size
            self.progress("decode", done, total)
            yield made

    def _judge(self, rows: Rows, total: int) -> None:
        """Refuse to go on where too much is bad. Empty files are listed but are not bad.

        Raises:
            TooManyBadError: It is so; the list is in the store's folder.
        """
        count = sum(row["reason"] != EMPTY for row in rows)
        if count / max(total, 1) > self.max_bad:
            raise self.list_refused(too_many_bad(count, total, "files", rows, self.max_bad), lines_of(rows))


def row_of(video: ScannedVideo) -> dict[str, Any]:
    """Return the row of quarantine of a file that the scan refused."""
    return {"bytes_read": video.size, "path": video.file.name, "reason": video.refused}


def lines_of(rows: Rows) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()


def bad(name: str, reason: str) -> SourceError:
    """Return what to say of a bad input where `strict`."""
    return SourceError(f"{name}: {reason}; mend it or leave it out, or list such things without --strict")


def nothing_left(rows: Rows) -> SourceError:
    """Return what to say of inputs of which nothing is left: the first reason is named."""
    if not rows:
        return SourceError("every frame was left out as black or frozen; allow them, or give other videos")
    more = f" ({len(rows):,} inputs were refused)" if len(rows) > 1 else ""
    first = f"{rows[0]['path']}: {rows[0]['reason']}{more}"
    return SourceError(f"{first}; no video is left: give readable files that hold film")


def check_sums(videos: Sequence[ScannedVideo], done: Sequence[VideoDone], records: Sequence[PartRecord]) -> None:
    """Refuse to publish a store whose counts do not add up.

    Raises:
        StoreError: A video or a frame was lost, or counted twice: a fault of this program.
    """
    for what, wanted, found in (
        ("videos", sorted(video.file.name for video in videos), sorted(video.source for video in done)),
        ("frames", sum(video.frames for video in done), sum(record.frames for record in records)),
    ):
        if wanted != found:
            raise StoreError(
                f"the {what} that came in and those stored or refused are not the same; please report this"
            )


def _scanned(tasks: Sequence[VideoScanTask], runner: Runner) -> Iterator[list[ScannedVideo]]:
    yield from map(do_video_scan, (task for task in tasks if task.is_stdin))
    yield from runner.map(do_video_scan, (task for task in tasks if not task.is_stdin))


def _check_strict(video: ScannedVideo) -> None:
    if video.refused:
        raise bad(video.file.path, video.refused)
