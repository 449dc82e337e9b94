"""No window of training shares a frame with one of evaluation."""

import shutil
from itertools import product
from pathlib import Path

from bytropix.datasets.clip_stream import ClipStream
from bytropix.datasets.store import Store
from bytropix.jobs.training_films import make_training_films
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video

FRAMES = 20


def windows(store: Store, split: str) -> set[bytes]:
    """Return every frame of every window of a split."""
    stream = ClipStream(store, split=split, clip_frames=5, hop=1, batch=4, epochs=1, last="short", prefetch=False)
    return {frame.numpy().tobytes() for batch in stream for clip in batch.frames for frame in clip}


def test_windows_of_train_and_val_share_no_frame(tmp_path: Path) -> None:
    """Whole videos go to one split or the other, and a copy under another name goes where its original went."""
    films = tmp_path / "films"
    made = make_training_films(films, 10, size=(32, 32), frames=FRAMES)
    for film in made:
        shutil.copyfile(film.path, films / f"copy-of-{film.path.name}")
    config = VideoConfig(size=(32, 32), clip_frames=5, val_fraction=0.3)
    store = ingest_video([films], tmp_path / "films.bx", config, workers=1).store

    sources = {
        split: {row["source"].removeprefix("films/") for part in store.video_parts(split) for row in part.video_meta()}
        for split in ("train", "val")
    }
    assert all(sources.values())
    for split, film in product(sources, made):
        assert (film.path.name in sources[split]) == (f"copy-of-{film.path.name}" in sources[split])
    assert windows(store, "train") & windows(store, "val") == set()
    assert len(windows(store, "val")) > FRAMES / 2
