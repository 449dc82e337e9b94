"""How well a video model predicts the clips of a split, beside what costs nothing.

    clips of T = F + P frames, each once -> given F -> model, baselines -> P frames each -> metrics of every frame
                                         -> true P -> encoded, decoded: all that latents hold
                                                                   -> means by frame, and over all -> VideoScores

Figures are means of what each frame has, so that they do not depend on how clips are batched; noise belongs to a clip's
number, so that samples do not either.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bytropix.datasets.clip_batch import ClipBatch
from bytropix.errors import StoreError
from bytropix.jobs.evaluation import Progress, ignore
from bytropix.jobs.video_metrics import METRICS, FeatureEncoder, frame_metrics, frechet_distance
from bytropix.video.autoencoder import FrameAutoencoder
from bytropix.video.model import VideoModel
from bytropix.video.rollout import following, roll_out
from bytropix.video.sampling import SamplingConfig

MODEL, BOUND, COPY = "model", "autoencoder", "copy last frame"

Predictor = Callable[[ClipBatch], Tensor]
"""Clips of T frames -> u8 [B, P, H, W, 3], what is said of the last P."""


def copy_last(given: Tensor, count: int) -> Tensor:
    """Return the last of the given frames u8 [B, F, H, W, 3], `count` times."""
    return given[:, -1:].expand(-1, count, -1, -1, -1)


def mean_frame(given: Tensor, count: int) -> Tensor:
    """Return the mean of the given frames u8 [B, F, H, W, 3], `count` times."""
    mean = given.double().mean(1, keepdim=True).round().to(torch.uint8)
    return mean.expand(-1, count, -1, -1, -1)


def extrapolated(given: Tensor, count: int) -> Tensor:
    """Return how each pixel of the last two of the given frames u8 [B, F, H, W, 3] would go on evenly.

    One given frame stays as it is.
    """
    last = given[:, -1:].double()
    change = last - given[:, -2:-1].double() if given.shape[1] > 1 else torch.zeros_like(last)
    ahead = torch.arange(1, count + 1, device=given.device)[:, None, None, None]
    return (last + ahead * change).clamp(0, 255).to(torch.uint8)


BASELINES: dict[str, Callable[[Tensor, int], Tensor]] = {
    COPY: copy_last,
    "mean of given": mean_frame,
    "linear": extrapolated,
}


def predictors(
    model: VideoModel | FrameAutoencoder, given: int, predicted: int, sampling: SamplingConfig
) -> dict[str, Predictor]:
    """Return what is compared, by name: the model's samples, the baselines, and the true frames, encoded and decoded.

    The last is what latents hold, and the bound of a model that makes frames of latents alone; one that adds to a given
    frame (diffusion.residual) has from there what its autoencoder misses, and may come out above it.

    Args:
        model: In evaluation mode; an autoencoder alone predicts nothing.
        given: F.
        predicted: P.
        sampling: How the model's samples are drawn.
    """
    autoencoder = model.autoencoder if isinstance(model, VideoModel) else model

    def baseline(of: Callable[[Tensor, int], Tensor]) -> Predictor:
        return lambda batch: of(batch.frames[:, :given], predicted)

    def bound(batch: ClipBatch) -> Tensor:
        true = batch.frames[:, given:]
        return autoencoder.decode_frames(autoencoder.encode_frames(true), (true.shape[2], true.shape[3]))

    found: dict[str, Predictor] = {}
    if isinstance(model, VideoModel):
        found[MODEL] = lambda batch: _sampled(model, batch, given, predicted, sampling)
    return found | {name: baseline(of) for name, of in BASELINES.items()} | {BOUND: bound}


def _sampled(model: VideoModel, batch: ClipBatch, given: int, predicted: int, sampling: SamplingConfig) -> Tensor:
    seen = following(*(part[:, :given] for part in (batch.frames, batch.regions, batch.motion)))
    numbers = batch.position + torch.arange(len(batch.frames), device=batch.frames.device)
    return torch.cat(list(roll_out(model, seen, predicted, sampling, clips=numbers)), dim=1)


@dataclass(frozen=True, slots=True)
class VideoScores:
    """Figures of some predictors on the same clips."""

    frames: Mapping[str, Mapping[str, NDArray[np.float64]]]
    """By predictor and metric, f64 [clips, P]."""
    distances: Mapping[str, float]
    """By predictor, the Frechet distance of its frames' features to those of the true frames."""
    features: str
    """What these features are."""

    @property
    def clips(self) -> int:
        """Clips that were scored."""
        return len(next(iter(next(iter(self.frames.values())).values())))

    def mean(self, name: str, metric: str) -> float:
        """Return the mean over all frames of all clips."""
        return float(self.frames[name][metric].mean())

    def curve(self, name: str, metric: str) -> list[float]:
        """Return the mean over clips of each predicted frame, the next one first."""
        found: list[float] = self.frames[name][metric].mean(0).tolist()
        return found

    def gain(self, over: str = COPY, metric: str = "psnr") -> tuple[float, float]:
        """Return by how much the model's next frame is above a baseline's, the mean over clips and its standard error.

        The error is that of clips drawn independently; those of one film are not quite.
        """
        gains = self.frames[MODEL][metric][:, 0] - self.frames[over][metric][:, 0]
        spread = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        return float(gains.mean()), spread

    def ranked(self, metric: str = "psnr") -> list[int]:
        """Return the numbers of the clips, the one that the model predicts worst first; of equal ones, the earlier."""
        means = self.frames[MODEL][metric].mean(1)
        order = np.argsort(means if METRICS[metric].best_is == "highest" else -means, kind="stable")
        return [int(clip) for clip in order]

    def plain(self) -> dict[str, Any]:
        """Return all figures as plain data."""
        scores: dict[str, dict[str, Any]] = {}
        for name, metrics in self.frames.items():
            scores[name] = {
                metric: {"mean": self.mean(name, metric), "by_frame": self.curve(name, metric)} for metric in metrics
            }
            scores[name]["frechet"] = self.distances[name]
        used = (*next(iter(self.frames.values())), "frechet")
        return {
            "clips": self.clips,
            "scores": scores,
            "features": self.features,
            "metrics": {
                metric: {
                    "title": METRICS[metric].title,
                    "unit": METRICS[metric].unit,
                    "best_is": METRICS[metric].best_is,
                }
                for metric in used
            },
        }


@torch.no_grad()
def score_clips(
    batches: Iterable[ClipBatch],
    compared: Mapping[str, Predictor],
    predicted: int,
    *,
    device: torch.device | str = "cpu",
    encoder: FeatureEncoder | None = None,
    progress: Progress = ignore,
) -> VideoScores:
    """Score predictors on clips.

    Args:
        batches: Clips; rows that hold none are left out.
        compared: The predictors, by name.
        predicted: P, the last frames of each clip.
        device: Where the work is done.
        encoder: Features for the Frechet distance; those of random weights, seed 0, unless given.
        progress: Called with the number of clips just scored.

    Raises:
        StoreError: There are no clips.
    """
    encoder = encoder or FeatureEncoder.random()
    metrics = frame_metrics()
    found: dict[str, dict[str, list[Tensor]]] = {name: {metric: [] for metric in metrics} for name in compared}
    features: dict[str, list[Tensor]] = {name: [] for name in ("", *compared)}
    for batch in batches:
        filled = batch.filled
        if not filled.any():
            continue
        on_device = batch.to(device)
        true = on_device.frames[:, -predicted:][filled]
        features[""].append(encoder(true.flatten(0, 1)))
        for name, predict in compared.items():
            frames = predict(on_device)[filled].flatten(0, 1)
            features[name].append(encoder(frames))
            for metric, of in metrics.items():
                found[name][metric].append(of(frames, true.flatten(0, 1)).cpu().reshape(-1, predicted))
        progress(len(true))
    if not features[""]:
        raise StoreError("no clip could be read: nothing to score")
    of_true = torch.cat(features[""])
    distances = {
        name: frechet_distance(torch.cat(features[name]), of_true) if len(of_true) > 1 else math.nan
        for name in compared
    }
    frames_of = {name: {metric: torch.cat(rows).numpy() for metric, rows in of.items()} for name, of in found.items()}
    return VideoScores(frames_of, distances, encoder.name)


def table(scores: VideoScores, predicted: int) -> str:
    """Return the figures as lines for a reader; a star is on the best of what could be known from the given frames."""
    width = max(map(len, scores.frames)) + 2
    ahead = ["all", "next", *(f"+{frame}" for frame in range(2, predicted + 1))]
    lines = []
    for metric in next(iter(scores.frames.values())):
        rows = {name: [scores.mean(name, metric), *scores.curve(name, metric)] for name in scores.frames}
        lines += _block(metric, ahead, rows, width)
    far = {name: [distance] for name, distance in scores.distances.items()}
    return "\n".join(lines + _block("frechet", ["all"], far, width, f" of single frames, on {scores.features}"))


def _block(
    metric: str, heads: Sequence[str], rows: Mapping[str, Sequence[float]], width: int, about: str = ""
) -> list[str]:
    """Return the lines of one metric."""
    what = METRICS[metric]
    unit = f", {what.unit}" if what.unit else ""
    lines = [f"{what.title}{unit}{about}: {what.best_is} is best"]
    lines.append(" " * width + "".join(f"{head:>9} " for head in heads))
    known = [name for name in rows if name != BOUND]
    bests = [known[what.best([rows[name][column] for name in known])] for column in range(len(heads))]
    for name, values in rows.items():
        cells = (
            f"{value:9.{what.digits}f}{'*' if best == name else ' '}" for value, best in zip(values, bests, strict=True)
        )
        lines.append(name.ljust(width) + "".join(cells))
    return [line.rstrip() for line in lines]
