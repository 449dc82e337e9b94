"""A recipe: everything that decides a training run of a byte model, as one nested dataclass.

TOML file -> Recipe <- typed flags (--train.steps 200)        Recipe -> config.toml of the run
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from bytropix.byte_lm import ByteTransformer, ByteTransformerConfig, WuBuByteLM, WuBuConfig
from bytropix.config import from_plain, to_plain
from bytropix.errors import ConfigError
from bytropix.jobs.loop_config import LOOP_FREE_FIELDS, LoopConfig
from bytropix.optim import OptimConfig

ByteModel = WuBuByteLM | ByteTransformer

# What a resumed run may change; all else decides the weights, or the windows they are trained on.
FREE_FIELDS = (*LOOP_FREE_FIELDS, "evaluate_bytes", "sample_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(LoopConfig):
    """The loop, over windows of bytes."""

    context: int = 512
    """Bytes of context; a window has one byte more."""
    evaluate_bytes: int = 131072
    """At most this many validation bytes in an evaluation during training; 0 for all."""
    sample_bytes: int = 200
    """Length of the text sample logged at each evaluation; 0 for none."""
    pack: Annotated[Literal["bytes", "documents"], tyro.conf.arg(aliases=["--pack"])] = "bytes"
    """How windows are cut. bytes: every context + 1 bytes of the split, across the borders of documents; documents:
    whole documents side by side, none of which sees another, and as many windows as a longer one needs."""

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        if self.context < 1:
            raise ConfigError(f"train.context must be at least 1, got {self.context}")
        for name in ("evaluate_bytes", "sample_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole training run, apart from the store it reads and the folder it writes."""

    model: Literal["wubu", "transformer"] = "wubu"
    """wubu: the nested hyperbolic byte model; transformer: the plain yardstick of matched size."""
    wubu: WuBuConfig = field(default_factory=WuBuConfig)
    """Sizes and switches of the WuBu model."""
    transformer: ByteTransformerConfig = field(default_factory=ByteTransformerConfig)
    """Sizes of the yardstick."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer and its schedule."""

    def identity(self) -> dict[str, Any]:
        """Return the plain form of what may not change when a run is resumed."""
        plain: dict[str, Any] = to_plain(self)
        del plain["transformer" if self.model == "wubu" else "wubu"]
        for name in FREE_FIELDS:
            del plain["train"][name]
        return plain


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a TOML file.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has an unknown key or a wrong value.
    """
    try:
        plain = tomllib.loads(path.read_text("utf-8"))
        if plain.get("kind") == "video":
            raise ConfigError("a recipe of a video model; train it with `bytropix train video`")
        return from_plain(Recipe, plain)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a readable TOML recipe ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def build_model(recipe: Recipe) -> ByteModel:
    """Return the freshly initialized model of a recipe; seed torch first."""
    if recipe.model == "wubu":
        return WuBuByteLM(recipe.wubu, context=recipe.train.context)
    return ByteTransformer(recipe.transformer, context=recipe.train.context)


def choose_device(asked: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
        ConfigError: It is another word, or there is no GPU.
    """
    there = torch.cuda.is_available()
    if asked == "auto":
        asked = "cuda" if there else "cpu"
    if asked not in ("cpu", "cuda"):
        raise ConfigError(f"device must be one of auto, cpu, cuda, got {asked!r}")
    if asked == "cuda" and not there:
        raise ConfigError("device is cuda, but torch finds no GPU here; leave it at auto")
    return torch.device(asked)
