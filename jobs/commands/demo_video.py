"""`bytropix demo video`: the way of a video into clips, and of clips into a model, on films that it makes itself.

FOLDER/films -> FOLDER/films.bx -> batches of clips -> FOLDER/report.html, FOLDER/clip.webp
FOLDER/motion-films -> FOLDER/motion.bx -> FOLDER/run -> FOLDER/comparison.png, FOLDER/comparison.mp4
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytropix.datasets import ClipStream
from bytropix.datasets.store import Store
from bytropix.gaad.config import RegionConfig
from bytropix.jobs.commands.evaluate_video import report_video
from bytropix.jobs.commands.preview import Preview
from bytropix.jobs.commands.train import STOPPED
from bytropix.jobs.demo_folder import make_way
from bytropix.jobs.demo_model import PICTURES, compare_on_films, demo_recipe, make_motion_store, train_on_films
from bytropix.jobs.film import make_films
from bytropix.jobs.report import write_page
from bytropix.jobs.store_report import printable
from bytropix.jobs.videos import all_videos
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video

LEAVES = {"films", "films.bx", "report.html", "clip.webp", "motion-films", "motion.bx", "run", *PICTURES}
SIZE = (144, 256)
BATCH, EPOCHS = 4, 20  # of the stream whose speed is told
VIDEOS_ON_PAGE = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoVideo:
    """Make small films, ingest them, stream their clips, write a page about them, and train a model on more films.

    The first films hold shapes that move, a zoom, cuts, a flash and black; two files are bad on purpose. That takes
    twenty seconds. Then a small video diffusion model is trained for about five minutes on two CPU cores, on films of
    even motion, and its next frames are compared with the last given one on films held out. Nothing is fetched.
    """

    folder: Path = Path("runs/demo-video")
    """Where films, store and page go; what an earlier demo left there is replaced."""
    model: bool = True
    """Train a model too; without it the demo ends with the page."""
    recipe: Path | None = None
    """Another recipe of the model than the demo's own."""
    adaptive: bool = False
    """Let the regions follow what is in each frame."""
    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> int:
        """Make, ingest, stream, show; train, compare."""
        began = time.perf_counter()
        recipe = demo_recipe(self.recipe)
        steps = 6 if self.model else 4
        make_way(self.folder, LEAVES)
        _say(f"1/{steps} films: {self.folder / 'films'}")
        make_films(self.folder / "films")
        _say(f"2/{steps} ingest: decoded, cut into scenes, regions and motion found -> {self.folder / 'films.bx'}")
        # Two of the six files are bad on purpose, and four films are too few to hold one back.
        regions = RegionConfig(adaptive=self.adaptive)
        config = VideoConfig(size=SIZE, fit="pad", val_fraction=0.0, regions=regions)
        store = ingest_video([self.folder / "films"], self.folder / "films.bx", config, workers=2, max_bad=1.0).store
        _say(f"3/{steps} stream: each clip once, in shuffled order")
        figures = {**_content(store), **_stream(store)}
        _say(f"4/{steps} show")
        write_page(self.folder / "report.html", store, samples=VIDEOS_ON_PAGE, seed=0)
        Preview(store=store.url, out=self.folder / "clip.webp")()
        if self.model:
            _say(f"5/{steps} train: {self.folder / 'run'} (about five minutes; Ctrl-C stops it and ends the demo)")
            motion = make_motion_store(self.folder, recipe)
            if not train_on_films(self.folder, motion, recipe):
                return STOPPED
            _say(f"6/{steps} compare: the frames that follow, on films held out")
            figures["model"] = compare_on_films(self.folder, motion)
        figures |= {"folder": str(self.folder), "seconds": round(time.perf_counter() - began, 3)}
        print(json.dumps(figures, sort_keys=True) if self.json else _story(figures, self.folder))
        return 0


def _content(store: Store) -> dict[str, Any]:
    """Return what is in the store, and what is not and why."""
    videos = [
        {"source": video.source, "frames": video.frames, "scenes": len(video.scenes), "seconds": video.seconds}
        for video in all_videos(store)
    ]
    return {"store": store.url, "videos": videos, "refused": store.quarantine()}


def _stream(store: Store) -> dict[str, Any]:
    """Stream the clips once, and then some epochs for their speed; return what came and how fast."""
    batches = list(ClipStream(store, batch=BATCH, epochs=1, last="short", flip=0.5))
    clips = sum(int(batch.filled.sum()) for batch in batches)
    began = time.perf_counter()
    again = sum(int(batch.filled.sum()) for batch in ClipStream(store, batch=BATCH, epochs=EPOCHS, last="short"))
    return {
        "clips": clips,
        "clips_per_second": round(again / (time.perf_counter() - began), 1),
        "batch": {name: list(getattr(batches[0], name).shape) for name in ("frames", "regions", "motion", "pts")},
    }


def _story(figures: dict[str, Any], folder: Path) -> str:
    """Return the outcome as lines for a reader."""
    width = max(len(video["source"]) for video in figures["videos"])
    films = [
        f"  {printable(video['source']):{width}}  {video['frames']:4} frames  {video['scenes']} scenes  "
        f"{video['seconds']:.1f} s"
        for video in figures["videos"]
    ]
    refused = [f"  {printable(row['path'])}: {printable(row['reason'])}" for row in figures["refused"]]
    batch = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in figures["batch"].items())
    return "\n".join(
        [
            "",
            "stored:",
            *films,
            "refused:",
            *refused,
            f"streamed {figures['clips']} clips, {figures['clips_per_second']:,.0f} a second; a batch: {batch}",
            "",
            f"page: {folder / 'report.html'} (open it in a browser; it needs no network)",
            f"clip: {folder / 'clip.webp'}",
            *_outcome(figures, folder),
            f"your own: bytropix ingest video FOLDER --out {folder.parent / 'mine.bx'}",
            f"{figures['seconds']:.0f} s in all",
        ]
    )


def _outcome(figures: dict[str, Any], folder: Path) -> list[str]:
    """Return what became of the model as lines for a reader; none without one."""
    if "model" not in figures:
        return []
    return [
        "",
        report_video(figures["model"]),
        "",
        f"run: {folder / 'run'} (tensorboard --logdir {folder / 'run'})",
        f"further: bytropix sample --run {folder / 'run'} --condition {folder / 'motion.bx'} --out next.mp4",
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
