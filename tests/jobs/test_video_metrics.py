"""Metrics of frames against references written here, and which way each of them is better."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bytropix.errors import ConfigError
from bytropix.jobs import video_metrics
from bytropix.jobs.video_metrics import (
    FRAME_METRICS,
    METRICS,
    FeatureEncoder,
    frame_metrics,
    frechet_distance,
    lpips_missing,
    psnr,
    ssim,
)


def pictures(seed: int, count: int = 3, height: int = 24, width: int = 32) -> Tensor:
    """Return smooth pictures with some noise, u8 [count, height, width, 3]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [100 + 60 * np.sin(x / generator.uniform(2, 9) + y / generator.uniform(2, 9)) for _ in range(3 * count)]
    smooth = np.stack(waves).reshape(count, 3, height, width).transpose(0, 2, 3, 1)
    return torch.from_numpy(np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))


def worsened(frames: Tensor, by: float) -> Tensor:
    """Return frames with noise of this standard deviation."""
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))
    return (frames.double() + by * noise).round().clamp(0, 255).to(torch.uint8)


def test_psnr_is_that_of_each_frame() -> None:
    """By the formula, frame by frame, on a range of 255: a mean over the batch would be another figure."""
    true = torch.full((3, 8, 8, 3), 100, dtype=torch.uint8)
    predicted = true + torch.tensor([1, 5, 100], dtype=torch.uint8)[:, None, None, None]

    expected = [10 * math.log10(255**2 / square) for square in (1, 25, 10000)]
    assert psnr(predicted, true).tolist() == pytest.approx(expected)
    assert psnr(true, predicted).tolist() == pytest.approx(expected)  # u8 must not wrap around


def test_psnr_of_equal_frames_is_finite() -> None:
    """One perfect frame does not make a mean infinite: it has the error of rounding, 1/12."""
    frames = pictures(0)

    assert psnr(frames, frames).tolist() == pytest.approx([10 * math.log10(255**2 * 12)] * 3)


def ssim_of(one: np.ndarray, other: np.ndarray) -> float:
    """Return the SSIM of two channels f64 [h, w] by its definition: Gaussian windows of sigma 1.5, mirrored edges."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2

    def mean(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, 5, mode="reflect")
        return np.array(
            [
                [(padded[i : i + 11, j : j + 11] * kernel).sum() for j in range(values.shape[1])]
                for i in range(values.shape[0])
            ]
        )

    first, second = mean(one), mean(other)
    variances = mean(one * one) - first**2, mean(other * other) - second**2
    shared = mean(one * other) - first * second
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * first * second + c1) * (2 * shared + c2)
    return float((above / ((first**2 + second**2 + c1) * (sum(variances) + c2))).mean())


def test_ssim_is_that_of_its_definition() -> None:
    """Each frame has its own figure, the mean over places and colours, on a range of 255."""
    true = pictures(2, count=2, height=16, width=20)
    predicted = worsened(true, 20)
    expected = [
        np.mean([ssim_of(*(frames[row, ..., c].double().numpy() for frames in (predicted, true))) for c in range(3)])
        for row in range(2)
    ]

    assert ssim(predicted, true).tolist() == pytest.approx(expected, abs=1e-5)
    assert ssim(true, true).tolist() == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize("name", [name for name in FRAME_METRICS if name != "lpips" or not lpips_missing()])
def test_directions_are_right(name: str) -> None:
    """The better of two predictions has the better figure, in the direction that the registry gives."""
    true = pictures(4, height=64, width=64)
    good, bad = (float(FRAME_METRICS[name](worsened(true, by), true).mean()) for by in (5, 40))

    assert METRICS[name].better(good, bad)
    assert not METRICS[name].better(bad, good)
    assert not METRICS[name].better(good, good)
    assert METRICS[name].best([bad, good, bad]) == 1


def test_directions_of_distances() -> None:
    """Nearer features and smaller end-point errors are better; every metric of frames is in the registry."""
    encoder = FeatureEncoder.random()
    true = pictures(5, count=64)
    good, bad = (frechet_distance(encoder(worsened(true, by)), encoder(true)) for by in (2, 60))

    assert METRICS["frechet"].better(good, bad)
    assert METRICS["epe"].best([3.0, 0.5, 2.0]) == 1
    assert set(FRAME_METRICS) | {"frechet", "epe"} == set(METRICS)


def test_lpips_is_left_out_for_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without weights on disk it is no metric, and says why; nothing is fetched, no file with code in it is read."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert lpips_missing().startswith("LPIPS: ")
    assert lpips_missing().endswith("left out")
    assert list(frame_metrics()) == ["psnr", "ssim"]

    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    assert "weights not installed" in lpips_missing()
    (tmp_path / "checkpoints").mkdir()
    torch.save({"run": print}, tmp_path / "checkpoints" / video_metrics.LPIPS_WEIGHTS)
    assert "cannot be read" in lpips_missing()


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    """Of features that lie along the axes the distance is |m1 - m2|^2 + sum (s1 - s2)^2, for their sample moments."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    one = (one - one.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(one.T.cov())).T  # moments exactly 0 and 1
    deviations, shift = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 3.0, 4.0])

    found = frechet_distance(one, one * deviations + shift)
    assert found == pytest.approx(25 + float((1 - deviations).square().sum()), abs=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_that_of_a_general_square_root() -> None:
    """Correlated, badly scaled and fewer than their features, moments give what scipy's matrix root gives."""
    linalg = pytest.importorskip("scipy.linalg")
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64) * torch.logspace(-3, 1, 6, dtype=torch.float64)
    one = torch.randn(50, 6, generator=generator, dtype=torch.float64) @ mixing
    other = torch.randn(40, 6, generator=generator, dtype=torch.float64) @ mixing.flip(0) + 1

    for first, second in ((one, other), (other, one)):
        spreads = [features.T.cov().numpy() for features in (first, second)]
        root = linalg.sqrtm(spreads[0] @ spreads[1]).real
        apart = float((first.mean(0) - second.mean(0)).square().sum())
        assert frechet_distance(first, second) == pytest.approx(apart + np.trace(sum(spreads) - 2 * root), rel=1e-6)
    assert math.isfinite(frechet_distance(one[:3], other[:3]))  # of rank 2


def test_random_features_are_the_same_everywhere() -> None:
    """A seed names the encoder, whatever torch's own generator did; another seed is another one."""
    frames = pictures(6)
    torch.manual_seed(1)
    first = FeatureEncoder.random()(frames)
    torch.rand(7)

    assert torch.equal(first, FeatureEncoder.random()(frames))
    assert first.shape == (3, 112)
    assert not torch.allclose(first, FeatureEncoder.random(1)(frames))
    assert FeatureEncoder.random(1).name == "random features, seed 1"


def test_an_encoder_of_the_user(tmp_path: Path) -> None:
    """Weights from a safetensors file are used and named; other tensors and files that may hold code are refused."""
    shapes = {
        f"convolution.{layer}.{kind}": shape
        for layer, (before, behind) in enumerate([(3, 16), (16, 32), (32, 64)])
        for kind, shape in (("weight", (behind, before, 3, 3)), ("bias", (behind,)))
    }
    mine, other, code = (tmp_path / name for name in ("mine.safetensors", "other.safetensors", "code.pt"))
    save_file({name: torch.full(shape, 0.01) for name, shape in shapes.items()}, mine)
    save_file({"convolution.0.weight": torch.zeros(16, 3, 5, 5)}, other)
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, code)

    assert FeatureEncoder.read(mine).name == "features of mine.safetensors"
    assert float(FeatureEncoder.read(mine)(torch.full((1, 16, 16, 3), 255, dtype=torch.uint8))[0, 0]) > 0.01
    with pytest.raises(ConfigError, match=r"other\.safetensors: convolution\.0\.bias is missing"):
        FeatureEncoder.read(other)
    for path in (code, tmp_path / "none"):
        with pytest.raises(ConfigError, match="not a safetensors file"):
            FeatureEncoder.read(path)
