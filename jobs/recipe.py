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
from bytropix.optim import OptimConfig

ByteModel = WuBuByteLM | ByteTransformer

# Fields of the loop that a resumed run may change. All else decides the weights, or the windows they are trained on;
# a stream counts windows, so it goes on exactly where the batch is another, or spread over other ranks.
FREE_FIELDS = (
    "steps",
    "batch",
    "accumulate",
    "shard",
    "checks",
    "damage_budget",
    "log_every",
    "evaluate_every",
    "evaluate_bytes",
    "checkpoint_every",
    "sample_bytes",
    "device",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The loop."""

    steps: int = 1000
    """Optimizer steps of the whole run."""
    context: int = 512
    """Bytes of context; a window has one byte more."""
    batch: int = 16
    """Windows in a micro-batch, of all ranks together; each rank takes its share."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    seed: int = 0
    """Seed of the weights, the dropout and the order of windows."""
    log_every: int = 10
    """Steps between two rows of scalars."""
    evaluate_every: int = 200
    """Steps between two evaluations on the val split; 0 for none. The last step is always evaluated."""
    evaluate_bytes: int = 131072
    """At most this many validation bytes in an evaluation during training; 0 for all."""
    checkpoint_every: int = 200
    """Steps between two checkpoints. The last step is always saved."""
    sample_bytes: int = 200
    """Length of the text sample logged at each evaluation; 0 for none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    shard: Annotated[Literal["ddp", "fsdp"], tyro.conf.arg(aliases=["--shard"])] = "ddp"
    """What a rank under torchrun has of the model: ddp a copy, fsdp (FSDP2) a share of every parameter. Alone, a
    process has all of it."""

    pack: Annotated[Literal["bytes", "documents"], tyro.conf.arg(aliases=["--pack"])] = "bytes"
    """How windows are cut. bytes: every context + 1 bytes of the split, across the borders of documents; documents:
    whole documents side by side, none of which sees another, and as many windows as a longer one needs."""
    checks: Literal["raise", "quarantine", "off"] = "raise"
    """What a damaged block of a store does, found when it is first read: end the run, be left out and counted, or, for
    uncompressed files on a disk, go unnoticed."""
    damage_budget: int = 0
    """Most damaged blocks, of 256 KiB, that quarantine leaves out; one more ends the run."""

    def __post_init__(self) -> None:
        for name in ("steps", "context", "batch", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("evaluate_every", "evaluate_bytes", "sample_bytes", "damage_budget"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must not be negative, got {getattr(self, name)}")
        if self.damage_budget and self.checks != "quarantine":
            raise ConfigError(
                f"train.damage_budget is {self.damage_budget}, but train.checks is {self.checks!r}: only quarantine "
                "leaves blocks out"
            )

    @property
    def step_windows(self) -> int:
        """Windows of an optimizer step, of all ranks together."""
        return self.batch * self.accumulate


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
        return from_plain(Recipe, tomllib.loads(path.read_text("utf-8")))
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
