"""What is in a video store, as plain rows and as lines for people.

manifest + videos -> rows by split, videos, decoders, faults, refusals by reason -> lines | one JSON object
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bytropix.datasets.store import Store
from bytropix.jobs.drawing import clock
from bytropix.jobs.store_report import SPLITS, cut, printable, refusals, store_facts
from bytropix.jobs.videos import Video, all_videos, region_settings


def video_report(store: Store) -> dict[str, Any]:
    """Return everything about a video store as plain data."""
    videos = all_videos(store)
    refused = store.quarantine()
    return {
        "store": store.url,
        **video_facts(store, videos),
        "config": store.manifest.config,
        "splits": video_splits(store, videos),
        "videos": [video.row() for video in videos],
        "source_files": len(store.manifest.sources),
        "quarantine": refused,
        "quarantine_reasons": {group.said: group.count for group in refusals(refused)},
    }


def video_facts(store: Store, videos: Sequence[Video]) -> dict[str, Any]:
    """Return what holds for a whole video store: formats, frame size, totals, regions, decoders, faults."""
    manifest = store.manifest
    shapes = sorted({part.frame_shape for part in manifest.parts})
    return {
        **store_facts(store),
        "codec": ", ".join(sorted({part.codec for part in manifest.parts})),
        "height": shapes[0][0] if shapes else 0,
        "width": shapes[0][1] if shapes else 0,
        "clip_frames": manifest.config.get("clip_frames", 0),
        "stride": manifest.config.get("stride", 0),
        "frames": sum(part.frames for part in manifest.parts),
        "seconds": round(sum(video.seconds for video in videos), 3),
        "scenes": sum(len(video.scenes) for video in videos),
        "bytes": sum(part.n_bytes for part in manifest.parts),
        "bytes_stored": sum(file.size for part in manifest.parts for file in part.files),
        "regions": region_settings(store),
        "decoders": dict(Counter(str(video.meta.get("decoder", "")) for video in videos)),
        "bad_packets": sum(video.bad_packets for video in videos),
        "corrupt": sum(video.corrupt for video in videos),
        "videos_with_faults": sum(1 for video in videos if video.bad_packets or video.corrupt),
    }


def video_splits(store: Store, videos: Sequence[Video]) -> list[dict[str, Any]]:
    """Return parts, videos, scenes, frames, seconds and bytes of each split; 0 throughout if it is empty."""
    rows = []
    for split in SPLITS:
        records = [part for part in store.manifest.parts if part.split == split]
        there = [video for video in videos if video.split == split]
        rows.append(
            {
                "split": split,
                "parts": len(records),
                "videos": len(there),
                "scenes": sum(len(video.scenes) for video in there),
                "frames": sum(record.frames for record in records),
                "seconds": round(sum(video.seconds for video in there), 3),
                "bytes": sum(record.n_bytes for record in records),
            }
        )
    return rows


def regions_said(settings: dict[str, Any]) -> str:
    """Return the settings of regions in a few words."""
    if not settings:
        return "not recorded"
    named = {"decomposition", "regions", "motion_regions", "adaptive", "rule", "select"}
    follows = ", chosen by each frame's content" if settings.get("adaptive") else ""
    more = [f"{name} {_value(value)}" for name, value in sorted(settings.items()) if name not in named]
    return (
        f"{settings.get('regions', '?')} by {settings.get('decomposition', '?')} "
        f"({settings.get('rule', '?')}, {settings.get('select', '?')}){follows}, and "
        f"{settings.get('motion_regions', '?')} that follow motion" + (f"; {', '.join(more)}" if more else "")
    )


def video_lines(report: dict[str, Any]) -> list[str]:
    """Return the report for people, long lists cut."""
    clips = f", clips of {report['clip_frames']} frames" if report["clip_frames"] else ""
    lines = [
        f"{printable(report['store'])}: video, version {report['version']}, {report['format']} of format version "
        f"{report['format_version']}",
        f"frames of {report['width']} x {report['height']}, codec {report['codec']}: {report['bytes']:,} bytes of "
        f"pixels in {report['bytes_stored']:,}{clips}",
        f"regions: {printable(regions_said(report['regions']))}",
        "",
        f"{'split':<6}{'parts':>7}{'videos':>9}{'scenes':>9}{'frames':>12}{'time':>13}{'bytes':>17}",
    ]
    lines += [
        f"{row['split']:<6}{row['parts']:>7,}{row['videos']:>9,}{row['scenes']:>9,}{row['frames']:>12,}"
        f"{clock(row['seconds']):>13}{row['bytes']:>17,}"
        for row in report["splits"]
    ]
    lines += ["", f"{'time':>12}{'frames':>9}{'scenes':>8}{'fps':>8}{'was':>12}{'faults':>8}  source"]
    lines += cut(
        [
            f"{clock(row['seconds']):>12}{row['frames']:>9,}{row['scenes']:>8,}{row['fps']:>8.2f}"
            f"{row['width']:>7}x{row['height']:<4}{row['bad_packets'] + row['corrupt']:>8,}  {printable(row['source'])}"
            for row in report["videos"]
        ]
    )
    decoders = ", ".join(f"{count:,} by {printable(name)}" for name, count in sorted(report["decoders"].items()))
    dropped = ", ".join(f"{count:,} {printable(cause)}" for cause, count in sorted(report["dropped"].items()))
    lines += [
        "",
        f"decoded: {decoders or 'nothing'}; {report['bad_packets']:,} bad packets and {report['corrupt']:,} corrupt "
        f"frames in {report['videos_with_faults']:,} of the videos",
        f"videos: {sum(row['videos'] for row in report['splits']):,} are stored, "
        f"{f'dropped: {dropped}, ' if dropped else ''}{report['quarantined']:,} refused",
    ]
    if report["quarantine"]:
        lines += ["", "refused, by reason"]
        lines += cut([f"{count:>9,}  {printable(why)}" for why, count in report["quarantine_reasons"].items()])
        lines += ["", f"quarantine: {len(report['quarantine']):,} refused"]
        lines += cut([f"{printable(row['path'])}: {printable(row['reason'])}" for row in report["quarantine"]])
    return lines


def _value(value: Any) -> str:
    """Return a setting as one word."""
    return (
        " ".join(f"{name} {_value(inner)}" for name, inner in value.items())
        if isinstance(value, dict)
        else (f"{value:g}" if isinstance(value, float) else str(value))
    )
