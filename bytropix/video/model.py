"""The video model: what the given frames say, and what the denoiser makes of it.

    given frames u8 --frozen autoencoder--> latents -> context: regions, motion, time -> flow     look(), once a clip
    noisy x of the targets, t, seen latents and context -> denoiser -> eps | x0 | v               predict(), once a step

What is diffused is the targets' normalized latents, or what they differ by from a base made of the given frames, over
its measured size. A clip whose condition is dropped shows the denoiser learned null latents and a learned null token;
its base stays, since it only says in which coordinates x is.

Shapes: B clips, F given frames, P target frames, H x W pixels, C latent channels, h x w latent grid, R regions,
M motion regions, K context tokens, D their width.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bytropix.errors import RunError
from bytropix.video.autoencoder import FrameAutoencoder, to_pixels, to_signed
from bytropix.video.config import VideoModelConfig
from bytropix.video.context import ContextEncoder, ContextTokens
from bytropix.video.denoiser import Denoiser
from bytropix.video.flow import FlowHead, GivenFlow, warped_latents
from bytropix.video.schedule import Schedule

SAME = 0.15  # what two decoded pixels, in -1..1, may differ by and still count as more or less the same


@dataclass(frozen=True, slots=True)
class Given:
    """Frames that a prediction is given."""

    frames: Tensor
    """u8 [B, F, H, W, 3]."""
    regions: Tensor
    """f32 [B, F, R, 4], in pixels."""
    motion: Tensor
    """f32 [B, F, M, 4], in pixels."""
    places: Tensor
    """i64 [B, F], rising."""
    dropped: Tensor | None = None
    """bool [B], the clips that are to be made as if nothing were given; None: none of them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What has been made of given frames, for any number of predictions."""

    latents: Tensor
    """[B, F, C, h, w], normalized."""
    places: Tensor
    """i64 [B, F]."""
    dropped: Tensor
    """bool [B]; the rest is whole for these clips too."""
    context: ContextTokens | None
    """Tokens [B, K, D] and which of them can be seen, bool [B, K]."""
    flow: GivenFlow | None = None
    """How what is given moves, where the model asks."""

    def with_dropped(self) -> "Seen":
        """Return twice as many clips, these and the same ones dropped: both sides of guidance in one evaluation.

        It is for `predict`, and has no flow.
        """
        latents, places = (torch.cat([part, part]) for part in (self.latents, self.places))
        context = self.context
        if context is not None:
            context = ContextTokens(*(torch.cat([part, part]) for part in (context.tokens, context.visible)))
        return Seen(latents, places, torch.cat([self.dropped, torch.ones_like(self.dropped)]), context)


class VideoModel(nn.Module):
    """Autoencoder, context and denoiser.

    Args:
        config: The model. With `context.on` false it is the plain diffusion transformer.
        joint: Whether the autoencoder is trained too; else it has no gradient and stays in evaluation mode.
    """

    residual_scale_C: Tensor

    def __init__(self, config: VideoModelConfig, *, joint: bool = False) -> None:
        super().__init__()
        self.config, self.joint = config, joint
        channels = config.autoencoder.latent_channels
        self.autoencoder = FrameAutoencoder(config.autoencoder).requires_grad_(joint)
        self.context: ContextEncoder | None = None
        self.null_token_D: nn.Parameter | None = None
        if config.context.on:
            self.context = ContextEncoder(config)
            self.null_token_D = nn.Parameter(0.1 * torch.randn(config.context.width))
        self.flow: FlowHead | None = None
        if config.flow.on:
            tokens, features = config.context.motion.output, config.context.features
            self.flow = FlowHead(config.flow, tokens=tokens, features=features)
        self.null_latents_FC = nn.Parameter(0.1 * torch.randn(config.given_frames, channels))
        self.denoiser = Denoiser(
            config.denoiser,
            channels=channels,
            given_frames=config.given_frames,
            timesteps=config.diffusion.timesteps,
            time_embedding=config.diffusion.time_embedding,
            context_width=config.context.width if config.context.on else None,
        )
        self.schedule = Schedule(config.diffusion)
        self.register_buffer("residual_scale_C", torch.ones(channels))
        self.train(self.training)

    def train(self, mode: bool = True) -> "VideoModel":  # noqa: FBT001, FBT002 - as in torch
        """Set the mode of all but a frozen autoencoder, which stays in evaluation mode."""
        super().train(mode)
        if not self.joint:
            self.autoencoder.eval()
        return self

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Return the normalized latents f32 [B, T, C, h, w] of u8 frames [B, T, H, W, 3], without a gradient."""
        return self.autoencoder.encode_frames(frames).float()

    def look(self, given: Given) -> Seen:
        """Return what the given frames say."""
        return self.see(self.encode(given.frames), given)

    def see(self, latents: Tensor, given: Given) -> Seen:
        """Return what the given frames say, whose latents are known: [B, F, C, h, w]."""
        dropped = given.dropped
        if dropped is None:
            dropped = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
        context, motion = None, known_motion(given.motion, given.places)
        if self.context is not None:
            size = (given.frames.shape[2], given.frames.shape[3])
            context = self.context(latents, given.regions, motion, given.places, size)
        return Seen(latents, given.places, dropped, context, self._flow(latents, context, motion, given.places))

    def predict(self, x: Tensor, t: Tensor, seen: Seen, places: Tensor) -> Tensor:
        """Return the denoiser's output [B, P, C, h, w].

        Args:
            x: [B, P, C, h, w], what is diffused, noised to timestep t.
            t: i64 [B].
            seen: What `look` returned.
            places: i64 [B, P], places of the target frames.
        """
        null = self.null_latents_FC[:, :, None, None].to(seen.latents.dtype)
        given = torch.where(seen.dropped[:, None, None, None, None], null, seen.latents)
        out: Tensor = self.denoiser(x, t, places, given, seen.places, self._shown(seen))
        return out

    def base(self, seen: Seen, places: Tensor) -> Tensor:
        """Return what diffused values are added to, [B, P, C, h, w].

        Nothing; the latents of the last given frame before each target; or these, moved on as the flow says.
        """
        if self.config.diffusion.residual == "none":
            return seen.latents.new_zeros(()).expand(*places.shape, *seen.latents.shape[2:])
        frame = frame_before(seen.places, places)
        if self.config.diffusion.residual == "warped":
            if seen.flow is None:
                raise ValueError("a warped base needs what look() returned, not what with_dropped() did")
            return warped_latents(seen.latents, seen.flow, frame, places)
        return frames_at(seen.latents, frame)

    def to_diffused(self, latents: Tensor, seen: Seen, places: Tensor) -> Tensor:
        """Return what is diffused, [B, P, C, h, w], of the targets' normalized latents."""
        return (latents - self.base(seen, places)) / self.residual_scale_C[:, None, None]

    def to_latents(self, x0: Tensor, seen: Seen, places: Tensor) -> Tensor:
        """Return the targets' normalized latents [B, P, C, h, w] of what is diffused."""
        return x0 * self.residual_scale_C[:, None, None] + self.base(seen, places)

    @torch.no_grad()
    def frames_of(self, x0: Tensor, seen: Seen, places: Tensor, frames: Tensor) -> Tensor:
        """Return the frames u8 [B, P, H, W, 3] of what is diffused.

        With a residual, what the autoencoder missed of the last given frame is put back wherever the target is said to
        look as that frame does, so that what stands still is as sharp as it was given.

        Args:
            x0: [B, P, C, h, w].
            seen: What `look` returned.
            places: i64 [B, P], places of the targets.
            frames: u8 [B, F, H, W, 3], the given frames.
        """
        size = (frames.shape[2], frames.shape[3])
        made = self._decoded(self.to_latents(x0, seen, places), size)
        if self.config.diffusion.residual != "none":
            frame = frame_before(seen.places, places)
            again = frames_at(self._decoded(seen.latents, size), frame)
            given = to_signed(frames.flatten(0, 1)).reshape(*frames.shape[:2], 3, *size)
            share = (-((made - again) / SAME).square().mean(2, keepdim=True)).exp()
            made = made + share * (frames_at(given, frame) - again)
        return to_pixels(made.flatten(0, 1)).reshape(*made.shape[:2], *size, 3)

    def scalars(self) -> dict[str, Tensor]:
        """Return the present curvature, scale and spread of every level of S, M and T by metric tag."""
        return {} if self.context is None else self.context.scalars()

    def _decoded(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Return frames f32 [B, T, 3, H, W], about -1..1, of normalized latents [B, T, C, h, w]."""
        x = self.autoencoder.decode(self.autoencoder.restore(latents).flatten(0, 1), size).float()
        return x.reshape(*latents.shape[:2], *x.shape[1:])

    def _flow(self, latents: Tensor, context: ContextTokens | None, boxes: Tensor, places: Tensor) -> GivenFlow | None:
        """Return the flow of the given frames, if the model has a head for it, which needs the motion tokens."""
        if self.flow is None or context is None or context.features is None:
            return None
        if context.motion is None or context.motion_valid is None:
            return None
        stride = self.config.autoencoder.stride
        covered = (latents.shape[-2] * stride, latents.shape[-1] * stride)
        motion, valid = context.motion, context.motion_valid
        flow: GivenFlow = self.flow(latents, context.features, motion, valid, boxes[:, 1:], places, covered)
        return flow

    def _shown(self, seen: Seen) -> ContextTokens | None:
        """Return the context tokens with the null token behind them, for clips that are dropped or show no region."""
        context, null = seen.context, self.null_token_D
        if context is None or null is None:
            return None
        tokens = torch.cat([context.tokens, null.to(context.tokens.dtype).expand(len(seen.dropped), 1, -1)], dim=1)
        visible = context.visible & ~seen.dropped[:, None]
        return ContextTokens(tokens, torch.cat([visible, ~visible.any(1, keepdim=True)], dim=1))


def known_motion(motion: Tensor, places: Tensor) -> Tensor:
    """Return motion regions [B, F, M, 4], of which those that lie between a given frame and a hidden one are padding.

    Such a region knows what a target frame looks like; so does that of the first frame what came before the window.

    Args:
        motion: f32 [B, F, M, 4], of what differs from the frame one place before.
        places: i64 [B, F].
    """
    follows = places.diff(dim=1, prepend=places[:, :1]) == 1
    return torch.where(follows[:, :, None, None], motion, 0.0)


def frame_before(given: Tensor, places: Tensor) -> Tensor:
    """Return which given frame is the last before each target, i64 [B, P], 0 to F - 1; the first where none is.

    Args:
        given: Places of the given frames, i64 [B, F], rising.
        places: Places of the targets, i64 [B, P].
    """
    return ((given[:, None] < places[:, :, None]).sum(-1) - 1).clamp(min=0)


def frames_at(latents: Tensor, frame: Tensor) -> Tensor:
    """Return what belongs to given frames by their numbers, i64 [B, P]: [B, P, ...] out of [B, F, ...]."""
    return latents[torch.arange(len(frame), device=frame.device)[:, None], frame]


def predict_places(config: VideoModelConfig) -> tuple[Tensor, Tensor]:
    """Return the places of F given frames, i64 [F], and of the P targets behind them, i64 [P]."""
    places = torch.arange(config.frames)
    return places[: config.given_frames], places[config.given_frames :]


def interpolate_places(config: VideoModelConfig) -> tuple[Tensor, Tensor]:
    """Return the places of F given frames, half of them at the end, and of the P targets between them."""
    places, first = torch.arange(config.frames), -(-config.given_frames // 2)
    between = slice(first, first + config.predicted_frames)
    return torch.cat([places[:first], places[between.stop :]]), places[between]


@torch.no_grad()
def measure_residuals(model: VideoModel, clips: Iterable[Tensor]) -> None:
    """Set the size of what is diffused, channel by channel, from clips; without a residual it is 1.

    Where the base is moved by a flow, that is not yet learnt: the size is that of the unmoved base.

    Args:
        model: With latents already measured.
        clips: u8 [B, T, H, W, 3], T frames of a window.

    Raises:
        RunError: There are no clips, or nothing moves in any of them.
    """
    if model.config.diffusion.residual == "none":
        return
    given, targets = (part.to(model.residual_scale_C.device) for part in predict_places(model.config))
    squares, count = torch.zeros_like(model.residual_scale_C, dtype=torch.float64), 0
    for frames in clips:
        latents = model.encode(frames)
        rows = len(frames)
        frame = frame_before(given.expand(rows, -1), targets.expand(rows, -1))
        residual = latents[:, targets] - frames_at(latents[:, given], frame)
        squares += residual.double().square().mean((0, 1, 3, 4)) * rows
        count += rows
    if count == 0 or not bool((squares > 0).all()):
        raise RunError("diffusion.residual needs clips in which something moves, to measure what is diffused")
    model.residual_scale_C.copy_((squares / count).sqrt())
