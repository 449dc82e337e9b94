"""The settings that every training loop has, whatever it trains; each task adds its own.

LoopConfig <- TrainConfig (bytes), VideoTrainConfig (clips)        TaskRecipe: what the loop asks of a whole recipe
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import tyro

from bytropix.config import ADDED_LATER
from bytropix.errors import ConfigError
from bytropix.optim import OptimConfig

# Fields of the loop that a resumed run may change. All else decides the weights, or the windows they are trained on;
# a stream counts windows, so it goes on exactly where the batch is another, or spread over other ranks.
LOOP_FREE_FIELDS = (
    "steps",
    "batch",
    "accumulate",
    "shard",
    "checks",
    "damage_budget",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "device",
    "bad_steps",
    "compile",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """What every loop is told. A window is a row of a batch: some bytes of text, or a clip."""

    steps: int = 1000
    """Optimizer steps of the whole run."""
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
    checkpoint_every: int = 200
    """Steps between two checkpoints. The last step is always saved."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    shard: Annotated[Literal["ddp", "fsdp"], tyro.conf.arg(aliases=["--shard"])] = "ddp"
    """What a rank under torchrun has of the model: ddp a copy, fsdp (FSDP2) a share of every parameter. Alone, a
    process has all of it."""
    checks: Literal["raise", "quarantine", "off"] = "raise"
    """What a damaged block of a store does, found when it is first read: end the run, be left out and counted, or, for
    uncompressed files on a disk, go unnoticed."""
    damage_budget: int = 0
    """Most damaged blocks, of 256 KiB, that quarantine leaves out; one more ends the run."""
    ema: float = field(default=0.0, metadata=ADDED_LATER)
    """Decay of the running mean of the weights, which evaluations and samples then use; 0 for none."""
    bad_steps: int = 0
    """Steps that are left out because their gradient is not finite; one more ends the run."""
    compile: bool = False
    """Let torch.compile make one program of model and loss: a minute or more at the start, faster steps on a GPU."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("evaluate_every", "damage_budget", "bad_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"train.ema is a decay and must lie in [0, 1), got {self.ema}")
        if self.damage_budget and self.checks != "quarantine":
            raise ConfigError(
                f"train.damage_budget is {self.damage_budget}, but train.checks is {self.checks!r}: only quarantine "
                "leaves blocks out"
            )

    @property
    def step_windows(self) -> int:
        """Windows of an optimizer step, of all ranks together."""
        return self.batch * self.accumulate


class TaskRecipe(Protocol):
    """What decides a run; a frozen dataclass that `to_plain` takes."""

    @property
    def train(self) -> LoopConfig:
        """The loop."""
        ...

    @property
    def optim(self) -> OptimConfig:
        """The optimizer and its schedule."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return the plain form of what may not change when a run is resumed."""
        ...
