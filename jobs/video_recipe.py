"""A video recipe: everything that decides a training run of a video model, as one nested dataclass.

    TOML file -> VideoRecipe <- typed flags (--video.denoiser.width 96)        VideoRecipe -> config.toml of the run

A video model is trained in stages, each a run of its own: an autoencoder, then diffusion on its latents, or both at
once. The plain yardstick, `dit`, is the same denoiser without WuBu-S, WuBu-M and WuBu-T, wider by what they weigh.
"""

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from bytropix.config import from_plain, to_plain
from bytropix.errors import ConfigError
from bytropix.jobs.loop_config import LOOP_FREE_FIELDS, LoopConfig
from bytropix.optim import OptimConfig
from bytropix.video.autoencoder import FrameAutoencoder
from bytropix.video.config import DenoiserConfig, FlowConfig, VideoModelConfig
from bytropix.video.model import VideoModel

Stage = Literal["autoencoder", "diffusion", "joint"]

LEAST_LATENT_FRAMES = 1000

# Fields of the loop that a resumed run may change besides those of every loop.
FREE_FIELDS = ("autoencoder_steps", "evaluate_clips", "sample_clips", "sample_steps", "sample_guidance")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoTrainConfig(LoopConfig):
    """The loop, over clips."""

    steps: int = 2000
    """Optimizer steps of the whole run."""
    batch: int = 8
    """Clips in a micro-batch, of all ranks together; each rank takes its share."""
    ema: float = 0.999
    """Decay of the running mean of the weights, which evaluation and sampling use; 0 for none."""
    bad_steps: int = 20
    """Steps whose gradient is not finite that are left out, and counted; one more ends the run."""
    autoencoder_steps: int = 1000
    """Steps of the autoencoder's run where all stages are trained, one after the other."""
    frame_steps: tuple[int, ...] = (1,)
    """Stored frames from one frame of a clip to the next; several are drawn from."""
    hop: int = 0
    """Frames from the beginning of one clip to that of the next; 0 for half a clip."""
    flip: float = 0.0
    """Share of the clips that are mirrored, left for right."""
    latent_frames: int = 1024
    """At least this many frames measure the mean and size of the latents; a smaller store is gone through again."""
    evaluate_clips: int = 16
    """At most this many clips of the val split in an evaluation during training."""
    sample_clips: int = 2
    """Clips of the val split that are predicted at each evaluation; 0 for none."""
    sample_steps: int = 20
    """Denoising steps of such a prediction."""
    sample_guidance: float = 1.0
    """How far such a prediction leans on the given frames; 1 is the model as it is."""

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        for name in ("autoencoder_steps", "evaluate_clips", "sample_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("hop", "sample_clips", "sample_guidance"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"train.flip is a share of the clips and must lie in 0..1, got {self.flip}")
        if self.latent_frames < LEAST_LATENT_FRAMES:
            raise ConfigError(
                f"train.latent_frames must be at least {LEAST_LATENT_FRAMES}: fewer frames do not measure the latents; "
                f"got {self.latent_frames}"
            )


def video_optim() -> OptimConfig:
    """Return the settings of AdamW that video models begin from."""
    return OptimConfig(lr=1e-3, warmup=50, weight_decay=0.01, beta2=0.99)


def plain_denoiser() -> DenoiserConfig:
    """Return the denoiser that weighs, alone, what the default one and its context weigh together."""
    return DenoiserConfig(width=224)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSettings:
    """What all stages of a video model have in common."""

    model: Literal["wubu", "dit"] = "wubu"
    """wubu: a denoiser that is told of regions, motion and time; dit: the plain yardstick of matched size."""
    video: VideoModelConfig = field(default_factory=VideoModelConfig)
    """Sizes and switches of the model."""
    dit: DenoiserConfig = field(default_factory=plain_denoiser)
    """Sizes of the yardstick's denoiser; all else is as in `video`, without a context."""
    train: VideoTrainConfig = field(default_factory=VideoTrainConfig)
    """The loop."""
    optim: OptimConfig = field(default_factory=video_optim)
    """The optimizer and its schedule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoRecipe(VideoSettings):
    """A whole training run of a video model, apart from the store it reads and the folder it writes."""

    kind: Literal["video"] = "video"
    """What a run's config.toml says it is."""
    stage: Stage = "diffusion"
    """What this run trains: the autoencoder; diffusion on the latents of a trained one; or both at once."""

    def __post_init__(self) -> None:
        if self.model == "dit" and self.video.diffusion.residual == "warped":
            raise ConfigError(
                "model 'dit' has no flow to warp frames by: set video.diffusion.residual to 'last' or 'none'"
            )

        train = self.train
        if train.sample_clips and train.sample_guidance != 1 and not self.video.diffusion.condition_dropout:
            raise ConfigError(
                f"train.sample_guidance of {train.sample_guidance:g} goes away from what the model makes of nothing, "
                "which it does not learn with video.diffusion.condition_dropout = 0: raise that, or guide by 1"
            )

    @property
    def network(self) -> VideoModelConfig:
        """What is built: `video`, or for the yardstick `video` with its denoiser and without a context."""
        if self.model == "wubu":
            return self.video
        return replace(self.video, context=replace(self.video.context, on=False), flow=FlowConfig(), denoiser=self.dit)

    def identity(self) -> dict[str, Any]:
        """Return the plain form of what may not change when a run is resumed."""
        plain: dict[str, Any] = to_plain(self)
        for name in (*LOOP_FREE_FIELDS, *FREE_FIELDS):
            plain["train"].pop(name, None)
        if self.stage == "autoencoder":  # what is trained on its latents later is none of its business
            for name in ("model", "dit"):
                del plain[name]
            for name in ("context", "denoiser", "diffusion", "flow", "regions", "region_maps"):
                del plain["video"][name]
        elif self.model == "wubu":
            del plain["dit"]
        else:
            for name in ("context", "denoiser", "flow"):
                del plain["video"][name]
        return plain

    def of_autoencoder(self) -> "VideoRecipe":
        """Return the recipe of the run that trains this one's autoencoder."""
        train = replace(self.train, steps=self.train.autoencoder_steps)
        return replace(self, stage="autoencoder", train=train)


def read_video_recipe(path: Path) -> VideoRecipe:
    """Return the recipe in a TOML file.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has an unknown key or a wrong value.
    """
    try:
        return from_plain(VideoRecipe, tomllib.loads(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a readable TOML recipe ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def matched(recipe: VideoRecipe) -> VideoRecipe:
    """Return a recipe whose yardstick weighs what its WuBu model weighs, whatever the size of that.

    The width is the largest that does not weigh more, and the feed-forward parts take up what is missing.
    """
    wanted = parameters_of(replace(recipe, model="wubu"))

    def sized(width: int, ratio: float) -> VideoRecipe:
        return replace(recipe, model="dit", dit=replace(recipe.video.denoiser, width=width, ffn_ratio=ratio))

    denoiser = recipe.video.denoiser
    step, ratio = 4 * denoiser.heads, denoiser.ffn_ratio
    width = denoiser.width
    while parameters_of(sized(width + step, ratio)) <= wanted:
        width += step
    least, most = parameters_of(sized(width, ratio)), parameters_of(sized(width, ratio + 1))
    dit = sized(width, ratio + (wanted - least) / (most - least)).dit
    return replace(recipe, dit=dit)


def parameters_of(recipe: VideoRecipe) -> int:
    """Return how many parameters the model of a recipe trains; nothing is initialized."""
    with torch.device("meta"):
        model = build_video_model(recipe)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def build_video_model(recipe: VideoRecipe) -> nn.Module:
    """Return the freshly initialized module of a recipe's stage; seed torch first."""
    if recipe.stage == "autoencoder":
        return FrameAutoencoder(recipe.video.autoencoder)
    return VideoModel(recipe.network, joint=recipe.stage == "joint")
