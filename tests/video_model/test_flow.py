"""How far things move: warping, boxes that go along, a head that learns it, latents moved on to diffuse from."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bytropix.errors import ConfigError
from bytropix.nesting.config import LevelConfig, NestingConfig
from bytropix.video.autoencoder import measure_latents
from bytropix.video.config import (
    AutoencoderConfig,
    ContextConfig,
    DenoiserConfig,
    DiffusionConfig,
    FlowConfig,
    Residual,
    StackConfig,
    VideoModelConfig,
)
from bytropix.video.diffusion import DiffusionLoss
from bytropix.video.flow import (
    GivenFlow,
    end_point_error,
    in_cells,
    in_pixels,
    local_flow,
    spread_boxes,
    supervised_loss,
    upsample_flow,
    warp,
    warp_loss,
    warped_latents,
)
from bytropix.video.model import Given, VideoModel, frame_before, interpolate_places, measure_residuals, predict_places
from bytropix.video.noise import clip_keys
from tests.video_model.known_flow import KnownClips, known_clips

STRIDE, SIDE = 4, 32


def config(*, on: bool = True, residual: Residual = "none") -> VideoModelConfig:
    """Return a small model that has WuBu-M alone."""
    nesting = NestingConfig(levels=(LevelConfig(dim=16, spread=0.25),))
    off = StackConfig(on=False, nesting=nesting, output=16)
    return VideoModelConfig(
        given_frames=3,
        predicted_frames=2,
        autoencoder=AutoencoderConfig(stride=STRIDE, width=8, latent_channels=12),
        context=ContextConfig(
            features=12, region_width=16, width=16, spatial=off, motion=replace(off, on=True), temporal=off
        ),
        denoiser=DenoiserConfig(width=32, depth=1, heads=2, patch=1),
        diffusion=DiffusionConfig(residual=residual),
        flow=FlowConfig(on=on, width=16),
    )


def built(settings: VideoModelConfig, clips: KnownClips) -> VideoModel:
    """Return a model that has measured what it has to of clips, with an autoencoder as it was made."""
    torch.manual_seed(0)
    model = VideoModel(settings)
    measure_latents(model.autoencoder, [clips.frames])
    measure_residuals(model, [clips.frames])
    return model


def given_of(clips: KnownClips, places: Tensor) -> Given:
    """Return the frames of clips at places [F]."""
    motion = clips.motion[:, places]
    return Given(clips.frames[:, places], motion, motion, places.expand(len(motion), -1))


def moving_box(size: tuple[int, int] = (32, 48)) -> GivenFlow:
    """Return the flow of one box of 8 x 8 pixels that goes 4 right and 8 up a place, on a grid of cells of 4 pixels."""
    boxes = torch.tensor([[[[16.0, 20, 24, 28], [0, 0, 0, 0]]]])
    flows = torch.tensor([[[[4.0, -8.0], [50.0, 50.0]]]])
    confidence = torch.tensor([[[1.0, 0.0]]])
    dense = spread_boxes(boxes, flows, confidence, (size[0] // 4, size[1] // 4), size)
    return GivenFlow(boxes, flows, confidence, dense, dense, torch.tensor([[0, 1]]), size)


def drawn(left: int, top: int) -> Tensor:
    """Return latents [1, 8, 12], zero but for 2 x 2 cells at a place."""
    picture = torch.zeros(1, 8, 12)
    picture[:, top : top + 2, left : left + 2] = 1
    return picture


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 9)])
@pytest.mark.parametrize("step", [(0, 0), (1, 0), (-2, 0), (0, 1), (3, -2)])
def test_whole_shifts_are_exact(size: tuple[int, int], step: tuple[int, int]) -> None:
    """Each cell holds what lay at its place less the shift; beyond an edge lies what the edge holds."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    across = (torch.arange(size[1]) - step[0]).clamp(0, size[1] - 1)
    down = (torch.arange(size[0]) - step[1]).clamp(0, size[0] - 1)
    shift = torch.tensor(step).float()[None, :, None, None].expand(2, 2, *size)

    torch.testing.assert_close(x[..., down, :][..., across], warp(x, shift), rtol=0, atol=1e-5)


def test_known_flow_turns_each_frame_into_the_next() -> None:
    """Clips and what is said of their motion agree: warped by it a frame is the next one, but for what comes in."""
    clips = known_clips(9, 2, SIDE, seed=0)
    earlier, later = clips.frames.float().permute(0, 1, 4, 2, 3).unbind(1)
    missed = (warp(earlier, clips.flow[:, 0]) - later).abs().mean()

    assert missed < 0.3 * (earlier - later).abs().mean()


def test_end_point_error_is_a_mean_of_lengths() -> None:
    """A flow that is 3 and 4 off in half of the cells misses by 2.5 on the mean."""
    flow = torch.zeros(2, 4, 6)
    flow[:, :2] = torch.tensor([3.0, 4.0])[:, None, None]

    assert end_point_error(flow, torch.zeros_like(flow)).item() == 2.5


def test_pixels_and_cells_are_told_apart_along_each_axis() -> None:
    """On a grid of 2 x 8 cells over 16 x 32 pixels a cell is 4 wide and 8 high."""
    flow = torch.tensor([4.0, 8.0])[:, None, None].expand(2, 2, 8)

    torch.testing.assert_close(torch.ones(2, 2, 8), in_cells(flow, (16, 32)))
    torch.testing.assert_close(flow, in_pixels(in_cells(flow, (16, 32)), (16, 32)))


def test_a_box_gives_its_flow_to_the_cells_it_covers() -> None:
    """As much as it covers of a cell; where two lie over one another, the mean; padding gives nothing."""
    boxes = torch.tensor([[4.0, 0, 10, 4], [8, 0, 16, 4], [0, 0, 0, 0]])
    flows = torch.tensor([[2.0, -6.0], [4.0, 0.0], [9.0, 9.0]])
    flow = spread_boxes(boxes, flows, torch.tensor([1.0, 1.0, 0.0]), (2, 4), (8, 16))

    expected = torch.zeros(2, 2, 4)
    # the third cell: half of the first box, all of the second
    expected[:, 0] = torch.tensor([[0.0, 2.0, (1 + 4) / 1.5, 4.0], [0.0, -6.0, -3 / 1.5, 0.0]])
    torch.testing.assert_close(expected, flow)


def test_an_unsure_box_moves_less() -> None:
    """Half a box's confidence is half of its flow before a still background."""
    flow = spread_boxes(torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[2.0, 4.0]]), torch.tensor([0.5]), (1, 1), (8, 8))

    torch.testing.assert_close(torch.tensor([1.0, 2.0]), flow[:, 0, 0])


def test_local_flow_sees_small_shifts() -> None:
    """A smooth pattern that goes 0.4 cells right and 0.2 up is seen to, to a tenth of a cell; a still one stands."""
    down, across = torch.meshgrid(torch.arange(12.0), torch.arange(20.0), indexing="ij")

    def pattern(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([(0.5 * x + 0.3 * y).sin(), (0.2 * x - 0.6 * y).cos(), (0.4 * x).cos()])[None]

    flow = local_flow(pattern(across, down), pattern(across - 0.4, down + 0.2))

    error = end_point_error(flow[..., 2:-2, 2:-2], torch.tensor([0.4, -0.2])[:, None, None].expand(2, 8, 16))
    assert error.item() < 0.1
    assert not local_flow(pattern(across, down), pattern(across, down)).any()
    assert not local_flow(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).any()


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_thing_goes_on_with_its_box(ahead: int) -> None:
    """Latents are moved on by the flow times the places ahead, whole, out of the box they were seen in."""
    latents = torch.stack([drawn(3, 7), drawn(4, 5)])[None]
    moved = warped_latents(latents, moving_box(), torch.tensor([[1]]), torch.tensor([[1 + ahead]]))

    torch.testing.assert_close(drawn(4 + ahead, 5 - 2 * ahead), moved[0, 0])


def test_each_target_has_its_own_frame_and_distance() -> None:
    """Targets of one clip are moved from the frames that are asked for, each as far as its place lies ahead."""
    latents = torch.stack([drawn(3, 7), drawn(4, 5)])[None]
    frame, places = torch.tensor([[1, 1, 0]]), torch.tensor([[3, 2, 0]])
    moved = warped_latents(latents, moving_box(), frame, places)

    torch.testing.assert_close(torch.stack([drawn(6, 1), drawn(5, 3), drawn(3, 7)])[None], moved)


def test_each_frame_goes_on_with_its_own_flow() -> None:
    """The second frame as it came from the first, the third as it came from the second; the first as it goes to it."""
    one, size = moving_box(), (32, 48)
    boxes, regions = (part.repeat(1, 2, 1, 1) for part in (one.boxes_BEM4, one.regions_BEM2))
    boxes[0, 1, 0] += torch.tensor([4.0, -8, 4, -8])
    regions[0, 1, 0] = torch.tensor([-4.0, 0.0])
    confidence = one.confidence_BEM.repeat(1, 2, 1)
    dense = spread_boxes(boxes, regions, confidence, (8, 12), size)
    flow = GivenFlow(boxes, regions, confidence, dense, dense, torch.tensor([[0, 1, 2]]), size)
    latents = torch.stack([drawn(4, 5), drawn(4, 5), drawn(5, 3)])[None]
    moved = warped_latents(latents, flow, torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, 3]]))

    torch.testing.assert_close(torch.stack([drawn(5, 3), drawn(5, 3), drawn(4, 3)])[None], moved)


def test_the_warped_base_starts_from_the_last_frame_before_a_target() -> None:
    """Not from the last that is given, which may lie behind the targets: there, nothing of it is in the base."""
    clips = known_clips(3, 5, SIDE, seed=1)
    model = built(config(residual="warped"), clips)
    given, targets = interpolate_places(model.config)
    with torch.no_grad():
        seen = model.look(given_of(clips, given))
        behind = replace(seen, latents=torch.cat([seen.latents[:, :2], torch.randn_like(seen.latents[:, 2:])], dim=1))
        places = targets.expand(3, -1)
        same = model.base(seen, places), model.base(behind, places)

    assert frame_before(given[None], targets[None]).tolist() == [[1, 1]]
    torch.testing.assert_close(*same)


@pytest.mark.parametrize("layout", [predict_places, interpolate_places])
def test_what_is_diffused_comes_back_as_latents(layout: object) -> None:
    """Adding the base undoes taking it away, and the base of a moving clip is not the unmoved latents."""
    clips = known_clips(3, 5, SIDE, seed=1)
    model = built(config(residual="warped"), clips)
    given, targets = predict_places(model.config) if layout is predict_places else interpolate_places(model.config)
    with torch.no_grad():
        seen, latents = model.look(given_of(clips, given)), model.encode(clips.frames[:, targets])
        places = targets.expand(3, -1)
        back = model.to_latents(model.to_diffused(latents, seen, places), seen, places)
        base = model.base(seen, places)
        still = seen.latents[torch.arange(3)[:, None], frame_before(seen.places, places)]

    torch.testing.assert_close(latents, back, rtol=0, atol=1e-4)
    assert (base - still).abs().mean() > 0.01


def test_flow_is_per_place() -> None:
    """Frames that lie twice as far apart have half the flow, and so the same base a whole such step ahead."""
    clips = known_clips(3, 3, SIDE, seed=2)
    model = built(config(), clips)
    near = given_of(clips, torch.arange(3))
    with torch.no_grad():
        latents = model.encode(near.frames)
        flows = []
        for places in (near.places, 2 * near.places):
            context = model.context(latents, near.regions, near.motion, near.places, (SIDE, SIDE))
            boxes = near.motion[:, 1:]
            flows.append(
                model.flow(latents, context.features, context.motion, context.motion_valid, boxes, places, (SIDE, SIDE))
            )

    for part in ("regions_BEM2", "coarse_BE2HW", "dense_BE2HW"):
        torch.testing.assert_close(getattr(flows[0], part), 2 * getattr(flows[1], part))


def test_the_flow_of_a_pair_is_that_of_its_frames() -> None:
    """Other frames behind a pair, and boxes of the frame it begins with, do not change its flow."""
    clips = known_clips(3, 3, SIDE, seed=3)
    model = built(config(), clips)
    given = given_of(clips, torch.arange(3))
    frames, motion = given.frames.clone(), given.motion.clone()
    frames[:, 2] = 255 - frames[:, 2]
    motion[:, 0] = torch.tensor([0.0, 0, 9, 9])
    with torch.no_grad():
        one, other = model.look(given).flow, model.look(replace(given, frames=frames, motion=motion)).flow
    assert one is not None
    assert other is not None

    torch.testing.assert_close(one.dense_BE2HW[:, 0], other.dense_BE2HW[:, 0])
    assert not torch.allclose(one.dense_BE2HW[:, 1], other.dense_BE2HW[:, 1])


def test_no_flow_from_padding() -> None:
    """Boxes of zeros have no confidence and move no cell, whatever their tokens say."""
    clips = known_clips(3, 3, SIDE, seed=3)
    model = built(config(), clips)
    given = given_of(clips, torch.arange(3))
    with torch.no_grad():
        flow = model.look(replace(given, motion=torch.zeros_like(given.motion))).flow
    assert flow is not None

    assert not flow.confidence_BEM.any()
    assert not flow.coarse_BE2HW.any()


def errors_of(model: VideoModel, clips: KnownClips) -> tuple[Tensor, Tensor]:
    """Return the end-point error in pixels and the squared error of latents moved on to the places of the targets."""
    given, targets = predict_places(model.config)
    places = targets.expand(len(clips.frames), -1)
    with torch.no_grad():
        seen = model.look(given_of(clips, given))
        missed = model.encode(clips.frames[:, targets]) - model.base(seen, places)
    assert seen.flow is not None
    fine = upsample_flow(seen.flow.dense_BE2HW.flatten(0, 1), (SIDE, SIDE)).unflatten(0, (len(places), -1))
    return end_point_error(fine, clips.flow[:, : fine.shape[1]]).mean(), missed.square().mean()


def test_the_head_is_trained_to_beat_no_flow() -> None:
    """On clips it has not seen it misses the known flow by far less than no flow does, and by less than at first.

    And latents that it moves on to places still to come miss what comes by far less than those that stay.
    """
    train, held = (known_clips(count, 5, SIDE, seed=seed) for count, seed in ((60, 4), (24, 5)))
    model = built(config(residual="warped"), train)
    assert model.flow is not None
    assert model.context is not None
    given, targets = predict_places(model.config)
    seen, truth = given_of(train, given), train.on_grid(STRIDE)[:, :2]
    latents = model.encode(seen.frames)
    untrained, _ = errors_of(model, held)
    optimizer = torch.optim.AdamW([*model.flow.parameters(), *model.context.parameters()], lr=3e-3)
    for step in range(60):
        rows = (torch.arange(12) + 12 * step) % len(latents)
        part = Given(*(tensor[rows] for tensor in (seen.frames, seen.regions, seen.motion, seen.places)))
        flow = model.see(latents[rows], part).flow
        assert flow is not None
        optimizer.zero_grad()
        supervised_loss(flow, truth[rows]).mean().backward()
        optimizer.step()
    trained, moved = errors_of(model, held)
    none = end_point_error(held.flow[:, :2], torch.zeros(2, SIDE, SIDE)).mean()
    still = (model.encode(held.frames[:, targets]) - model.encode(held.frames[:, given[-1:]])).square().mean()

    assert trained < 0.7 * none
    assert trained < 0.9 * untrained
    assert moved < 0.75 * still


def test_the_loss_needs_no_truth() -> None:
    """The right flow of a pan has less of it than none, than the opposite one, and than across for down."""
    clips = known_clips(1, 3, SIDE, seed=6)
    latents = clips.frames.float().permute(0, 1, 4, 2, 3) / 64
    none = torch.zeros(1, 2, 4, 2)

    def loss(flow: Tensor) -> float:
        given = GivenFlow(torch.zeros(1, 2, 4, 4), none, none[..., 0], flow, flow, torch.arange(3)[None], (SIDE, SIDE))
        return warp_loss(latents, given, smoothness=0.05).item()

    right = loss(clips.flow)

    assert right < 0.5 * loss(torch.zeros_like(clips.flow))
    assert right < 0.5 * loss(-clips.flow)
    assert right < 0.5 * loss(clips.flow.flip(2))


@pytest.mark.parametrize("residual", ["none", "last", "warped"])
def test_the_head_has_a_gradient_in_training_and_is_not_there_when_off(residual: Residual) -> None:
    """Every parameter of it; the latents' coordinates, which it makes, are none of what trains it."""
    clips = known_clips(3, 5, SIDE, seed=7)
    model = built(config(residual=residual), clips)
    filled = torch.tensor([True, True, False])
    losses, _ = DiffusionLoss(model)(clips.frames, clips.motion, clips.motion, clip_keys(0, torch.arange(3)), filled)
    losses.sum().backward()

    assert losses[2].item() == 0
    assert model.flow is not None
    assert [
        name for name, weight in model.flow.named_parameters() if weight.grad is None or not weight.grad.any()
    ] == []
    assert VideoModel(config(on=False)).flow is None


def test_the_flow_loss_is_added_by_its_weight() -> None:
    """The loss of a clip is a straight line in flow.weight."""
    clips = known_clips(2, 5, SIDE, seed=8)
    losses = []
    for weight in (1.0, 2.0, 3.0):
        model = built(replace(config(), flow=FlowConfig(on=True, width=16, weight=weight)), clips)
        keys, filled = clip_keys(0, torch.arange(2)), torch.ones(2, dtype=torch.bool)
        losses.append(DiffusionLoss(model)(clips.frames, clips.motion, clips.motion, keys, filled)[0].detach())

    assert (losses[1] - losses[0] > 0.01).all()
    torch.testing.assert_close(losses[1] - losses[0], losses[2] - losses[1])


def test_flow_stays_whole_under_autocast() -> None:
    """In bfloat16 the flow is float32, and near what it is without."""
    clips = known_clips(3, 3, SIDE, seed=9)
    model = built(config(), clips)
    given = given_of(clips, torch.arange(3))
    with torch.no_grad():
        plain = model.look(given).flow
        with torch.autocast("cpu", dtype=torch.bfloat16):
            halved = model.look(given).flow
    assert plain is not None
    assert halved is not None

    assert halved.dense_BE2HW.dtype == torch.float32
    torch.testing.assert_close(plain.dense_BE2HW, halved.dense_BE2HW, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (lambda: replace(config(on=False), diffusion=DiffusionConfig(residual="warped")), "set video.flow.on"),
        (lambda: replace(config(), context=ContextConfig(on=False)), "video.context.motion"),
        (lambda: FlowConfig(on=True, weight=0), "flow.on = false"),
        (lambda: FlowConfig(width=0), "flow.width"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: object, said: str) -> None:
    """A flow without motion tokens, a warped residual without a flow, a head that nothing would train."""
    assert callable(settings)
    with pytest.raises(ConfigError, match=said):
        settings()
