"""What a video model is trained and measured on: clips of a store, with the region maps that the model is made for.

store -> ClipStream of T = F + P frames -> regions and motion regions: the store's, or made anew -> ClipBatch
      -> ingest settings -> region settings of the store        train split -> frames that latents are measured on
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytropix.config import from_plain, to_plain
from bytropix.datasets.clip_batch import ClipBatch
from bytropix.datasets.clip_stream import ClipStream
from bytropix.datasets.clips import ClipRule, ClipTable, Scenes
from bytropix.datasets.store import Store
from bytropix.errors import ConfigError, StoreError
from bytropix.gaad.config import RegionConfig
from bytropix.gaad.maps import region_maps
from bytropix.jobs.ranks import ALONE, Ranks
from bytropix.jobs.video_recipe import VideoRecipe

VAL_SEED = 0  # whatever a run's own seed is: all runs are measured on the same clips
MEASURED_CLIPS = 4  # at a time
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


class MappedClips(ClipStream):
    """A stream whose region maps are made anew from the frames, in the threads that read them.

    Motion in a clip's first frame would need the frame before it, so that frame has the motion of none.

    Args:
        store: See `ClipStream`, as all else.
        regions: What the maps are like.
        settings: Those of the stream.
    """

    def __init__(self, store: Store, regions: RegionConfig, **settings: Any) -> None:
        super().__init__(store, **settings)
        self._regions = regions

    def _gather(self, firsts: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[ClipBatch]:
        return [self._mapped(batch) for batch in super()._gather(firsts, sizes)]

    def _mapped(self, batch: ClipBatch) -> ClipBatch:
        """Return a batch with other maps; rows without a clip have none."""
        rows, frames = batch.frames.shape[:2]
        regions = torch.zeros(rows, frames, self._regions.regions, 4)
        motion = torch.zeros(rows, frames, self._regions.motion_regions, 4)
        for row in batch.filled.nonzero().flatten().tolist():
            found = region_maps(batch.frames[row].numpy(), None, self._regions)
            regions[row], motion[row] = (torch.from_numpy(np.array(boxes)) for boxes in found)
        return replace(batch, regions=regions, motion=motion)


def store_regions(store: Store) -> RegionConfig:
    """Return what the region maps of a store are like.

    Raises:
        StoreError: It holds no videos, or does not say.
    """
    require_video(store)
    try:
        return from_plain(RegionConfig, store.manifest.config["regions"])
    except (KeyError, ConfigError) as error:
        raise StoreError(
            f"{store.url}: does not say what its region maps are like ({error}); take --video.region-maps recomputed"
        ) from error


def require_video(store: Store) -> None:
    """Refuse a store of bytes.

    Raises:
        StoreError: It is one.
    """
    if store.manifest.kind != "video":
        raise StoreError(
            f"{store.url}: a store of {store.manifest.kind}, not of video; train it with `bytropix train bytes`, or "
            "make one with `bytropix ingest video`"
        )


def frame_size(store: Store) -> tuple[int, int]:
    """Return height and width of the frames of a store of video.

    Raises:
        StoreError: It has none.
    """
    for split in ("train", "val"):
        parts = store.video_parts(split)
        if len(parts):
            return parts[0].height, parts[0].width
    raise StoreError(f"{store.url}: holds no videos; ingest some")


def fitted(recipe: VideoRecipe, store: Store, asked: Mapping[str, Any] = NO_FIELDS) -> tuple[VideoRecipe, list[str]]:
    """Return a recipe whose region settings are those of the maps it will see, and what should be told of them.

    Args:
        recipe: What to train.
        store: An open store of video.
        asked: Fields of the region settings that were asked for by name: where the store's maps are others, maps are
            made anew from the frames. So they are where frames of a clip are no neighbours in the store, whose motion
            regions are those of neighbours.

    Raises:
        StoreError: The store holds no videos, or does not say what its maps are like.
        ConfigError: A field is out of its range.
    """
    require_video(store)
    video = recipe.video
    if video.region_maps == "recomputed":
        return replace(recipe, video=replace(video, regions=replace(video.regions, **asked))), []
    found = store_regions(store)
    wanted = replace(found, **asked)
    apart = recipe.stage != "autoencoder" and recipe.network.context.on and set(recipe.train.frame_steps) != {1}
    if wanted != found or apart:
        anew = replace(video, regions=wanted, region_maps="recomputed")
        words = f"region maps are made anew from the frames ({in_words(wanted)}): the store's are {in_words(found)}"
        if wanted == found:
            steps = " or ".join(map(str, sorted(set(recipe.train.frame_steps))))
            words = f"region maps are made anew from the frames, {steps} apart: the store's motion is of neighbours"
        return replace(recipe, video=anew), [words]
    ignored = video.regions not in (found, RegionConfig()) and recipe.stage != "autoencoder"
    words = (
        f"region maps are the store's ({in_words(found)}), not those of video.regions "
        f"({differences(found, video.regions)}); take --video.region-maps recomputed to make them anew from the frames"
    )
    return replace(recipe, video=replace(video, regions=found)), [words] * ignored


def in_words(regions: RegionConfig) -> str:
    """Return the settings of region maps in a few words."""
    adaptive = ", adaptive" * regions.adaptive
    return f"{regions.decomposition}, {regions.regions} regions, {regions.motion_regions} motion regions{adaptive}"


def differences(one: RegionConfig, other: RegionConfig) -> str:
    """Return in which fields, and to what, another setting differs."""
    there, asked = to_plain(one), to_plain(other)
    return ", ".join(f"{name} {asked[name]}" for name in sorted(asked) if asked[name] != there[name])


def clips_of(
    recipe: VideoRecipe, store: Store, *, split: str = "train", ranks: Ranks = ALONE, **settings: Any
) -> ClipStream:
    """Return the clips of a split, T frames each, with the maps that the model is made for.

    Args:
        recipe: What to train.
        store: An open store of video.
        split: Its split.
        ranks: All ranks.
        settings: Others of `ClipStream`: batch, seed, and so on.

    Raises:
        StoreError: The store holds no videos, has no such split, or all its scenes are shorter than a clip.
        ConfigError: A setting is out of its range, or the ranks do not divide the batch.
    """
    require_video(store)
    rule = rule_of(recipe, store)
    table = table_of(store, split, rule)
    if table is not None and not table.clips:
        raise StoreError(
            f"{store.url}: split {split!r} has no clip of {rule.frames} frames ({recipe.video.given_frames} given + "
            f"{recipe.video.predicted_frames} predicted), {min(rule.steps)} apart: its longest scene has "
            f"{table.longest}; lower --video.given-frames, --video.predicted-frames or --train.frame-steps, or ingest "
            "longer videos"
        )
    settings |= {"clip_frames": rule.frames, "hop": rule.hop, "steps": rule.steps}
    settings |= {"split": split, "rank": ranks.rank, "ranks": ranks.count}
    if recipe.video.region_maps == "recomputed" and recipe.stage != "autoencoder":
        return MappedClips(store, recipe.video.regions, **settings)
    return ClipStream(store, **settings)


def rule_of(recipe: VideoRecipe, store: Store) -> ClipRule:
    """Return how scenes are cut into clips.

    Raises:
        ConfigError: A setting is out of its range.
    """
    frames, train = recipe.video.frames, recipe.train
    return ClipRule.of(store, frames, train.hop or max(1, frames // 2), train.frame_steps)


def table_of(store: Store, split: str, rule: ClipRule) -> ClipTable | None:
    """Return the clips of a split, maybe none; None where there is no such split."""
    parts = store.video_parts(split)
    return ClipTable(Scenes.of(parts, cross_cuts=False), rule) if len(parts) else None


def val_clips(recipe: VideoRecipe, store: Store) -> ClipBatch:
    """Return the clips of the val split that a run is measured on, at most `evaluate_clips`, the same for every run.

    Raises:
        StoreError: The split has none, see `table_of`, or one of them is damaged.
    """
    table = table_of(store, "val", rule_of(recipe, store))
    batch = min(recipe.train.evaluate_clips, table.clips if table else 1)
    return next(iter(clips_of(recipe, store, split="val", batch=batch, seed=VAL_SEED, prefetch=False)))


def measured_frames(recipe: VideoRecipe, store: Store) -> Iterator[Tensor]:
    """Yield u8 frames [n, T, H, W, 3] of the train split, `latent_frames` at least, the same on every rank."""
    stream = clips_of(
        recipe,
        store,
        batch=MEASURED_CLIPS,
        seed=recipe.train.seed,
        prefetch=False,
        checks=recipe.train.checks,
        budget=recipe.train.damage_budget,
    )
    batches = -(-recipe.train.latent_frames // (MEASURED_CLIPS * recipe.video.frames))
    for batch in islice(stream, batches):
        yield batch.frames[batch.filled]
