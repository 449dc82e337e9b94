"""How far predicted frames are from the true ones, and which way is better.

    predicted, true frames u8 [n, h, w, 3] -> FRAME_METRICS[name] -> f64 [n], a figure for each frame
    frames -> FeatureEncoder -> features f64 [n, d] -> mean and covariance of each side -> Frechet distance
    flow, true flow -> end-point error

Every metric says whether more or less of it is better, so that nobody keeps the worst model for the best.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bytropix.errors import ConfigError

PEAK = 255.0
LEAST_ERROR = 1 / 12  # mean squared error of rounding to whole levels: equal frames have 58.9 dB, not infinitely many
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"  # of its network `alex`, as torchvision calls them in torch.hub's folder
FEATURE_WIDTHS = (3, 16, 32, 64)  # channels in front of and behind each convolution


@dataclass(frozen=True, slots=True)
class Metric:
    """What a figure is called, and which way is better."""

    title: str
    unit: str
    best_is: Literal["highest", "lowest"]
    """Which way is better."""
    digits: int
    """Behind the point, for people."""

    def best(self, values: Sequence[float]) -> int:
        """Return which of some values is the best, the first of equal ones."""
        return values.index(max(values) if self.best_is == "highest" else min(values))

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another; equal is not."""
        return value > than if self.best_is == "highest" else value < than


METRICS: dict[str, Metric] = {
    "psnr": Metric("PSNR", "dB", "highest", 2),
    "ssim": Metric("SSIM", "", "highest", 4),
    "lpips": Metric("LPIPS", "", "lowest", 4),
    "frechet": Metric("Frechet distance", "", "lowest", 4),
    "epe": Metric("end-point error", "pixels", "lowest", 3),
}
"""Of flows, `epe` is `bytropix.video.flow.end_point_error`."""


def psnr(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each frame, f64 [n], in dB: 10 log10(255^2 / mean squared error).

    Args:
        predicted: u8 [n, h, w, 3].
        true: The same.
    """
    error = (predicted.double() - true.double()).square().mean((1, 2, 3))
    return 10 * torch.log10(PEAK**2 / error.clamp_min(LEAST_ERROR))


def ssim(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the structural similarity of each frame, f64 [n], at most 1 (Wang et al. 2004; 11 x 11 Gaussian window).

    Args:
        predicted: u8 [n, h, w, 3], sides of 6 pixels at least.
        true: The same.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # seconds to import

    # In float32 fifty times as fast as in float64, and the same to six digits.
    one, other = (frames.movedim(-1, 1).float() / PEAK for frames in (predicted, true))
    found = structural_similarity_index_measure(one, other, data_range=1.0, reduction="none")
    assert isinstance(found, Tensor)  # it would be a tuple with whole pictures, were they asked for
    return found.reshape(len(predicted)).double()


def lpips(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the perceptual distance of each frame, f64 [n] (Zhang et al. 2018); only where `lpips_missing` is empty.

    Args:
        predicted: u8 [n, h, w, 3].
        true: The same.
    """
    net = _lpips_net()
    pictures = (frames.movedim(-1, 1).float().cpu() / PEAK for frames in (predicted, true))
    with torch.no_grad():
        return net(*pictures).double().reshape(len(predicted))


def lpips_missing() -> str:
    """Return why LPIPS cannot be measured here, empty where it can; nothing is ever fetched.

    It needs torchvision and, in torch.hub's folder, weights that hold tensors alone.
    """
    if importlib.util.find_spec("torchvision") is None:
        return "LPIPS: torchvision is not installed, left out"
    weights = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS
    if not weights.is_file():
        return f"LPIPS: weights not installed ({weights.name} in {weights.parent}), left out"
    try:
        torch.load(weights, map_location="cpu", weights_only=True)  # what is no plain tensors must not be loaded later
    except Exception as error:
        return f"LPIPS: {weights.name} cannot be read ({type(error).__name__}), left out"
    return ""


@cache
def _lpips_net() -> Callable[..., Tensor]:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    whole = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    return lambda one, other: whole.net(one, other, normalize=True)


FRAME_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim, "lpips": lpips}


def frame_metrics() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return the metrics of frames that can be measured here."""
    return {name: of for name, of in FRAME_METRICS.items() if name != "lpips" or not lpips_missing()}


class FeatureEncoder:
    """Three convolutions of stride 2; the mean of each one's output over the frame: 112 features of a frame.

    Features of random weights tell distributions of pictures apart, though not as people do; they are no Inception.

    Args:
        state: `convolution.0.weight` f32 [16, 3, 3, 3], `convolution.0.bias` [16], and so on through FEATURE_WIDTHS.
        name: What the features are, for the report.
    """

    def __init__(self, state: dict[str, Tensor], name: str) -> None:
        self.name = name
        self._layers = [
            (state[f"convolution.{layer}.weight"], state[f"convolution.{layer}.bias"])
            for layer in range(len(FEATURE_WIDTHS) - 1)
        ]

    @classmethod
    def random(cls, seed: int = 0) -> "FeatureEncoder":
        """Return the encoder of a seed, whose weights keep the size of what goes through them (He et al. 2015)."""
        generator = torch.Generator().manual_seed(seed)
        state = {
            name: torch.randn(shape, generator=generator) * (2 / (9 * shape[1])) ** 0.5
            if len(shape) == 4
            else torch.zeros(shape)
            for name, shape in _feature_shapes().items()
        }
        return cls(state, f"random features, seed {seed}")

    @classmethod
    def read(cls, path: Path) -> "FeatureEncoder":
        """Return the encoder whose weights are in a safetensors file; files that may hold code are not read.

        Raises:
            ConfigError: It cannot be read, or holds other tensors.
        """
        try:
            state = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"--encoder {path}: not a safetensors file that can be read ({error})") from error
        wanted = _feature_shapes()
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if found != wanted:
            wrong = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
            raise ConfigError(
                f"--encoder {path}: {wrong[0]} is {found.get(wrong[0], 'missing')}, wanted "
                f"{wanted.get(wrong[0], 'no such tensor')}; see FeatureEncoder in bytropix.jobs.video_metrics"
            )
        return cls({name: tensor.float() for name, tensor in state.items()}, f"features of {path.name}")

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Return the features f64 [n, 112] of frames u8 [n, h, w, 3], on the CPU."""
        x = frames.cpu().movedim(-1, 1).float() / (PEAK / 2) - 1
        means = []
        for weight, bias in self._layers:
            x = F.relu(F.conv2d(x, weight, bias, stride=2, padding=1))
            means.append(x.mean((2, 3), dtype=torch.float64))
        return torch.cat(means, dim=1)


def _feature_shapes() -> dict[str, tuple[int, ...]]:
    """Return the tensors of a FeatureEncoder."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (before, behind) in enumerate(pairwise(FEATURE_WIDTHS)):
        shapes[f"convolution.{layer}.weight"] = (behind, before, 3, 3)
        shapes[f"convolution.{layer}.bias"] = (behind,)
    return shapes


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Return the Frechet distance of two sets of features, taken for Gaussian, squared as usual (Dowson, Landau 1982).

        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)

    All in float64. The product stands between two roots so that it is symmetric: its eigenvalues are real, and those
    that rounding made negative are 0. With fewer rows than features the distance of equal distributions is far from 0.

    Args:
        one: f64 [n, d], n >= 2.
        other: f64 [m, d], m >= 2.
    """
    (mean, spread), (other_mean, other_spread) = (_moments(features) for features in (one, other))
    values, vectors = torch.linalg.eigh(spread)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    middle = torch.linalg.eigvalsh(root @ other_spread @ root).clamp_min(0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + spread.trace() + other_spread.trace() - 2 * middle
    return max(0.0, float(distance))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [d] and the covariance [d, d] of features [n, d]."""
    mean = features.double().mean(0)
    away = features.double() - mean
    return mean, away.T @ away / (len(features) - 1)
