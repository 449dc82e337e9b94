"""What `bytropix evaluate` says of a run of a video model.

run, store -> clips of the split, each once -> score_clips -> figures -> report
                                            -> worst, median and best clip, again -> picture or film
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bytropix.config import to_plain
from bytropix.datasets.clip_batch import ClipBatch
from bytropix.datasets.clip_stream import ClipStream
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, StoreError
from bytropix.jobs.comparison import write_comparison
from bytropix.jobs.condition import Footage
from bytropix.jobs.pictures import writer_of
from bytropix.jobs.progress import progress_bar
from bytropix.jobs.recipe import choose_device
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.video_clips import VAL_SEED, clips_of, frame_size, in_words, require_video, store_regions
from bytropix.jobs.video_evaluation import COPY, MODEL, Predictor, VideoScores, predictors, score_clips, table
from bytropix.jobs.video_metrics import FeatureEncoder, lpips_missing
from bytropix.jobs.video_recipe import VideoRecipe, build_video_model
from bytropix.video.autoencoder import FrameAutoencoder
from bytropix.video.model import VideoModel
from bytropix.video.sampling import SamplingConfig

PLACES = ("worst", "median", "best")


def compare_video(
    run: RunFolder,
    store: Store,
    *,
    split: str,
    sampling: SamplingConfig,
    at_most: int = 0,
    batch: int = 16,
    device: str = "auto",
    encoder: Path | None = None,
    out: Sequence[Path] = (),
) -> dict[str, Any]:
    """Score a split with a run's latest checkpoint and the baselines; return the figures by name.

    Args:
        run: A run of any stage; an autoencoder's own run is scored on reconstruction alone.
        store: An open store of video.
        split: Its split.
        sampling: How samples are drawn.
        at_most: Stop after the batch that reaches this many clips; 0 scores all.
        batch: Clips scored at a time.
        device: auto, cpu or cuda.
        encoder: A safetensors file with the weights of a `FeatureEncoder`.
        out: Files to draw the worst, the median and the best clip in.

    Raises:
        ConfigError: A setting cannot work.
        RunError: There is no checkpoint, or it cannot be read.
        StoreError: The store holds no videos, or the split no clip.
    """
    recipe, notes = _for_store(run.recipe(VideoRecipe), store)
    features = FeatureEncoder.random() if encoder is None else FeatureEncoder.read(encoder)
    where = choose_device(device)
    model = run.load(build_video_model(recipe)).to(where)
    assert isinstance(model, VideoModel | FrameAutoencoder)
    for path in out:
        writer_of(path)
        if not isinstance(model, VideoModel):
            raise ConfigError(f"--out {path}: {run.path} holds an autoencoder alone, which predicts nothing to draw")
    notes += _other_size(run, store)
    given, predicted = recipe.video.given_frames, recipe.video.predicted_frames
    compared = predictors(model, given, predicted, sampling)
    clips = _Clips(recipe, store, split, batch, at_most)
    with progress_bar("evaluate", clips.count, unit=" clips") as bar:
        scores = score_clips(clips(), compared, predicted, device=where, encoder=features, progress=bar.update)
    figures = {
        "run": str(run.path),
        "checkpoint": run.latest().name,
        "store": store.url,
        "split": split,
        "given_frames": given,
        "predicted_frames": predicted,
        "region_maps": in_words(recipe.video.regions),
        **scores.plain(),
        "notes": [*notes, *filter(None, [lpips_missing()])],
        "table": table(scores, predicted),
    }
    if isinstance(model, VideoModel):
        gain, error = scores.gain()
        figures |= {"sampling": to_plain(sampling), "next_frame_gain_db": gain, "next_frame_gain_error_db": error}
        if out:
            figures["drawn"] = _draw(out, clips, compared[MODEL], scores, where)
    return figures


def report_video(figures: dict[str, Any]) -> str:
    """Return the figures as lines for a reader."""
    lines = [figures["table"], ""]
    if "next_frame_gain_db" in figures:
        lines.append(
            f"next frame: {figures['next_frame_gain_db']:+.2f} dB of PSNR against '{COPY}' "
            f"(mean of {figures['clips']:,} clips, standard error {figures['next_frame_gain_error_db']:.2f})"
        )
    lines.append(
        f"{figures['clips']:,} clips of split '{figures['split']}', each scored once: {figures['predicted_frames']} "
        f"frames after {figures['given_frames']}; '*' is on the best guess; 'autoencoder' has seen the true frames: "
        "what its latents hold of them"
    )
    lines += figures["notes"]
    if "drawn" in figures:
        shown = ", ".join(f"{name} {row['psnr']:.1f} dB" for name, row in figures["drawn"]["clips"].items())
        lines.append(f"drawn: {', '.join(figures['drawn']['files'])}, from above: {shown}")
    return "\n".join(lines)


def _for_store(recipe: VideoRecipe, store: Store) -> tuple[VideoRecipe, list[str]]:
    """Return the recipe with maps made anew where the store has others than the model was trained on, and say so."""
    require_video(store)
    video = recipe.video
    if recipe.stage == "autoencoder" or video.region_maps == "recomputed" or store_regions(store) == video.regions:
        return recipe, []
    there = in_words(store_regions(store))
    note = f"region maps are made anew from the frames ({in_words(video.regions)}): the store's are {there}"
    return replace(recipe, video=replace(video, region_maps="recomputed")), [note]


def _other_size(run: RunFolder, store: Store) -> list[str]:
    """Return what to say where a store's frames are not of the size that the run was trained on."""
    footage, (height, width) = Footage.of(run), frame_size(store)
    if (height, width) == (footage.height, footage.width):
        return []
    return [f"frames are {width} x {height}; the run was trained on {footage.words}"]


class _Clips:
    """The clips that are scored; iterated anew at each call, always in the same order."""

    def __init__(self, recipe: VideoRecipe, store: Store, split: str, batch: int, at_most: int) -> None:
        if split not in store.splits or not len(store.video_parts(split)):
            raise StoreError(
                f"{store.url}: split '{split}' holds no videos (splits: {', '.join(store.splits)}); "
                "ingest with a larger --val-fraction or choose another --split"
            )
        self._made_with = (recipe, store, split, batch)
        self.batches = 0
        clips = self._stream().clips
        self.batches = -(-(min(at_most, clips) if at_most else clips) // batch)
        self.count = min(clips, self.batches * batch)

    def __call__(self) -> Iterator[ClipBatch]:
        """Yield them in batches."""
        return islice(iter(self._stream()), self.batches)

    def _stream(self) -> ClipStream:
        recipe, store, split, batch = self._made_with
        return clips_of(recipe, store, split=split, batch=batch, seed=VAL_SEED, epochs=1, last="short", prefetch=False)


def _draw(
    paths: Sequence[Path], clips: _Clips, predict: Predictor, scores: VideoScores, device: torch.device
) -> dict[str, Any]:
    """Draw the worst, the median and the best clip; return which these are."""
    ranked = scores.ranked()
    chosen = dict(zip(PLACES, (ranked[0], ranked[len(ranked) // 2], ranked[-1]), strict=True))
    found: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
    first = 0
    for batch in clips():
        rows = {first + row: int(place) for row, place in enumerate(batch.filled.nonzero().flatten())}
        first += len(rows)
        wanted = [clip for clip in set(chosen.values()) if clip in rows]
        if wanted:
            made = predict(batch.to(device)).cpu().numpy()
            found |= {clip: (batch.frames[rows[clip]].numpy().copy(), made[rows[clip]]) for clip in wanted}
    shown = [found[clip] for clip in chosen.values()]
    for path in paths:
        write_comparison(path, [clip for clip, _ in shown], [made for _, made in shown])
    psnr = scores.frames[MODEL]["psnr"].mean(1)
    return {
        "files": list(map(str, paths)),
        "clips": {name: {"clip": clip, "psnr": psnr[clip]} for name, clip in chosen.items()},
    }
