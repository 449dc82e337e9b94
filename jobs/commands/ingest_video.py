"""`bytropix ingest video`: films to a store of frames with their regions and motion.

SOURCE ... -> ingest_video -> summary, and a warning where a split is empty
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import tyro

from bytropix.datasets.clips import ClipRule, ClipTable, Scenes
from bytropix.jobs.ingest_run import TOP, RunOptions, run
from bytropix.jobs.store_report import SPLITS, printable
from bytropix.jobs.videos import all_videos
from bytropix.pipelines.ingest import IngestSummary
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestVideo:
    """Turn videos into a store of frames of one size, with scenes, regions and motion found."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Files, folders, globs, URLs (s3://, gs://, https://), or - for the standard input, in any order. What is no
    video, or a damaged one, is listed in the store's quarantine. What is remote is fetched into the store's folder and
    removed from it in the end."""
    out: str
    """The store to make, by custom NAME.bx: a folder or a URL."""
    config: Annotated[VideoConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=VideoConfig)
    """What decides the bytes of the store."""
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RunOptions)
    """How the work is done."""
    resume: bool = False
    """Complete what an earlier run with the same sources and settings left, or begin."""
    overwrite: bool = False
    """Replace a store that is there."""

    def __call__(self) -> int:
        """Make the store and say what is in it."""
        work = partial(ingest_video, self.sources, self.out, self.config, resume=self.resume, overwrite=self.overwrite)
        report = run(self.run, work, _report, _lines)
        for split, remedy in (("train", "smaller"), ("val", "larger")):
            if not report["splits"][split]["videos"] and self.config.val_fraction > 0:
                print(
                    f"warning: no video landed in {split}; ingest more, or with a {remedy} --val-fraction",
                    file=sys.stderr,
                )
        return 0


def _report(summary: IngestSummary, seconds: float) -> dict[str, Any]:
    """Return what was done as plain data."""
    store, manifest = summary.store, summary.store.manifest
    rule = ClipRule.of(store)
    splits: dict[str, dict[str, Any]] = {
        split: {"split": split, "parts": 0, "videos": 0, "frames": 0, "scenes": 0, "film_seconds": 0.0, "clips": 0}
        for split in SPLITS
    }
    for video in all_videos(store):
        row = splits[video.split]
        row["videos"] += 1
        row["frames"] += video.frames
        row["scenes"] += len(video.scenes)
        row["film_seconds"] = round(row["film_seconds"] + video.seconds, 3)
    for split, row in splits.items():
        parts = store.video_parts(split)
        row["parts"] = len(parts)
        row["clips"] = ClipTable(Scenes.of(parts, cross_cuts=False), rule).clips if len(parts) else 0
    frames = sum(row["frames"] for row in splits.values())
    return {
        "store": store.url,
        "version": manifest.version,
        "fingerprint": store.fingerprint,
        "sources": len(manifest.sources),
        "files_in": manifest.documents_in,
        "videos": sum(row["videos"] for row in splits.values()),
        "frames": frames,
        "frame_size": list(manifest.parts[0].frame_shape),
        "film_seconds": round(sum(row["film_seconds"] for row in splits.values()), 3),
        "scenes": sum(row["scenes"] for row in splits.values()),
        "clips": sum(row["clips"] for row in splits.values()),
        "clip_frames": rule.frames,
        "bytes": sum(part.n_bytes for part in manifest.parts),
        "stored_bytes": sum(file.size for part in manifest.parts for file in part.files),
        "dropped": manifest.dropped,
        "quarantined": manifest.quarantined,
        "reasons": summary.reasons[:TOP],
        "splits": splits,
        "parts": len(manifest.parts),
        "parts_skipped": summary.skipped,
        "seconds": round(seconds, 3),
        "frames_per_second": round(frames / seconds, 3),
    }


def _lines(report: dict[str, Any]) -> str:
    """Return the report for people."""
    val = report["splits"]["val"]
    height, width = report["frame_size"]
    dropped = [
        f"dropped      {count:,} videos: {cause.replace('_', ' ')}" for cause, count in report["dropped"].items()
    ]
    refused = [f"quarantined  {count:,} {printable(reason)}" for reason, count in report["reasons"]]
    lines = [
        f"store        {printable(report['store'])}",
        f"files        {report['files_in']:,}, {report['quarantined']:,} quarantined",
        *refused,
        *dropped,
        f"videos       {report['videos']:,} ({val['videos']:,} in val), {report['film_seconds']:,.1f} s of film",
        f"frames       {report['frames']:,} ({val['frames']:,} in val) of {height} x {width}",
        f"scenes       {report['scenes']:,}, with {report['clips']:,} clips of {report['clip_frames']} frames",
        f"size         {report['stored_bytes'] / 1e6:,.1f} MB, {report['bytes'] / 1e6:,.1f} MB as raw frames",
        f"parts        {report['parts']:,}, {report['parts_skipped']:,} there from an earlier run",
        f"time         {report['seconds']:.1f} s, {report['frames_per_second']:,.0f} frames/s",
    ]
    return "\n".join(lines)
