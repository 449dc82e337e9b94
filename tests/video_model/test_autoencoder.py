"""The autoencoder takes frames of any size, learns on both sides, and its measured latents have unit size."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bytropix.errors import RunError
from bytropix.jobs.film import add_shapes, panned
from bytropix.optim import OptimConfig, learning_rate, make_adamw
from bytropix.video.autoencoder import FrameAutoencoder, cosine_basis, measure_latents, to_pixels, to_signed
from bytropix.video.autoencoder_loss import AutoencoderLoss, latent_penalty
from bytropix.video.config import AutoencoderConfig

SMALL = AutoencoderConfig(stride=4, latent_channels=8, width=16, blocks=1)
STEPS = 200


def made(config: AutoencoderConfig = SMALL) -> FrameAutoencoder:
    """Return an untrained autoencoder."""
    torch.manual_seed(0)
    return FrameAutoencoder(config)


def stirred(autoencoder: FrameAutoencoder) -> FrameAutoencoder:
    """Return it with branches that do something."""
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return autoencoder


def clips(count: int = 12, side: int = 32) -> Tensor:
    """Return made clips, u8 [count, 8, side, side, 3]: shapes that bounce before patterns of which some go by."""
    made_clips = []
    for seed in range(count):
        images = panned(8, side, side, seed=seed, speed=seed % 3)
        add_shapes(images, side // 4, seed=seed)
        made_clips.append(images)
    return torch.from_numpy(np.stack(made_clips))


def psnr(one: Tensor, other: Tensor) -> float:
    """Return the ratio of the peak to the error of u8 pictures, in dB, at most 120."""
    return -10 * math.log10(float((one.float() - other.float()).div(255).square().mean()) + 1e-12)


def train(autoencoder: FrameAutoencoder, frames: Tensor, steps: int) -> list[float]:
    """Train on clips u8 [n, T, H, W, 3], two at a time; return the losses."""
    config = OptimConfig(lr=3e-3, warmup=10, weight_decay=0.01)
    loss, optimizer = AutoencoderLoss(autoencoder), make_adamw(autoencoder, config)
    generator, losses = torch.Generator().manual_seed(0), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, steps)
        value = loss(frames[torch.randint(len(frames), (2,), generator=generator)])[0].mean()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


@pytest.fixture(scope="module")
def trained() -> FrameAutoencoder:
    """An autoencoder trained for some seconds on made clips, its latents measured."""
    autoencoder = made()
    train(autoencoder, clips(), STEPS)
    measure_latents(autoencoder, [clips()])
    return autoencoder


@settings(max_examples=40, deadline=None)
@given(
    stride=st.sampled_from([4, 8, 16]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    blocks=st.integers(0, 1),
)
def test_frames_of_any_size(stride: int, height: int, width: int, blocks: int) -> None:
    """Frames come back in their own size, from a grid whose sides are those over the stride, rounded up."""
    autoencoder = made(replace(SMALL, stride=stride, width=8, blocks=blocks))
    frames = torch.zeros(1, 2, height, width, 3, dtype=torch.uint8)
    with torch.no_grad():
        latents = autoencoder.encode_frames(frames)
        decoded = autoencoder.decode_frames(latents, (height, width))

    assert latents.shape == (1, 2, 8, math.ceil(height / stride), math.ceil(width / stride))
    assert latents.isfinite().all()
    assert decoded.shape == frames.shape
    assert decoded.dtype == torch.uint8


@pytest.mark.parametrize("size", [(17, 31), (36, 64), (64, 36), (24, 56), (48, 48)])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_shapes_of_real_frames_are_kept(size: tuple[int, int], stride: int) -> None:
    """17x31, 16:9, 9:16, 21:9 and square frames: right size, and what is above stays above, left stays left."""
    autoencoder = made(AutoencoderConfig(stride=stride, latent_channels=4, width=8))  # type: ignore[arg-type]
    frames = torch.zeros(1, 1, *size, 3, dtype=torch.uint8)
    frames[:, :, : size[0] // 2, : size[1] // 2] = 255
    with torch.no_grad():
        decoded = autoencoder.decode_frames(autoencoder.encode_frames(frames), size)

    assert decoded.shape == frames.shape
    assert psnr(decoded, frames) > 10  # of the transform alone; mirrored it is below 4


def test_sides_that_do_not_divide_leave_no_seam() -> None:
    """A frame is padded by its own edge: padding it so before it comes changes nothing of the crop, zeros would."""
    autoencoder = stirred(made())
    x = to_signed(clips(1)[0, :2, :29, :30])
    edge = torch.nn.functional.pad(x, (0, 2, 0, 3), mode="replicate")
    black = torch.nn.functional.pad(x, (0, 2, 0, 3), value=-1.0)
    with torch.no_grad():
        z = autoencoder.encode(x)
        torch.testing.assert_close(z, autoencoder.encode(edge), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            autoencoder.decode(z, (29, 30)), autoencoder.decode(z)[..., :29, :30], rtol=1e-4, atol=1e-4
        )

        assert (z - autoencoder.encode(black)).abs().max() > 0.1


def test_a_grid_of_another_size_is_refused() -> None:
    """A grid decodes to frames that it covers, not to others."""
    with pytest.raises(ValueError, match=r"latent grid of \[8, 8\] is not that of frames of \[28, 32\]"):
        made().decode(torch.zeros(1, 8, 8, 8), (28, 32))


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("blocks", [0, 1])
def test_gradient_reaches_every_parameter(stride: int, blocks: int) -> None:
    """Behind the first step, which wakes the branches, the pictures' error reaches all of encoder and decoder."""
    sizes: dict[str, Any] = {
        "stride": stride,
        "latent_channels": 4,
        "width": 8,
        "blocks": blocks,
        "latent_penalty": 0.0,
    }
    autoencoder = made(AutoencoderConfig(**sizes))
    frames = clips(2)
    train(autoencoder, frames, 2)
    autoencoder.zero_grad(set_to_none=True)
    AutoencoderLoss(autoencoder)(frames)[0].sum().backward()
    still = [
        name
        for name, parameter in autoencoder.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]

    assert still == []


def test_training_moves_the_decoder() -> None:
    """With the encoder held still the error falls a lot: the decoder is trained, not a bystander."""
    autoencoder, frames = made(), clips(4)
    autoencoder.encoder.requires_grad_(False)
    before = {name: weight.detach().clone() for name, weight in autoencoder.named_parameters()}
    with torch.no_grad():
        error = AutoencoderLoss(autoencoder)(frames)[1].mean()
    train(autoencoder, frames, 100)
    moved = {name.split(".")[0] for name, weight in autoencoder.named_parameters() if not weight.equal(before[name])}

    assert moved == {"decoder"}
    with torch.no_grad():
        assert AutoencoderLoss(autoencoder)(frames)[1].mean() < 0.75 * error


def test_it_learns_and_its_latents_do_not_collapse(trained: FrameAutoencoder) -> None:
    """After seconds on made clips: over 25 dB on clips that it never saw, raw latents of a deviation in 0.5..2."""
    unseen = clips(16)[12:]
    with torch.no_grad():
        decoded = trained.decode_frames(trained.encode_frames(unseen), (32, 32))
        untrained = made().decode_frames(made().encode_frames(unseen), (32, 32))

    assert psnr(decoded, unseen) > max(25.0, psnr(untrained, unseen) + 1.5)
    assert all(0.5 < std < 2 for std in trained.latent_std_C.tolist())


@pytest.mark.parametrize("size", [0.05, 0.3, 3.0, 20.0])
def test_the_penalty_draws_latents_to_unit_size(size: float) -> None:
    """Latents that are too small are made larger by a step against its gradient, too large ones smaller."""
    z = (size * torch.randn(2, 3, 4, 8, 8)).requires_grad_()
    latent_penalty(z).sum().backward()
    assert z.grad is not None

    assert -float((z.grad * z.detach()).sum()) * (1 - size) > 0


def test_each_clip_has_its_own_loss() -> None:
    """The losses of clips together are those of each alone: ranks may share a batch in any way."""
    loss, frames = AutoencoderLoss(stirred(made())), clips(3)
    with torch.no_grad():
        together = loss(frames)
        alone = [torch.cat(pair) for pair in zip(*(loss(clip[None]) for clip in frames), strict=True)]

    for one, other in zip(together, alone, strict=True):
        assert one.shape == (3,)
        torch.testing.assert_close(one, other)
    assert together[0].unique().numel() == 3


def test_the_squared_error_is_that_of_the_pictures(trained: FrameAutoencoder) -> None:
    """The error that a step reports is the PSNR of what it would write, but for rounding and cutting off."""
    frames = clips(2)
    with torch.no_grad():
        squared = AutoencoderLoss(trained)(frames)[1]
        decoded = trained.decode_frames(trained.encode_frames(frames), (32, 32))

    assert -10 * math.log10(float(squared.mean())) == pytest.approx(psnr(decoded, frames), abs=0.2)


def test_measured_latents_have_unit_size() -> None:
    """Statistics are those of all frames, however they are cut into pieces; normalized by them, mean 0 and std 1."""
    autoencoder, frames = stirred(made()), clips()
    raw = autoencoder.encode(to_signed(frames.flatten(0, 1))).detach().double().transpose(0, 1).flatten(1)

    def pieces() -> Iterator[Tensor]:
        yield from (frames[:5], frames[5, 0], frames[5, 1:], frames[6:])

    assert measure_latents(autoencoder, pieces()) == 96
    torch.testing.assert_close(autoencoder.latent_mean_C.double(), raw.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(autoencoder.latent_std_C.double(), raw.std(1, correction=0), rtol=1e-4, atol=1e-5)
    z = autoencoder.encode_frames(frames).detach().double()
    torch.testing.assert_close(z.mean((0, 1, 3, 4)), torch.zeros(8).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std((0, 1, 3, 4), correction=0), torch.ones(8).double(), rtol=0, atol=1e-4)


def test_restore_undoes_normalize(trained: FrameAutoencoder) -> None:
    """Raw latents come back, of single frames and of clips."""
    assert not torch.equal(trained.latent_std_C, torch.ones(8))
    for shape in ((3, 8, 5, 6), (2, 3, 8, 5, 6)):
        z = torch.randn(shape)
        torch.testing.assert_close(trained.restore(trained.normalize(z)), z)


def test_statistics_are_part_of_the_weights(trained: FrameAutoencoder) -> None:
    """They are saved and loaded with the rest."""
    other = made()
    other.load_state_dict(trained.state_dict())

    assert torch.equal(other.latent_mean_C, trained.latent_mean_C)
    assert torch.equal(other.latent_std_C, trained.latent_std_C)


def test_dead_latents_are_refused() -> None:
    """A channel that says nothing, or is not finite, has no unit size: the message says what to do."""
    autoencoder = made()
    with pytest.raises(RunError, match="no frames to measure"):
        measure_latents(autoencoder, [])
    with pytest.raises(RunError, match=r"latent channel 0 .* is the same in all of 2 frames.*latent_penalty"):
        measure_latents(autoencoder, [torch.full((2, 16, 16, 3), 90, dtype=torch.uint8)])
    with torch.no_grad():
        autoencoder.encoder.linear.bias[2] = torch.nan  # type: ignore[index, operator]
    with pytest.raises(RunError, match="latent channel 2"):
        measure_latents(autoencoder, [clips(2)])
    assert torch.equal(autoencoder.latent_std_C, torch.ones(8))


@pytest.mark.parametrize("channels", [1, 4, 48, 50])
def test_the_transform_is_orthonormal(channels: int) -> None:
    """Waves are orthonormal, the first is the mean brightness, and past the last wave there is nothing."""
    basis, sizes = cosine_basis(4, channels)
    flat = basis.reshape(channels, 48)
    waves = np.diag(np.arange(channels) < 48)

    np.testing.assert_allclose(flat @ flat.T, waves, atol=1e-12)
    np.testing.assert_allclose(flat[0], 48**-0.5)
    assert (sizes > 0).all()


def test_the_whole_transform_loses_nothing() -> None:
    """With all its waves, an untrained autoencoder returns every frame as it was."""
    autoencoder, frames = made(replace(SMALL, latent_channels=48)), clips(2)
    with torch.no_grad():
        decoded = autoencoder.decode_frames(autoencoder.encode_frames(frames), (32, 32))

    assert torch.equal(decoded, frames)


def test_pixels_go_there_and_back() -> None:
    """Every value of a pixel survives -1..1; what lies outside is cut off, not wrapped around."""
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3)

    assert torch.equal(to_pixels(to_signed(values)), values)
    assert to_signed(values).min() == -1
    assert to_signed(values).max() == 1
    assert to_pixels(torch.tensor([-1.5, 1.5, 0.0]).reshape(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]
