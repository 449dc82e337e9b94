"""The training loss: a function of clip, key and weights; its gradient reaches all that is trained, nothing waits."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bytropix.nesting import LevelConfig, NestingConfig
from bytropix.video.autoencoder_loss import AutoencoderLoss
from bytropix.video.config import (
    AutoencoderConfig,
    ContextConfig,
    DenoiserConfig,
    DiffusionConfig,
    FlowConfig,
    Prediction,
    StackConfig,
    VideoModelConfig,
)
from bytropix.video.diffusion import BUCKETS, DiffusionLoss
from bytropix.video.model import VideoModel, measure_residuals
from bytropix.video.noise import clip_keys

LEVELS = (
    LevelConfig(dim=8, flow="mlp", boundary_points=3),
    LevelConfig(dim=6, flow="linear", boundary_points=3),
)
STACK = StackConfig(nesting=NestingConfig(levels=LEVELS), output=8)
WUBU = VideoModelConfig(
    given_frames=3,
    predicted_frames=2,
    autoencoder=AutoencoderConfig(stride=4, latent_channels=4, width=8),
    context=ContextConfig(features=8, region_width=12, width=16, spatial=STACK, motion=STACK, temporal=STACK),
    denoiser=DenoiserConfig(width=16, depth=2, heads=2),
    diffusion=DiffusionConfig(timesteps=50, condition_dropout=0.3),
)
DIT = replace(WUBU, context=ContextConfig(on=False))


def with_diffusion(config: VideoModelConfig, **changes: Any) -> VideoModelConfig:
    """Return a config whose diffusion has other settings."""
    return replace(config, diffusion=replace(config.diffusion, **changes))


def with_context(**changes: Any) -> VideoModelConfig:
    """Return a config whose context has other settings."""
    return replace(WUBU, context=replace(WUBU.context, **changes))


OFF = replace(STACK, on=False)
MODELS = {
    "wubu": WUBU,
    "dit": DIT,
    "without S": with_context(spatial=OFF),
    "without M": with_context(motion=OFF),
    "without T": with_context(temporal=OFF),
    "full time": with_context(time_mixing="full"),
    "pooled by mean": with_context(spatial=replace(STACK, pooling="mean"), motion=replace(STACK, pooling="max")),
    "difference": with_context(motion_source="difference"),
    "checkpointing": replace(WUBU, denoiser=replace(WUBU.denoiser, checkpointing=True)),
    "interpolation": with_diffusion(WUBU, interpolation_share=0.5),
    "residual": with_diffusion(WUBU, residual="last"),
    "warped": with_diffusion(replace(WUBU, flow=FlowConfig(on=True)), residual="warped"),
    "golden": with_diffusion(WUBU, time_embedding="golden"),
    "eps": with_diffusion(WUBU, prediction="eps"),
    "x0": with_diffusion(WUBU, prediction="x0"),
    "terminal": with_diffusion(WUBU, zero_terminal_snr=True),
}


def loss_of(config: VideoModelConfig, **settings: Any) -> DiffusionLoss:
    """Return the loss of a new model, its seed fixed, its residuals measured."""
    torch.manual_seed(0)
    loss = DiffusionLoss(VideoModel(config, **settings))
    measure_residuals(loss.model, [clips(8)["frames"]])
    return loss


def clips(rows: int = 6, *, size: tuple[int, int] = (16, 16)) -> dict[str, Tensor]:
    """Return noise as frames, boxes on them, the keys of the first clips of a stream, and that all rows are filled."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (rows, 5, *size, 3), generator=generator, dtype=torch.uint8)
    corners = torch.rand(rows, 5, 5, 2, generator=generator) * 8
    boxes = torch.cat([corners, corners + 6], dim=-1)
    keys = clip_keys(0, torch.arange(rows))
    filled = torch.ones(rows, dtype=torch.bool)
    return {"frames": frames, "regions": boxes[:, :, :3], "motion": boxes[:, :, 3:], "keys": keys, "filled": filled}


def told(loss: DiffusionLoss, batch: dict[str, Tensor]) -> tuple[tuple[Any, ...], Tensor]:
    """Return the denoiser's arguments (x, t, places, given, given places, context) and its output."""
    calls: list[tuple[tuple[Any, ...], Tensor]] = []

    def note(_: nn.Module, arguments: tuple[Any, ...], out: Tensor) -> None:
        calls.append((arguments, out))

    handle = loss.model.denoiser.register_forward_hook(note)
    with torch.no_grad():
        loss(**batch)
    handle.remove()
    return calls[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_trained_tensor_has_a_gradient_after_one_step(name: str) -> None:
    """In a new model, one batch with dropped rows and others gives each trained tensor a finite gradient, none zero."""
    loss, batch = loss_of(MODELS[name]), clips(12)
    dropped = told(loss, batch)[0][3].flatten(3).std(-1).amax((1, 2)) == 0
    assert dropped.any()
    assert not dropped.all()

    loss(**batch)[0].mean().backward()

    trained = {key: parameter.grad for key, parameter in loss.named_parameters() if parameter.requires_grad}
    assert trained
    assert [key for key, gradient in trained.items() if gradient is None] == []
    assert [key for key, gradient in trained.items() if not gradient.isfinite().all()] == []
    assert [key for key, gradient in trained.items() if not gradient.abs().max() > 0] == []
    assert all(parameter.grad is None for parameter in loss.model.autoencoder.parameters())


class NoWaiting(TorchDispatchMode):
    """Raises where an operation would make the host wait for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let an operation pass, or refuse it."""
        waits = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique"}
        name = func.__name__.split(".")[0]
        assert name not in waits, f"{name} waits for the device"
        if name in {"index", "index_put", "index_put_"}:
            assert not any(i is not None and i.dtype == torch.bool for i in args[1]), "an index that must be counted"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["wubu", "dit", "interpolation", "warped", "checkpointing"])
def test_nothing_waits_for_the_device(name: str) -> None:
    """Forward and backward read no number back to the host, and index with no mask, which would have to be counted."""
    loss, batch = loss_of(MODELS[name]), clips()

    with NoWaiting():
        losses, _ = loss(**batch)
        losses.sum().backward()


def test_the_watch_on_waiting_sees_it() -> None:
    """Reading a number, a mask as an index and counting are all noticed."""
    x = torch.arange(3.0)
    for wait in (lambda: x[1].item(), lambda: x[x > 1], lambda: x.nonzero(), lambda: bool(x[0])):
        with NoWaiting(), pytest.raises(AssertionError, match=r"waits|counted"):
            wait()


@pytest.mark.parametrize("name", ["wubu", "interpolation", "warped"])
def test_a_clips_loss_is_its_own(name: str) -> None:
    """A clip has the same loss alone, in any batch and at any place in it, whatever random state the process has."""
    loss, batch = loss_of(MODELS[name]), clips()
    whole = loss(**batch)[0].detach()
    torch.manual_seed(99)
    order = torch.tensor([4, 1, 5])

    torch.testing.assert_close(loss(**{key: part[order] for key, part in batch.items()})[0].detach(), whole[order])
    torch.testing.assert_close(loss(**{key: part[2:3] for key, part in batch.items()})[0].detach(), whole[2:3])
    assert torch.equal(loss(**batch)[0].detach(), whole)


def test_another_key_is_another_noise() -> None:
    """The same clips at other places of the stream have other timesteps, noise and losses."""
    loss, batch = loss_of(WUBU), clips()
    later = batch | {"keys": clip_keys(0, torch.arange(6) + 6)}

    assert (loss(**batch)[0] - loss(**later)[0]).detach().abs().min() > 0


def test_empty_rows_count_nothing() -> None:
    """A row that is padding has no loss, no part in the tallies and no gradient; the others are as without it."""
    loss, batch = loss_of(MODELS["warped"]), clips()
    batch["filled"] = torch.tensor([True, False, True, True, False, True])
    for name in ("frames", "regions", "motion"):
        batch[name][~batch["filled"]] = 0
    losses, tallies = loss(**batch)
    losses.sum().backward()
    found = [parameter.grad for parameter in loss.parameters() if parameter.requires_grad]
    loss.zero_grad()
    alone, alone_tallies = loss(**{key: part[batch["filled"]] for key, part in batch.items()})
    alone.sum().backward()

    assert losses[[1, 4]].tolist() == [0, 0]
    torch.testing.assert_close(losses[batch["filled"]], alone)
    torch.testing.assert_close(tallies, alone_tallies)
    for one, parameter in zip(found, (p for p in loss.parameters() if p.requires_grad), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_loss_is_the_weighted_squared_error(prediction: Prediction) -> None:
    """The denoiser is asked for noise, latents or v as the formulas say, computed here from what it was shown."""
    loss, batch = loss_of(with_diffusion(WUBU, prediction=prediction, min_snr=5.0)), clips()
    (x_t, t, places, *_), out = told(loss, batch)
    bars = loss.model.schedule.alpha_bars[t][:, None, None, None, None]
    x0 = torch.stack([z[places[row]] for row, z in enumerate(loss.model.encode(batch["frames"]))]).double()
    noise = (x_t.double() - bars.sqrt() * x0) / (1 - bars).sqrt()
    target = {"x0": x0, "eps": noise, "v": bars.sqrt() * noise - (1 - bars).sqrt() * x0}[prediction]
    errors = (out - target).square().mean((1, 2, 3, 4))
    snr = (bars / (1 - bars)).flatten()
    divisor = {"x0": torch.ones(6), "eps": snr, "v": snr + 1}[prediction]
    losses, tallies = loss(**batch)

    torch.testing.assert_close(losses.detach().double(), errors * snr.clamp(max=5) / divisor, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(tallies[:, 0].sum().double(), errors.sum(), rtol=1e-4, atol=0)
    assert abs(noise.mean()) < 0.2
    assert abs(noise.std() - 1) < 0.1


def test_tallies_are_by_timestep() -> None:
    """Each clip counts in the eighth of the timesteps that its own lies in."""
    loss, batch = loss_of(DIT), clips(40)
    (_, t, *_), _ = told(loss, batch)
    tallies = loss(**batch)[1]

    assert tallies.shape == (BUCKETS, 2)
    assert not tallies.requires_grad
    assert tallies[:, 1].tolist() == [int((t * BUCKETS // 50 == bucket).sum()) for bucket in range(BUCKETS)]


def test_choices_are_as_often_as_asked() -> None:
    """Timesteps are evenly spread; the condition is dropped, and frames at the end are given, as often as set."""
    config = with_diffusion(DIT, interpolation_share=0.25)
    loss, batch = loss_of(config), clips(1, size=(4, 4))
    batch = {key: part.expand(4000, *part.shape[1:]) for key, part in batch.items()}
    batch["keys"] = clip_keys(0, torch.arange(4000))
    (_, t, places, given, given_places, _), _ = told(loss, batch)
    dropped = (given == loss.model.null_latents_FC[:, :, None, None]).all((1, 2, 3, 4))
    between = given_places[:, -1] == 4

    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert between.float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert (dropped & between).float().mean().item() == pytest.approx(0.3 * 0.25, abs=0.03)
    assert torch.bincount(t, minlength=50).min() > 40
    assert t.max() == 49
    assert torch.cat([given_places, places], dim=1).sort(1).values.eq(torch.arange(5)).all()


@pytest.mark.parametrize("name", ["wubu", "interpolation", "residual", "warped"])
def test_targets_are_seen_through_their_noise_alone(name: str) -> None:
    """Other target frames, and other boxes on them, change nothing that the denoiser is told but its noisy input."""
    loss, batch = loss_of(MODELS[name]), clips(12)
    (x, t, places, *rest), _ = told(loss, batch)
    rows = torch.arange(12)[:, None]
    other = {key: part.clone() for key, part in batch.items()}
    other["frames"][rows, places] = 255 - other["frames"][rows, places]
    for boxes in ("regions", "motion"):
        other[boxes][rows, places] += 2
    # Motion regions of a given frame lie between it and the frame before it, which may be a target.
    behind = (places[:, -1:] + 1).clamp(max=4)
    other["motion"][rows, behind] += 2
    (changed_x, changed_t, changed_places, *changed_rest), _ = told(loss, other)

    assert (x - changed_x).abs().amax((1, 2, 3, 4)).min() > 0
    for one, same in zip((t, places, *rest[:2]), (changed_t, changed_places, *changed_rest[:2]), strict=True):
        assert torch.equal(one, same)
    assert torch.equal(rest[2].tokens * rest[2].visible[..., None], changed_rest[2].tokens * rest[2].visible[..., None])
    assert torch.equal(rest[2].visible, changed_rest[2].visible)


def test_joint_training_adds_the_autoencoders_own_loss_and_no_other_gradient() -> None:
    """The encoder learns from reconstruction alone: the diffusion loss does not reach it, or latents would collapse."""
    joint, frozen, batch = loss_of(WUBU, joint=True), loss_of(WUBU), clips()
    joint.model.load_state_dict(frozen.model.state_dict())
    losses = joint(**batch)[0]
    losses.sum().backward()
    found = {name: parameter.grad for name, parameter in joint.model.autoencoder.named_parameters()}
    joint.zero_grad()
    own = AutoencoderLoss(joint.model.autoencoder)(batch["frames"])[0]
    own.sum().backward()

    torch.testing.assert_close(losses, frozen(**batch)[0] + own)
    for name, parameter in joint.model.autoencoder.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_a_few_steps_learn() -> None:
    """On one batch of clips whose frames go on as they were, eighty steps take off a quarter of the error."""
    config = with_diffusion(replace(DIT, denoiser=replace(DIT.denoiser, width=32, patch=1)), min_snr=0.0)
    loss, batch = loss_of(config), clips(8)
    batch["frames"] = batch["frames"][:, :1].expand(-1, 5, -1, -1, -1)
    with torch.no_grad():
        std = loss.model.encode(batch["frames"]).std()
        loss.model.autoencoder.latent_std_C.mul_(std)
    optimizer = torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=5e-3)
    history = []
    for step in range(80):
        optimizer.zero_grad()
        value = loss(**batch | {"keys": clip_keys(0, torch.arange(8) + 8 * step)})[0].mean()
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))

    assert sum(history[-10:]) < 0.75 * sum(history[:10])
