"""The training loop, of any task, on one rank or on many.

    stream -> micro-batches -> losses -> gradients -> clip -> AdamW -> mean of weights -> scalars, samples, checkpoints
        (each rank its rows)     (averaged over ranks)                                       (rank 0 alone writes)

SIGTERM and Ctrl-C finish the step at hand, save a checkpoint and leave. A resumed run repeats no window and skips none;
on CPU its losses are those of the run that was never stopped. The loss of a step is the mean over all units of data, of
all ranks, so it is the same for any number of them, but for rounding. A step whose gradient is not finite changes
nothing: the optimizer sees that on the device, and the host learns of it when it next asks for losses.
"""

import math
import signal
import threading
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Generic

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bytropix.jobs.checkpoint import load_training, load_weights, save_checkpoint
from bytropix.jobs.ema import Ema
from bytropix.jobs.incoming import Incoming, incoming
from bytropix.jobs.metrics import RunLog, Step, gradient_norms
from bytropix.jobs.ranks import ALONE, Ranks
from bytropix.jobs.recipe import choose_device
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.sharding import SharedModel, split_groups
from bytropix.jobs.task import B, Task
from bytropix.optim import learning_rate, make_adamw

# Not cuDNN's, which plans anew for each shape: the number of patches is another in nearly every batch.
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass
class StopFlag:
    """Set by SIGTERM or Ctrl-C; the loop looks at it before and after each wait for a batch."""

    raised: bool = False
    _before: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._raise)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = True


class Training(Generic[B]):
    """One training run from its task and run folder.

    Args:
        task: What to train on what.
        run: The run folder; written to once everything else has been checked.
        resume: Go on from the latest checkpoint, if there is one.
        ranks: All ranks, each of which makes one of these.

    Attributes:
        changes: What a resumed run does otherwise than before, in words.

    Raises:
        ConfigError: The source cannot be read so, or the ranks do not divide the batch.
        RunError: The folder is taken, or the checkpoint cannot be read or belongs to another config.
        StoreError: The checkpoint was trained on another store.
    """

    def __init__(self, task: Task[B], run: Path, *, resume: bool, ranks: Ranks = ALONE) -> None:
        self.task, self.recipe, self.ranks = task, task.recipe, ranks
        train = self.recipe.train
        self.step = self._skipped = 0
        self.changes: list[str] = []
        with ranks.together():
            self.device = choose_device(train.device)
            self.stream = task.stream(self.device, ranks)
            torch.manual_seed(train.seed)
            self.model = task.build().to(self.device)
        self.run = RunFolder(run)
        with ranks.together():
            if ranks.speaks:
                self.run.admit(self.recipe, resume=resume)
        with ranks.together():
            begun = resume and bool(self.run.checkpoints())
            if begun:
                load_weights(self.run.latest(), self.model)
            else:
                task.prepare(self.model, self.device, ranks)
        loss = task.loss(self.model)
        if train.compile:
            loss.compile()
        shares = task.shares(self.model, loss) if train.shard == "fsdp" else None
        self.shared = SharedModel(self.model, loss, ranks, shares)
        self.optimizer = make_adamw(self.model, self.recipe.optim)
        split_groups(self.optimizer)
        self.ema = Ema(self.model, train.ema) if train.ema else None
        with ranks.together():
            if begun:
                self._go_on(self.run.latest())
        self._behind = self.stream.state_dict()
        self._kept = self.step if begun else None  # step of the newest checkpoint
        with ranks.together():
            if ranks.speaks:
                self.run.keep(self.recipe, task.kept)
                if resume:
                    self.run.forget_after(self.step)

    def __call__(self) -> bool:
        """Train to the last step or until told to stop; return whether the last step was reached.

        Raises:
            RunError: A loss is not finite, or more gradients are not than may be.
        """
        train = self.recipe.train
        with (
            StopFlag() as stop,
            self._log() as log,
            closing(incoming(self.stream, self.device)) as batches,  # type: ignore[type-var]
        ):
            log.describe(self.model, self.task.source)
            while self.step < train.steps and self._one_step(batches, log, stop):
                last = self.step == train.steps
                if last or self.step % train.checkpoint_every == 0:
                    self._save(log)
                # After the save: a val split that cannot be read does not take the steps with it.
                if last or (train.evaluate_every and self.step % train.evaluate_every == 0):
                    self._evaluate(log)
            if self.step < train.steps:
                self._save(log)
        return self.step >= train.steps

    def _log(self) -> RunLog:
        """Return the writers of this run."""
        train = self.recipe.train
        return RunLog(
            self.run.path,
            self.task.unit,
            first=self.step,
            steps=train.steps,
            bad_steps=train.bad_steps,
            skipped=self._skipped,
            ranks=self.ranks,
        )

    def _go_on(self, checkpoint: Path) -> None:
        """Take up optimizer, mean of weights, stream and step of a checkpoint."""
        state = load_training(checkpoint, self.recipe, self.model, self.optimizer, self.ema)
        self.step, self._skipped = state["step"], state.get("skipped", 0)
        self.stream.load_state_dict(state["stream"])
        self.changes = [
            f"{name} is {now}, was {state['spread'][name]}"
            for name, now in self._spread().items()
            if state.get("spread", {}).get(name, now) != now
        ]

    def _spread(self) -> dict[str, Any]:
        """Return how the work of a step is spread, which any resumed run may change."""
        train = self.recipe.train
        return {
            "train.batch": train.batch,
            "train.accumulate": train.accumulate,
            "train.shard": train.shard,
            "number of ranks": self.ranks.count,
        }

    def _save(self, log: RunLog) -> None:
        """Write a checkpoint of this step, unless it is there already."""
        if self._kept == self.step:
            return
        self._tell(log)
        state = {"step": self.step, "stream": self._behind, "spread": self._spread()}
        state |= {"skipped": log.skipped} if log.skipped else {}
        target = self.run.checkpoint(self.step)
        with self.ranks.together():
            save_checkpoint(
                target, self.recipe, self.model, self.optimizer, state, ema=self.ema, write=self.ranks.speaks
            )
        self._kept = self.step

    def _one_step(self, batches: Incoming[B], log: RunLog, stop: StopFlag) -> bool:
        """Run one optimizer step and log it; return whether it was run, and no rank was told to stop before it."""
        if self.ranks.sums(stop.raised) != [0]:
            return False  # before the next batch, which may be long in coming, or damaged
        asked = time.perf_counter()
        with self.ranks.together():
            taken = [next(batches) for _ in range(self.recipe.train.accumulate)]
        waited = time.perf_counter() - asked
        n_units, stopping = self.ranks.sums(sum(self.task.units(batch) for batch, _ in taken), stop.raised)
        if stopping:
            return False
        optim, train = self.recipe.optim, self.recipe.train
        rate = learning_rate(optim, self.step, train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.ranks.seed_step(train.seed, self.step)
        self.model.train()
        loss, tallies = self._backward([batch for batch, _ in taken], max(1, n_units))
        self.step += 1
        told = self.step % train.log_every == 0 or self.step == train.steps
        scalars = gradient_norms(self.task.parts(self.model)) if told else {}
        norm, finite = self._update()
        self._behind = taken[-1][1]
        step = Step(self.step, taken[0][0].position, loss, finite)
        log.step(step, tallies, read=n_units, waited=waited)
        if told:
            self._tell(log)
            scalars |= {"optim/lr": rate, "grad_norm/all": float(norm)} | self._read()
            scalars |= {tag: float(value) for tag, value in self.task.scalars(self.model).items()}
            log.scalars(self.step, scalars)
            if self.ranks.speaks:
                self.task.show(taken[-1][0], self.step, log)
        return True

    def _backward(self, batches: list[B], n_units: int) -> tuple[Tensor, Tensor]:
        """Add the gradients of a step's micro-batches; return this rank's share of the mean loss, and its tallies.

        Args:
            batches: This rank's rows of each, on the device.
            n_units: Units of data in all of them, on all ranks.
        """
        loss, tallies = torch.zeros((), device=self.device), torch.zeros(0)
        for number, batch in enumerate(batches, 1):
            first, ranks = batch.position + self.ranks.rank, self.ranks.count
            positions = torch.arange(first, first + batch.rows * ranks, ranks, device=self.device)
            with self.shared.micro_batch(last=number == len(batches)):
                rounded = torch.autocast(self.device.type, torch.bfloat16, enabled=_has_bfloat16(self.device))
                with rounded, sdpa_kernel(ATTENTION):
                    total, counted = self.shared.loss(batch, positions)
                # Gradients are averaged over the ranks, which would divide by their number once more.
                (total * (ranks / n_units)).backward()  # type: ignore[no-untyped-call]
            loss += total.detach() / n_units
            tallies = counted if number == 1 else tallies + counted
        return loss, tallies

    def _update(self) -> tuple[Tensor, Tensor]:
        """Change the weights and their mean, unless the gradient is not finite; return its norm, and 1.0 if it is."""
        norm = self.shared.clip(self.recipe.optim.clip or math.inf)
        finite = norm.isfinite().float()
        self.optimizer.found_inf = 1 - finite  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.step, finite)
        return norm, finite

    def damaged_blocks(self) -> int:
        """Return how many damaged blocks all ranks together have left out; they come here together."""
        return self.ranks.sums(sum(damage.blocks for damage in self.stream.quarantined))[0]

    def _read(self) -> dict[str, float]:
        """Return how the source was read since the last step that was told of, by tag."""
        train = self.recipe.train
        position = self._behind["position"]  # a mixture has no epochs that it would count from
        since = max(0, position - train.log_every * train.step_windows)
        damaged = {"data/damaged_blocks": float(self.damaged_blocks())} if train.checks == "quarantine" else {}
        return {**self.task.reading(self.stream, position, since), **damaged}

    def _tell(self, log: RunLog) -> None:
        """Write the steps that were held back."""
        with self.ranks.together():
            tallies = log.flush()
        if len(tallies):
            log.scalars(self.step, self.task.tallied(tallies))

    def _evaluate(self, log: RunLog) -> None:
        """Let the task evaluate the model, with the mean of its weights if the run keeps one."""
        self._tell(log)
        with self.ema.instead() if self.ema is not None else nullcontext():
            self.task.evaluate(self.model, self.step, log, self.ranks)
        log.restart_clock()


def _has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast on a device; on CPUs it is emulated too often to be worth it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
