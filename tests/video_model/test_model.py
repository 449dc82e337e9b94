"""The whole model: what it is given counts, what it is not given does not, in both of its kinds."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bytropix.errors import RunError
from bytropix.nesting import LevelConfig, NestingConfig
from bytropix.video.config import (
    AutoencoderConfig,
    ContextConfig,
    DenoiserConfig,
    DiffusionConfig,
    FlowConfig,
    StackConfig,
    VideoModelConfig,
)
from bytropix.video.model import (
    Given,
    VideoModel,
    frame_before,
    interpolate_places,
    known_motion,
    measure_residuals,
    predict_places,
)

STACK = StackConfig(nesting=NestingConfig(levels=(LevelConfig(dim=8), LevelConfig(dim=6))), output=8)
WUBU = VideoModelConfig(
    given_frames=3,
    predicted_frames=2,
    autoencoder=AutoencoderConfig(stride=4, latent_channels=4, width=8),
    context=ContextConfig(features=8, region_width=12, width=16, spatial=STACK, motion=STACK, temporal=STACK),
    denoiser=DenoiserConfig(width=16, depth=2, heads=2),
    diffusion=DiffusionConfig(timesteps=50),
)
DIT = replace(WUBU, context=ContextConfig(on=False))
BOTH = pytest.mark.parametrize("config", [WUBU, DIT], ids=["wubu", "dit"])


def made(config: VideoModelConfig, **settings: Any) -> VideoModel:
    """Return a model whose small weights are of their usual size, so that everything it sees can be measured."""
    torch.manual_seed(0)
    model = VideoModel(config, **settings)
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    return model.eval()


def given_of(config: VideoModelConfig, rows: int = 2, size: tuple[int, int] = (16, 20), **changes: Any) -> Given:
    """Return noise as frames, with boxes on them."""
    generator = torch.Generator().manual_seed(1)
    count = config.given_frames
    frames = torch.randint(0, 256, (rows, count, *size, 3), generator=generator, dtype=torch.uint8)
    corners = torch.rand(rows, count, 5, 2, generator=generator) * 8
    boxes = torch.cat([corners, corners + 6], dim=-1)
    given = Given(frames, boxes[:, :, :3], boxes[:, :, 3:], predict_places(config)[0].expand(rows, -1))
    return replace(given, **changes)


def prediction(model: VideoModel, given: Given, places: Tensor | None = None) -> Tensor:
    """Return what a model makes of fixed noise at timestep 20, behind the given frames."""
    with torch.no_grad():
        seen = model.look(given)
        rows, _, *grid = seen.latents.shape
        count = model.config.predicted_frames
        x = torch.randn(rows, count, *grid, generator=torch.Generator().manual_seed(2))
        places = predict_places(model.config)[1].expand(rows, -1) if places is None else places
        return model.predict(x, torch.full((rows,), 20), seen, places)


@BOTH
@pytest.mark.parametrize("size", [(16, 16), (17, 31), (9, 40), (4, 4)])
def test_frames_of_any_size(config: VideoModelConfig, size: tuple[int, int]) -> None:
    """One model takes frames of any size, and predicts latents of the grid of such frames."""
    model = made(config)
    out = prediction(model, given_of(config, size=size))

    assert out.shape == (2, 2, 4, *model.autoencoder.grid(*size))
    assert out.isfinite().all()


@BOTH
def test_every_given_frame_counts(config: VideoModelConfig) -> None:
    """Another picture in any of the given frames changes the prediction of every target frame."""
    model, given = made(config), given_of(config)
    before = prediction(model, given)
    for frame in range(config.given_frames):
        frames = given.frames.clone()
        frames[:, frame] = 255 - frames[:, frame]
        change = prediction(model, replace(given, frames=frames)) - before

        assert change.abs().flatten(2).amax(2).min() > 1e-3


def test_every_given_frame_counts_through_the_context_alone() -> None:
    """The context by itself, without the latents under the noise, says something of each given frame."""
    model, given = made(WUBU), given_of(WUBU)
    torch.nn.init.zeros_(model.denoiser.given_entry.weight)
    before = prediction(model, given)
    for frame in range(WUBU.given_frames):
        frames = given.frames.clone()
        frames[:, frame] = 255 - frames[:, frame]

        assert (prediction(model, replace(given, frames=frames)) - before).abs().amax((1, 2, 3, 4)).min() > 1e-4


def test_regions_and_motion_regions_count() -> None:
    """Other boxes are other tokens; the plain transformer does not look at boxes."""
    for config, counts in ((WUBU, True), (DIT, False)):
        model, given = made(config), given_of(config)
        before = prediction(model, given)
        for name in ("regions", "motion"):
            change = prediction(model, replace(given, **{name: getattr(given, name) + 1.5})) - before

            assert (change.abs().max() > 1e-4) == counts


@BOTH
def test_dropped_clips_know_nothing_of_what_was_given(config: VideoModelConfig) -> None:
    """Where the condition is dropped, other frames, boxes and all change nothing; the other rows stay as they were."""
    model = made(config)
    given = given_of(config, rows=4, dropped=torch.tensor([True, False, True, False]))
    other = replace(given, frames=255 - given.frames, regions=given.regions + 2, motion=given.motion + 2)
    before, after = prediction(model, given), prediction(model, other)

    assert torch.equal(before[given.dropped], after[given.dropped])
    assert (before[~given.dropped] - after[~given.dropped]).abs().amax((1, 2, 3, 4)).min() > 1e-3
    assert (before - prediction(model, replace(given, dropped=None)))[given.dropped].abs().max() > 1e-3


def test_what_stands_for_nothing_is_learned() -> None:
    """The null token and the null latents of each given frame count where the condition is dropped, not elsewhere."""
    model, given = made(WUBU), given_of(WUBU, rows=4, dropped=torch.tensor([True, False, True, False]))
    before = prediction(model, given)
    for learned in (model.null_token_D, *model.null_latents_FC):
        with torch.no_grad():
            learned += torch.linspace(-1, 1, len(learned))
        change = (prediction(model, given) - before).abs().amax((1, 2, 3, 4))
        before = prediction(model, given)

        assert (change > 1e-4).tolist() == [True, False, True, False]


@BOTH
def test_clips_do_not_see_each_other(config: VideoModelConfig) -> None:
    """A clip's prediction does not depend on the others in the batch."""
    model, given = made(config), given_of(config)
    frames = given.frames.clone()
    frames[1] = 0

    assert torch.equal(prediction(model, replace(given, frames=frames))[0], prediction(model, given)[0])


@BOTH
def test_both_sides_of_guidance_in_one_evaluation(config: VideoModelConfig) -> None:
    """Twice the rows, the second half dropped, are what two evaluations would be."""
    model, given = made(config), given_of(config)
    with torch.no_grad():
        seen, null = model.look(given), model.look(replace(given, dropped=torch.ones(2, dtype=torch.bool)))
        x = torch.randn(2, 2, *seen.latents.shape[2:])
        t, places = torch.tensor([3, 40]), predict_places(config)[1].expand(2, -1)
        both = model.predict(*(torch.cat([part, part]) for part in (x, t)), seen.with_dropped(), places.repeat(2, 1))

        torch.testing.assert_close(both[:2], model.predict(x, t, seen, places))
        torch.testing.assert_close(both[2:], model.predict(x, t, null, places))


def test_a_clip_without_any_region_is_finite() -> None:
    """Where all boxes are padding, the clip sees the null token and its latents."""
    given = given_of(WUBU)
    nothing = replace(given, regions=torch.zeros_like(given.regions), motion=torch.zeros_like(given.motion))
    model = made(WUBU)

    assert prediction(model, nothing).isfinite().all()
    frames = 255 - nothing.frames
    assert (prediction(model, replace(nothing, frames=frames)) - prediction(model, nothing)).abs().max() > 1e-3


def test_layouts() -> None:
    """Prediction is given the first frames; interpolation the first and the last, one more of the first if odd."""
    assert [part.tolist() for part in predict_places(WUBU)] == [[0, 1, 2], [3, 4]]
    assert [part.tolist() for part in interpolate_places(WUBU)] == [[0, 1, 4], [2, 3]]
    four = replace(WUBU, given_frames=4, predicted_frames=1)
    assert [part.tolist() for part in interpolate_places(four)] == [[0, 1, 3, 4], [2]]


def test_motion_between_a_given_frame_and_a_hidden_one_is_not_shown() -> None:
    """The motion regions of the first frame behind a gap, and of the first of all, say what nobody may know."""
    places = interpolate_places(WUBU)[0].expand(2, -1)
    model, given = made(WUBU), given_of(WUBU, places=places)
    targets = interpolate_places(WUBU)[1].expand(2, -1)
    changes = []
    for frame in range(3):
        motion = given.motion.clone()
        motion[:, frame] += 1.5
        change = prediction(model, replace(given, motion=motion), targets) - prediction(model, given, targets)
        changes.append(float(change.abs().max()) > 0)

    assert changes == [False, True, False]
    assert known_motion(given.motion, places).abs().amax((0, 2, 3)).gt(0).tolist() == [False, True, False]


def test_the_base_is_the_last_given_frame_before_a_target() -> None:
    """Also between given frames, where the last of all lies behind the target; before all of them it is the first."""
    assert frame_before(torch.tensor([[0, 1, 4]]), torch.tensor([[2, 3, 5, 0]])).tolist() == [[1, 1, 2, 0]]
    config = replace(WUBU, diffusion=replace(WUBU.diffusion, residual="last"))
    model = made(config)
    places, targets = (part.expand(2, -1) for part in interpolate_places(config))
    seen = model.look(given_of(config, places=places))

    assert torch.equal(model.base(seen, targets), seen.latents[:, [1, 1]])


def test_what_is_diffused_is_the_difference_of_measured_size() -> None:
    """With a residual, what is diffused has unit size in every channel, and turns back into latents exactly."""
    config = replace(WUBU, diffusion=replace(WUBU.diffusion, residual="last"))
    model = made(config)
    frames = torch.randint(0, 256, (6, 5, 16, 16, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    measure_residuals(model, frames.split(2))
    latents = model.encode(frames)
    seen = model.look(Given(frames[:, :3], *(torch.zeros(6, 3, 1, 4),) * 2, torch.arange(3).expand(6, -1)))
    targets = torch.arange(3, 5).expand(6, -1)
    diffused = model.to_diffused(latents[:, 3:], seen, targets)

    torch.testing.assert_close(diffused.square().mean((0, 1, 3, 4)), torch.ones(4))
    torch.testing.assert_close(diffused * model.residual_scale_C[:, None, None] + latents[:, 2:3], latents[:, 3:])
    torch.testing.assert_close(model.to_latents(diffused, seen, targets), latents[:, 3:])
    assert "residual_scale_C" in model.state_dict()


@pytest.mark.parametrize("places", [[0, 1, 2], [0, 1, 4]], ids=["predict", "interpolate"])
def test_what_stands_still_is_as_sharp_as_it_was_given(places: list[int]) -> None:
    """With a residual, no difference is the last given frame itself; without, what the autoencoder makes of it."""
    for residual in ("none", "last"):
        config = replace(WUBU, diffusion=replace(WUBU.diffusion, residual=residual))
        model, given = made(config), given_of(config, size=(17, 22), places=torch.tensor(places).expand(2, -1))
        targets = torch.tensor([[3 if places[-1] == 2 else 2] * 2] * 2)
        last = 2 if places[-1] == 2 else 1
        seen = model.look(given)
        still = model.to_diffused(seen.latents[:, [last, last]], seen, targets)
        frames = model.frames_of(still, seen, targets, given.frames)
        decoded = model.autoencoder.decode_frames(seen.latents[:, [last, last]], (17, 22))

        assert torch.equal(frames, given.frames[:, [last, last]] if residual == "last" else decoded)


def test_what_changes_is_what_the_autoencoder_makes_of_it() -> None:
    """Where the target looks unlike the last given frame, nothing of that frame is left over."""
    config = replace(WUBU, diffusion=replace(WUBU.diffusion, residual="last"))
    model, given = made(config), given_of(config)
    targets = torch.arange(3, 5).expand(2, -1)
    seen = model.look(given)
    x0 = 10 * torch.randn(2, 2, *seen.latents.shape[2:])
    plain = model.autoencoder.decode_frames(model.to_latents(x0, seen, targets), (16, 20))

    assert (model.frames_of(x0, seen, targets, given.frames) != plain).float().mean() < 0.02


def test_without_a_residual_latents_themselves_are_diffused() -> None:
    """The base is nothing, and measuring leaves the size alone."""
    model = made(WUBU)
    seen, latents = model.look(given_of(WUBU)), torch.randn(2, 2, 4, 4, 5)
    measure_residuals(model, [])

    assert torch.equal(model.to_diffused(latents, seen, torch.arange(3, 5).expand(2, -1)), latents)
    assert torch.equal(model.residual_scale_C, torch.ones(4))


@pytest.mark.parametrize("clips", [[], [torch.full((2, 5, 8, 8, 3), 90, dtype=torch.uint8)]], ids=["none", "still"])
def test_nothing_to_measure_is_refused(clips: list[Tensor]) -> None:
    """Without clips, or where nothing moves, there is no size to divide by."""
    config = replace(WUBU, diffusion=replace(WUBU.diffusion, residual="last"))

    with pytest.raises(RunError, match="residual needs clips in which something moves"):
        measure_residuals(made(config), clips)


def test_a_frozen_autoencoder_stays_as_it_is() -> None:
    """It has no gradient and no training mode, unless it is trained too."""
    frozen, joint = VideoModel(DIT).train(), VideoModel(DIT, joint=True).train()

    assert not any(parameter.requires_grad for parameter in frozen.autoencoder.parameters())
    assert not any(module.training for module in frozen.autoencoder.modules())
    assert frozen.denoiser.training
    assert all(parameter.requires_grad for parameter in joint.autoencoder.parameters())
    assert joint.autoencoder.training
    assert not joint.eval().autoencoder.training


def test_scalars_name_every_level_of_every_stack() -> None:
    """Curvature, scale and spread of each level of S, M and T; of a stack that is off, none; of the plain one, none."""
    names = {f"levels/{stack}/{level}/curvature" for stack in "SMT" for level in range(2)}
    without = replace(WUBU, context=replace(WUBU.context, motion=replace(STACK, on=False)))

    assert names <= set(VideoModel(WUBU).scalars())
    assert not any("/M/" in name for name in VideoModel(without).scalars())
    assert VideoModel(DIT).scalars() == {}


def test_flow_moves_the_base() -> None:
    """With a flow head the base of a prediction is made of what the flow says, and differs from the unmoved one."""
    diffusion = replace(WUBU.diffusion, residual="warped")
    model = made(replace(WUBU, flow=FlowConfig(on=True), diffusion=diffusion))
    seen = model.look(given_of(WUBU))
    targets = torch.arange(3, 5).expand(2, -1)

    assert (model.base(seen, targets) - seen.latents[:, 2:3]).detach().abs().max() > 1e-4
