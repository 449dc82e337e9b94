"""What the page of a video store shows.

manifest, quarantine, videos -> facts, tables, histograms        some videos -> reels        -> values of videos.html.j2
"""

from collections import Counter
from typing import Any

from bytropix.datasets.store import Store
from bytropix.jobs.drawing import KINDS
from bytropix.jobs.report import charts, contents
from bytropix.jobs.report.reel import STRIP_FRAMES, choose_reels
from bytropix.jobs.store_report import refusals
from bytropix.jobs.video_report import regions_said, video_facts, video_splits
from bytropix.jobs.videos import all_videos

VIDEOS_SHOWN = 500
REFUSED_SHOWN = 300


def video_values(store: Store, samples: int, seed: int) -> dict[str, Any]:
    """Return what the template shows of a store, `samples` of its videos in full."""
    videos = all_videos(store)
    facts = video_facts(store, videos)
    disk = contents.disk_sizes(store)
    rows = sorted((video.row() for video in videos), key=lambda row: (-row["seconds"], row["source"]))
    refused = store.quarantine()
    reels = choose_reels(store, videos, samples, seed)
    codecs = Counter(str(row["codec"]) for row in rows)
    return {
        "frame": charts.frame(),
        "facts": facts,
        "kinds": KINDS,
        "settings": [pair for pair in contents.settings(store.manifest.config) if pair[0] not in ("height", "width")],
        "regions": regions_said(facts["regions"]),
        "disk": disk,
        "on_disk": sum(amount for _, amount in disk),
        "splits": video_splits(store, videos),
        "codecs": sorted(codecs.items(), key=lambda item: (-item[1], item[0])),
        "decoders": sorted(facts["decoders"].items(), key=lambda item: (-item[1], item[0])),
        "charts": [
            charts.span_chart("Length of videos", [video.seconds for video in videos], "videos"),
            charts.span_chart("Length of scenes", [span for video in videos for span in video.scenes], "scenes"),
        ],
        "videos": rows[:VIDEOS_SHOWN],
        "videos_total": len(rows),
        "sources_open": contents.SOURCES_OPEN,
        "reels": reels,
        "strip_frames": STRIP_FRAMES,
        "seed": seed,
        "dropped": sorted(facts["dropped"].items(), key=lambda item: (-item[1], item[0])),
        "reasons": refusals(refused)[: contents.REASONS_SHOWN],
        "refused": sorted(refused, key=lambda row: (str(row["path"]), str(row["reason"])))[:REFUSED_SHOWN],
        "refused_total": len(refused),
    }
