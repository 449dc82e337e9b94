"""The video model as data: autoencoder, context stacks, denoiser, diffusion; every knob checked where it is set."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from bytropix.errors import ConfigError
from bytropix.gaad.config import RegionConfig
from bytropix.nesting.config import LevelConfig, NestingConfig

Stride = Literal[4, 8, 16]
Pooling = Literal["attention", "mean", "max"]
MotionSource = Literal["maps", "difference", "both"]
TimeMixing = Literal["causal", "full"]
TimeEmbedding = Literal["sinusoidal", "golden"]
BetaSchedule = Literal["linear", "cosine", "sigmoid"]
Prediction = Literal["eps", "x0", "v"]
Residual = Literal["none", "last", "warped"]
RegionMaps = Literal["store", "recomputed"]


def check_choice(name: str, value: object, choices: object) -> None:
    """Refuse a value that is none of a Literal.

    Raises:
        ConfigError: It is none.
    """
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(map(str, get_args(choices)))}, got {value!r}")


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Refuse a number outside of a range, or one that is not finite.

    Raises:
        ConfigError: It is outside.
    """
    if not (least <= value <= most and math.isfinite(value)):
        wanted = f"at least {least:g}" if most == math.inf else f"in {least:g}..{most:g}"
        raise ConfigError(f"{name} must be {wanted}, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig:
    """The frame autoencoder."""

    stride: Stride = 8
    """Pixels of a frame, down and across, per cell of the latent grid."""
    latent_channels: int = 8
    """Numbers in a cell."""
    width: int = 48
    """Channels at a quarter of a frame's size, twice as many at an eighth, and so on to the latent grid."""
    blocks: int = 1
    """Residual blocks in a stage; without any it learns fastest, with one or two it gets further."""
    latent_penalty: float = 1e-2
    """Weight of the penalty that keeps raw latents near unit size."""

    def __post_init__(self) -> None:
        check_choice("autoencoder.stride", self.stride, Stride)
        check_range("autoencoder.latent_channels", self.latent_channels, 1)
        check_range("autoencoder.width", self.width, 8)
        check_range("autoencoder.blocks", self.blocks, 0)
        check_range("autoencoder.latent_penalty", self.latent_penalty, 0)


def two_levels(first: int, second: int) -> NestingConfig:
    """Return a stack of two levels with these dimensions.

    Tokens of a frame begin two to three units apart in the ball: at a spread of 1 they see each other from the start,
    at 0.25 each sees itself alone.
    """
    return NestingConfig(levels=tuple(LevelConfig(dim=dim, spread=1.0) for dim in (first, second)))


@dataclass(frozen=True, kw_only=True, slots=True)
class StackConfig:
    """One of the stacks S, M, T."""

    on: bool = True
    """Whether the model has it."""
    nesting: NestingConfig = field(default_factory=lambda: two_levels(64, 32))
    """Its levels."""
    output: int = 64
    """Width of the tokens it returns."""
    pooling: Pooling = "attention"
    """How a frame's tokens become one vector; T does not pool."""

    def __post_init__(self) -> None:
        check_range("stack output", self.output, 1)
        check_choice("stack pooling", self.pooling, Pooling)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextConfig:
    """What the denoiser is told about the given frames: regions (WuBu-S), motion (WuBu-M), time (WuBu-T)."""

    on: bool = True
    """Off: the denoiser sees the given frames' latents alone."""
    features: int = 32
    """Channels of the feature map that regions are sampled from."""
    region_bins: int = 4
    """Bins down and across of a region."""
    motion_bins: int = 3
    """Bins down and across of a motion region."""
    region_width: int = 64
    """Width of a region's vector on its way into WuBu-S, and of a motion region's into WuBu-M."""
    motion_source: MotionSource = "both"
    """What motion regions are sampled from: the maps of two frames, their difference, or both."""
    time_mixing: TimeMixing = "causal"
    """Whether WuBu-T shows a frame the ones before it, or all."""
    width: int = 128
    """Width of the tokens that the denoiser attends to."""
    spatial: StackConfig = field(default_factory=StackConfig)
    """WuBu-S, over the regions of a frame."""
    motion: StackConfig = field(default_factory=StackConfig)
    """WuBu-M, over the motion regions between two frames."""
    temporal: StackConfig = field(default_factory=lambda: StackConfig(nesting=two_levels(128, 64), output=128))
    """WuBu-T, over the given frames."""

    def __post_init__(self) -> None:
        for name in ("features", "region_bins", "motion_bins", "region_width", "width"):
            check_range(f"context.{name}", getattr(self, name), 1)
        check_choice("context.motion_source", self.motion_source, MotionSource)
        check_choice("context.time_mixing", self.time_mixing, TimeMixing)
        if self.on and not (self.spatial.on or self.motion.on or self.temporal.on):
            raise ConfigError("context has none of spatial, motion, temporal: set context.on = false for none")
        if self.on and self.temporal.on and not (self.spatial.on or self.motion.on):
            raise ConfigError("context.temporal mixes what spatial and motion return: turn one of them on")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserConfig:
    """The denoiser: a diffusion transformer on the latent grid."""

    width: int = 192
    """Width of a token."""
    depth: int = 4
    """Blocks."""
    heads: int = 4
    """Attention heads; they divide the width."""
    patch: int = 2
    """Latent cells, down and across, in a token."""
    ffn_ratio: float = 2.0
    """Hidden width of a block's feed-forward part as a share of the width."""
    dropout: float = 0.0
    """Share of features dropped in training."""
    checkpointing: bool = False
    """Compute a block's inner values anew in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "patch"):
            check_range(f"denoiser.{name}", getattr(self, name), 1)
        check_range("denoiser.ffn_ratio", self.ffn_ratio, 0.25)
        check_range("denoiser.dropout", self.dropout, 0, 0.99)
        if self.width % (4 * self.heads):
            raise ConfigError(f"denoiser.width must be a multiple of 4 x heads = {4 * self.heads}, got {self.width}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """The noising process and what the denoiser predicts of it."""

    timesteps: int = 1000
    """Timesteps of the noising process, T."""
    schedule: BetaSchedule = "cosine"
    """How noise grows with time."""
    beta_start: float = 1e-4
    """First beta of the linear schedule at T = 1000; scaled by 1000 / T."""
    beta_end: float = 0.02
    """Last beta of the linear schedule at T = 1000; scaled by 1000 / T."""
    cosine_s: float = 0.008
    """Offset of the cosine schedule."""
    zero_terminal_snr: bool = False
    """Rescale so that nothing of the signal is left at T (Lin et al. 2024); eps cannot be predicted then."""
    prediction: Prediction = "v"
    """What the denoiser's output is."""
    min_snr: float = 0.0
    """Gamma of the min-SNR loss weights (Hang et al. 2023), 5 as published; 0: all timesteps count alike. Such weights
    take from the timesteps of much noise, in which the next frames are decided: measured, 5 learns them far slower."""
    condition_dropout: float = 0.1
    """Share of clips whose given frames are hidden in training, for guidance and unconditional samples."""
    interpolation_share: float = 0.0
    """Share of clips whose given frames are the first and the last ones, not the first alone."""
    residual: Residual = "none"
    """What is diffused: latents, or what they differ by from the last given frame's, as it is or warped by the flow."""
    time_embedding: TimeEmbedding = "sinusoidal"
    """Frequencies of the time embedding: a geometric row, or powers of the golden ratio."""

    def __post_init__(self) -> None:
        check_range("diffusion.timesteps", self.timesteps, 2, 100_000)
        check_choice("diffusion.schedule", self.schedule, BetaSchedule)
        check_choice("diffusion.prediction", self.prediction, Prediction)
        check_choice("diffusion.residual", self.residual, Residual)
        check_choice("diffusion.time_embedding", self.time_embedding, TimeEmbedding)
        check_range("diffusion.min_snr", self.min_snr, 0)
        check_range("diffusion.cosine_s", self.cosine_s, 0, 1)
        for name in ("condition_dropout", "interpolation_share"):
            check_range(f"diffusion.{name}", getattr(self, name), 0, 1)
        if not 0 < self.beta_start < self.beta_end < 1:
            raise ConfigError(
                f"diffusion.beta_start and beta_end must be 0 < start < end < 1, got {self.beta_start}, {self.beta_end}"
            )
        if self.zero_terminal_snr and self.prediction == "eps":
            raise ConfigError("diffusion.prediction 'eps' says nothing where no signal is left: take 'v' or 'x0'")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowConfig:
    """The flow head: how far motion regions, and each cell of the latent grid, move between given frames."""

    on: bool = False
    """Whether the model has it."""
    width: int = 32
    """Channels of its layers."""
    weight: float = 0.1
    """Weight of its loss beside the diffusion loss: what the earlier latents, moved by the flow, miss the later by."""
    smoothness: float = 0.05
    """Weight, in that loss, of how much the flow changes from cell to cell."""

    def __post_init__(self) -> None:
        check_range("flow.width", self.width, 1)
        for name in ("weight", "smoothness"):
            check_range(f"flow.{name}", getattr(self, name), 0)
        if self.on and not self.weight:
            raise ConfigError("flow.weight of 0 would leave the flow head untrained: set flow.on = false for none")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoModelConfig:
    """The whole model."""

    given_frames: int = 4
    """F: frames that a prediction is given."""
    predicted_frames: int = 4
    """P: frames that are denoised together."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    """Frames to latents and back."""
    region_maps: RegionMaps = "store"
    """Whether region maps and motion regions come from the store, whose settings then replace `regions`, or are made
    anew from the frames."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    """Region maps and motion regions that the model was made for."""
    context: ContextConfig = field(default_factory=ContextConfig)
    """WuBu-S, WuBu-M and WuBu-T."""
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    """The denoiser."""
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    """The noise."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    """The flow head."""

    def __post_init__(self) -> None:
        check_range("video.given_frames", self.given_frames, 1)
        check_range("video.predicted_frames", self.predicted_frames, 1)
        check_choice("video.region_maps", self.region_maps, RegionMaps)
        if self.context.on and self.context.motion.on and self.given_frames < 2:
            raise ConfigError(
                "video.context.motion looks at pairs of given frames: give 2 or more, or set context.motion.on = false"
            )
        if self.diffusion.interpolation_share and self.given_frames < 2:
            raise ConfigError(
                "video.diffusion.interpolation_share needs given_frames of at least 2: a first and a last"
            )
        if self.flow.on and not (self.context.on and self.context.motion.on):
            raise ConfigError("video.flow reads motion tokens: it needs video.context.motion")
        if self.diffusion.residual == "warped" and not self.flow.on:
            raise ConfigError(
                "video.diffusion.residual 'warped' moves latents by the flow head's flow: set video.flow.on"
            )

    @property
    def frames(self) -> int:
        """Frames of a window, T = F + P."""
        return self.given_frames + self.predicted_frames
