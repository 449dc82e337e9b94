"""The training loop of byte models.

    ByteStream -> micro-batches -> nats -> gradients -> clip -> AdamW -> scalars, samples, checkpoints -> runs/NAME

SIGTERM and Ctrl-C finish the step at hand, save a checkpoint and leave. A resumed run repeats no window and skips none;
on CPU its losses are those of the run that was never stopped.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bytropix.datasets.store import Store
from bytropix.datasets.stream import ByteBatch, ByteStream
from bytropix.jobs.checkpoint import load_training, load_weights, save_checkpoint
from bytropix.jobs.evaluation import bits_per_byte
from bytropix.jobs.metrics import RunLog, module_gradient_norms
from bytropix.jobs.recipe import ByteModel, Recipe, build_model, choose_device
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.writing import sample_text
from bytropix.optim import learning_rate, make_adamw

# Not cuDNN's, which plans anew for each shape: the number of patches is another in nearly every batch.
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass
class StopFlag:
    """Set by SIGTERM or Ctrl-C; the loop looks at it after each step."""

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


class Training:
    """One training run from its recipe, store and run folder.

    Args:
        recipe: What to train.
        store: Where the bytes come from.
        run: The run folder; made once everything else has been checked.
        resume: Go on from the latest checkpoint, if there is one.

    Raises:
        ConfigError: The context is longer than the split.
        RunError: The folder is taken, or the checkpoint cannot be read or belongs to another config.
        StoreError: The checkpoint was trained on another store.
    """

    def __init__(self, recipe: Recipe, store: Store, run: Path, *, resume: bool) -> None:
        self.recipe, self.store = recipe, store
        self.device = choose_device(recipe.train.device)
        self.stream = ByteStream(store, context=recipe.train.context, batch=recipe.train.batch, seed=recipe.train.seed)
        torch.manual_seed(recipe.train.seed)
        self.model: ByteModel = build_model(recipe).to(self.device)
        self.optimizer = make_adamw(self.model, recipe.optim)
        self.step = 0
        self.patcher = store.patcher()
        self.run = RunFolder.create(run, recipe, store, resume=resume)
        if resume and self.run.checkpoints():
            checkpoint = self.run.latest()
            load_weights(checkpoint, self.model)
            state = load_training(checkpoint, recipe, self.optimizer)
            self.step = state["step"]
            self.stream.load_state_dict(state["stream"])
            self.run.forget_after(self.step)

    def __call__(self) -> bool:
        """Train to the last step or until told to stop; return whether the last step was reached.

        Raises:
            RunError: A loss is not finite.
        """
        train = self.recipe.train
        with RunLog(self.run.path, first=self.step, steps=train.steps) as log, StopFlag() as stop:
            log.describe(self.model, self.store)
            batches = iter(self.stream)
            while self.step < train.steps and not stop.raised:
                self._one_step(batches, log)
                last = self.step == train.steps
                if last or (train.evaluate_every and self.step % train.evaluate_every == 0):
                    log.flush()
                    self._evaluate(log)
                    log.restart_clock()
                if last or stop.raised or self.step % train.checkpoint_every == 0:
                    log.flush()
                    self.save()
        return self.step >= train.steps

    def save(self) -> None:
        """Write a checkpoint of this step."""
        state = {"step": self.step, "stream": self.stream.state_dict()}
        save_checkpoint(self.run.checkpoint(self.step), self.recipe, self.model, self.optimizer, state)

    def _one_step(self, batches: Iterator[ByteBatch], log: RunLog) -> None:
        """Run one optimizer step and log it."""
        optim, train = self.recipe.optim, self.recipe.train
        rate = learning_rate(optim, self.step, train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        losses: list[Tensor] = []
        waited = 0.0
        for _ in range(train.accumulate):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            losses.append(self._backward(batch))
        self.step += 1
        told = self.step % train.log_every == 0 or self.step == train.steps
        scalars = module_gradient_norms(self.model) if told else {}
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        log.step(
            self.step, torch.stack(losses).mean(), read=train.accumulate * train.batch * train.context, waited=waited
        )
        if told:
            log.flush()
            scalars |= {"optim/lr": rate, "grad_norm/all": float(norm)}
            log.scalars(self.step, scalars | {tag: float(value) for tag, value in self.model.scalars().items()})
            log.patches(self.step, batch.starts)

    def _backward(self, batch: ByteBatch) -> Tensor:
        """Add the gradients of one micro-batch and return its mean loss in nats."""
        there = batch.to(self.device)
        rounded = torch.autocast(self.device.type, torch.bfloat16, enabled=_has_bfloat16(self.device))
        with rounded, sdpa_kernel(ATTENTION):
            loss = self.model.nats(there.bytes, there.starts, there.patches).mean()
        (loss / self.recipe.train.accumulate).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _evaluate(self, log: RunLog) -> None:
        """Log bits per byte on the val split and a text sample."""
        train = self.recipe.train
        if self.store.parts("val"):
            result = bits_per_byte(
                self.model, self.store, split="val", context=train.context, at_most=train.evaluate_bytes
            )
            log.evaluated(self.step, result)
        if train.sample_bytes:
            log.text(self.step, sample_text(self.model, self.patcher, train.context, train.sample_bytes))


def _has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast on a device; on CPUs it is emulated too often to be worth it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
