"""WuBu-S, WuBu-M and WuBu-T: every frame counts, time has its order, padding none, and every number learns."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bytropix.errors import ConfigError
from bytropix.gaad import RegionConfig, decompose
from bytropix.geometry import QuaternionRotation, SpecialOrthogonal
from bytropix.nesting import LevelConfig, NestingConfig
from bytropix.video.config import AutoencoderConfig, ContextConfig, StackConfig, VideoModelConfig
from bytropix.video.context import ContextEncoder, ContextTokens

WAYS = [way for way in itertools.product((True, False), repeat=3) if way[0] or way[1]]  # S, M, T; T alone mixes nothing


def nested(space: Any = "hyperbolic", **level: Any) -> NestingConfig:
    """Return two small levels."""
    settings = {"boundary_points": 3, "combiner_hidden": (16,), "spread": 1.0, **level}
    last = {key: value for key, value in settings.items() if key != "rotation"}
    return NestingConfig(levels=(LevelConfig(dim=12, **settings), LevelConfig(dim=8, **last)), space=space)


def config_of(
    spatial: bool = True, motion: bool = True, temporal: bool = True, nesting: NestingConfig | None = None, **more: Any
) -> VideoModelConfig:
    """Return a small model."""
    stack = StackConfig(nesting=nesting or nested(), output=16)
    context = ContextConfig(
        **{"features": 8, "region_bins": 2, "motion_bins": 2, "region_width": 16, "width": 16, **more},
        spatial=replace(stack, on=spatial),
        motion=replace(stack, on=motion),
        temporal=replace(stack, on=temporal),
    )
    return VideoModelConfig(autoencoder=AutoencoderConfig(latent_channels=4), context=context)


def encoder(config: VideoModelConfig | None = None, seed: int = 0) -> ContextEncoder:
    """Return the encoder of a seed."""
    torch.manual_seed(seed)
    return ContextEncoder(config or config_of())


class Frames:
    """Given frames: latents, regions, motion regions and places, of 64 x 64 pixels if nothing else is said."""

    def __init__(
        self, clips: int = 2, frames: int = 4, size: tuple[int, int] = (64, 64), regions: int = 8, seed: int = 0
    ) -> None:
        self.size = size
        chance = torch.Generator().manual_seed(seed)
        grid = (-(-size[0] // 8), -(-size[1] // 8))
        self.latents = torch.randn(clips, frames, 4, *grid, generator=chance)
        self.latents += torch.randn(clips, frames, 4, 1, 1, generator=chance)  # pictures that differ as a whole
        boxes = decompose(size[1], size[0], RegionConfig(regions=regions)).boxes.copy()
        self.regions = torch.from_numpy(boxes).expand(clips, frames, -1, -1).clone()
        corners = torch.rand(clips, frames, 3, 4, generator=chance) / 2 + torch.tensor([0, 0, 0.5, 0.5])
        self.motion = corners * torch.tensor([size[1], size[0], size[1], size[0]])
        self.places = torch.arange(frames).expand(clips, -1)

    def through(self, encode: ContextEncoder) -> ContextTokens:
        """Return what an encoder makes of them."""
        out: ContextTokens = encode(self.latents, self.regions, self.motion, self.places, self.size)
        return out


def ctx(encode: ContextEncoder, given: Frames) -> Tensor:
    """Return the tokens of WuBu-T, which come last, [B, F, D]."""
    return given.through(encode).tokens[:, -given.latents.shape[1] :]


def change(given: Frames, frame: int) -> Frames:
    """Return frames of which one is another picture, with other boxes that move."""
    other = Frames(*given.latents.shape[:2], given.size, given.regions.shape[2])
    other.latents[:, frame] = Frames(*given.latents.shape[:2], given.size, seed=99).latents[:, frame]
    other.motion[:, frame] = other.motion[:, frame] * 0.9
    return other


def apart(one: Tensor, other: Tensor) -> float:
    """Return how far apart two tensors are, relative to the first."""
    return ((one - other).norm() / one.norm()).item()


@pytest.mark.parametrize(("spatial", "motion", "temporal"), WAYS)
def test_every_parameter_has_a_gradient(spatial: bool, motion: bool, temporal: bool) -> None:
    """Whichever stacks are on: what is left learns, to the last tensor, and there is a token for each thing seen."""
    encode = encoder(config_of(spatial, motion, temporal))
    out = Frames().through(encode)
    (out.tokens[out.visible] * torch.randn_like(out.tokens[out.visible])).sum().backward()
    sizes = {name: 0.0 if p.grad is None else p.grad.norm().item() for name, p in encode.named_parameters()}

    assert {name for name, size in sizes.items() if not 1e-9 < size < 1e9} == set()
    assert out.tokens.shape == (2, 32 * spatial + 9 * motion + 4 * temporal, 16)
    assert set(encode.stacks()) == {name for name, on in zip("SMT", (spatial, motion, temporal), strict=True) if on}


@pytest.mark.parametrize("source", ["maps", "difference", "both"])
@pytest.mark.parametrize("pooling", ["attention", "mean", "max"])
def test_every_parameter_has_a_gradient_with_every_pool_and_source(source: Any, pooling: Any) -> None:
    """The same for how frames are pooled and what motion regions are sampled from."""
    config = config_of(motion_source=source)
    context = replace(
        config.context,
        spatial=replace(config.context.spatial, pooling=pooling),
        motion=replace(config.context.motion, pooling=pooling),
    )
    encode = encoder(replace(config, context=context))
    out = ctx(encode, Frames())
    (out * torch.randn_like(out)).sum().backward()
    idle = {name for name, p in encode.named_parameters() if p.grad is None or not p.grad.any()}

    # Only the ways to tokens that were not asked for here have none.
    assert {name.split(".")[1] for name in idle} <= {"S", "M"}


@pytest.mark.parametrize("rotation", ["so_n", "quat"])
def test_geometry_moves_in_ten_steps(rotation: str) -> None:
    """c, s, sigma, boundary points and rotation angles of S, M and T all move, and rotations stay orthogonal."""
    encode = encoder(config_of(nesting=nested(rotation=rotation)))
    before = {name: parameter.detach().clone() for name, parameter in encode.named_parameters()}
    optimizer = torch.optim.Adam(encode.parameters(), lr=1e-2)
    wanted = torch.randn(2, 45, 16)
    for _ in range(10):
        optimizer.zero_grad()
        (Frames().through(encode).tokens - wanted).square().mean().backward()
        optimizer.step()
    moved = {name: (parameter - before[name]).abs().max().item() for name, parameter in encode.named_parameters()}
    kinds = ("curvature.free", "scale.free", "spread.free", "boundary_KD", "rotation.angles", "rotation.left")
    geometry = {name: size for name, size in moved.items() if name.endswith(kinds)}

    assert len(geometry) == 3 * (4 * 2 + 1)  # c, s, sigma, points of two levels, one rotation, in three stacks
    assert {name for name, size in geometry.items() if size < 1e-3} == set()
    turns = [part for part in encode.modules() if isinstance(part, SpecialOrthogonal | QuaternionRotation)]
    assert len(turns) == 3
    for turn in turns:
        matrix = turn(torch.eye(12))
        assert (matrix @ matrix.T - torch.eye(12)).abs().max() < 1e-5


@pytest.mark.parametrize("stack", ["S", "M", "T"])
def test_rotations_turn_what_is_seen(stack: str) -> None:
    """Without descriptors, whose landmarks turn too, a rotation acts through the tokens alone, and it does."""
    encode = encoder(config_of(nesting=nested(descriptor=False)))
    before = Frames().through(encode).tokens
    turn = encode.stacks()[stack].transitions[0].get_submodule("rotation")
    assert isinstance(turn, SpecialOrthogonal)
    turn.angles.data = torch.randn(turn.angles.shape)

    assert apart(before, Frames().through(encode).tokens) > 1e-3


@pytest.mark.parametrize("frame", range(4))
def test_every_frame_counts(frame: int) -> None:
    """A change of any given frame changes what is seen of it, and the last ctx."""
    encode = encoder()
    given = Frames()
    before, after = given.through(encode), change(given, frame).through(encode)
    regions = slice(8 * frame, 8 * frame + 8)

    assert apart(before.tokens[:, regions], after.tokens[:, regions]) > 0.1
    assert apart(before.tokens[:, -1], after.tokens[:, -1]) > 1e-4


@pytest.mark.parametrize("mixing", ["causal", "full"])
def test_time_has_an_order(mixing: Any) -> None:
    """The same frames in another order, at the same places, are another context: not the same vectors reordered."""
    encode = encoder(config_of(motion=False, time_mixing=mixing))
    given, shuffled = Frames(), Frames()
    order = [2, 0, 3, 1]
    shuffled.latents = given.latents[:, order]
    before, after = ctx(encode, given)[:, order], ctx(encode, shuffled)

    assert ((before - after).norm(dim=-1) > 0.02 * before.norm(dim=-1)).all()


def test_places_count() -> None:
    """The same frames at other places are another context, in every token."""
    encode = encoder()
    given, later = Frames(), Frames()
    later.places = given.places + 3
    before, after = given.through(encode).tokens, later.through(encode).tokens

    assert ((before - after).norm(dim=-1) > 0.02 * before.norm(dim=-1)).all()


@pytest.mark.parametrize("frame", range(1, 4))
@pytest.mark.parametrize("mixing", ["causal", "full"])
def test_the_future_is_seen_only_with_full_mixing(mixing: Any, frame: int) -> None:
    """Causal: ctx of the frames before a change is the same to the last bit. Full: each of them changes."""
    encode = encoder(config_of(time_mixing=mixing))
    given = Frames()
    before, after = ctx(encode, given)[:, :frame], ctx(encode, change(given, frame))[:, :frame]

    if mixing == "causal":
        assert torch.equal(before, after)
    else:
        assert ((before - after).norm(dim=-1) > 1e-4 * before.norm(dim=-1)).all()


def test_regions_of_a_frame_see_each_other_and_no_other_frame() -> None:
    """In S a change of one region reaches all of its frame; regions of other frames, and of other clips, stay."""
    encode = encoder(config_of(motion=False, temporal=False))
    given, changed = Frames(), Frames()
    changed.regions[0, 1, 0] = torch.tensor([8.0, 8, 24, 24])
    moved = (given.through(encode).tokens - changed.through(encode).tokens).norm(dim=-1) > 1e-6
    wanted = torch.zeros(2, 32, dtype=torch.bool)
    wanted[0, 8:16] = True

    assert torch.equal(moved, wanted)


@pytest.mark.parametrize("stack", ["regions", "motion"])
def test_padding_changes_nothing(stack: str) -> None:
    """More slots of padding, wherever among the boxes: the tokens of the others, and ctx, are what they were."""
    encode = encoder(replace(config_of(), regions=RegionConfig(decomposition="subdivide")))  # one kind of slot
    given, padded = Frames(), Frames()
    boxes = getattr(given, stack)
    blank = torch.zeros(*boxes.shape[:2], 2, 4)
    setattr(padded, stack, torch.cat([blank, boxes, blank], dim=2))
    before, after = given.through(encode), padded.through(encode)

    assert before.visible.all()
    assert after.tokens.isfinite().all()
    assert after.visible.sum() == before.visible.sum()
    for clip in range(2):
        torch.testing.assert_close(after.tokens[clip][after.visible[clip]], before.tokens[clip])


@pytest.mark.parametrize("mixing", ["causal", "full"])
@pytest.mark.parametrize(("spatial", "motion", "temporal"), WAYS)
def test_a_frame_of_padding_is_as_good_as_none(spatial: bool, motion: bool, temporal: bool, mixing: Any) -> None:
    """A frame without any box is not visible, and the others see what they would without it."""
    encode = encoder(config_of(spatial, motion, temporal, time_mixing=mixing))
    given, without = Frames(), Frames()
    given.regions[:, 1] = given.motion[:, 1:3] = 0
    for name in ("latents", "regions", "motion", "places"):
        setattr(without, name, getattr(given, name)[:, [0, 2, 3]])
    before, after = given.through(encode), without.through(encode)

    assert before.tokens.isfinite().all()
    if temporal:
        assert before.visible[0, -4:].tolist() == [spatial, False, spatial, True]
    torch.testing.assert_close(before.tokens[before.visible], after.tokens[after.visible])


@pytest.mark.parametrize(("spatial", "motion", "temporal"), WAYS)
def test_a_clip_of_padding_is_finite(spatial: bool, motion: bool, temporal: bool) -> None:
    """Without any box in a clip nothing of it is visible; all tokens and gradients are finite."""
    encode = encoder(config_of(spatial, motion, temporal))
    given = Frames()
    given.regions[1] = given.motion[1] = 0
    out = given.through(encode)
    out.tokens.square().sum().backward()

    assert out.tokens.isfinite().all()
    assert out.visible[0].any()
    assert not out.visible[1].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encode.parameters())


@pytest.mark.parametrize("regions", [1, 2, 5, 13])
def test_any_count_of_regions(regions: int) -> None:
    """The same weights take maps of any count."""
    out = Frames(regions=regions).through(encoder())

    assert out.tokens.shape[1] == 4 * regions + 9 + 4
    assert out.visible.all()
    assert out.tokens.isfinite().all()


@pytest.mark.parametrize("size", [(180, 320), (320, 180), (90, 210), (17, 31)])
def test_any_shape_of_frame(size: tuple[int, int]) -> None:
    """16:9, 9:16, 21:9 and 17 x 31 pixels: tokens of what regions there are, all of them different."""
    given = Frames(clips=1, size=size)
    out = given.through(encoder())
    regions = out.tokens[0, :8][out.visible[0, :8]]

    assert out.tokens.isfinite().all()
    assert out.visible.sum() == (given.regions[..., 2] > 0).sum() + 9 + 4
    assert torch.cdist(regions, regions).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize("frames", [1, 2])
def test_few_frames(frames: int) -> None:
    """One frame has no motion, which is no error where the model is asked all the same."""
    out = Frames(frames=frames).through(encoder())

    assert out.tokens.shape[1] == 8 * frames + 3 * (frames - 1) + frames
    assert out.visible.all()
    assert out.tokens.isfinite().all()


def test_one_given_frame_with_motion_is_refused() -> None:
    """A model of one given frame has nothing for WuBu-M to learn from; the message says what to set."""
    with pytest.raises(ConfigError, match=r"set context\.motion\.on = false"):
        replace(config_of(), given_frames=1)
    replace(config_of(motion=False), given_frames=1)


def test_clips_do_not_see_each_other() -> None:
    """A clip in a batch gives what it gives alone."""
    given, alone = Frames(clips=3), Frames(clips=3)
    for name in ("latents", "regions", "motion", "places"):
        setattr(alone, name, getattr(given, name)[1:2])
    encode = encoder()

    torch.testing.assert_close(given.through(encode).tokens[1:2], alone.through(encode).tokens)


def trained_toy() -> tuple[ContextEncoder, nn.Linear]:
    """Return an encoder and a reader of its last ctx that have learned to tell the frames' mean brightness by place."""
    encode = encoder()
    read = nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*encode.parameters(), *read.parameters()], lr=1e-2)
    for step in range(30):
        given = Frames(clips=4, seed=step)
        shift = torch.randn(4, 1, 4, 1, 1, generator=torch.Generator().manual_seed(step))
        given.latents = given.latents + shift
        optimizer.zero_grad()
        (read(ctx(encode, given)[:, -1]) - shift[:, 0, :2, 0, 0]).square().mean().backward()
        optimizer.step()
    return encode, read


def test_curvature_matters_to_a_trained_model() -> None:
    """Four times the curvature in every level of S, M and T changes what a trained model says by more than 5 %."""
    encode, read = trained_toy()
    given = Frames(clips=8, seed=1000)
    with torch.no_grad():
        before = read(ctx(encode, given)[:, -1])
        for name, parameter in encode.named_parameters():
            if name.endswith("curvature.free"):
                parameter.copy_((4 * nn.functional.softplus(parameter)).expm1().log())
        after = read(ctx(encode, given)[:, -1])

    assert apart(before, after) > 0.05


def test_flat_space_is_the_limit_of_small_curvature() -> None:
    """The smaller the curvature, the nearer the context is to that of flat space with the same weights."""
    level: dict[str, Any] = {"scale": 0.05, "learn_curvature": False, "curvature_min": 1e-9, "descriptor_init": 0.5}
    flat = encoder(config_of(nesting=nested("euclidean", **level)))
    gaps = []
    for curvature in (1.0, 1e-2, 1e-5):
        curved = encoder(config_of(nesting=nested(**level, curvature=curvature)))
        kept = {name: value for name, value in flat.state_dict().items() if not name.endswith("curvature.free")}
        curved.load_state_dict(kept, strict=False)
        gaps.append(apart(Frames().through(flat).tokens, Frames().through(curved).tokens))

    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3


def test_scalars_name_the_stack_and_the_level() -> None:
    """Curvature, scale and spread of each level of each stack that is on."""
    tags = set(encoder().scalars())

    assert tags == {
        f"levels/{stack}/{level}/{name}"
        for stack in "SMT"
        for level in (0, 1)
        for name in ("curvature", "scale", "spread")
    }
    assert all(tag.startswith("levels/S/") for tag in encoder(config_of(motion=False, temporal=False)).scalars())


def test_half_precision_keeps_the_geometry_whole() -> None:
    """Under bf16 autocast the tokens stay close to those in float32, and finite."""
    encode = encoder()
    whole = Frames().through(encode).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = Frames().through(encode).tokens

    assert half.isfinite().all()
    assert math.isfinite(apart(whole, half.float()))
    assert apart(whole, half.float()) < 0.05
