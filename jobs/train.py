"""The training loop of byte models.

    ByteStream -> micro-batches -> nats -> gradients -> clip -> AdamW -> scalars, samples, checkpoints -> runs/NAME

SIGTERM and Ctrl-C finish the step at hand, save a checkpoint and leave. A resumed run repeats no window and skips none;
on CPU its losses are those of the run that was never stopped.
"""

import math
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from bytropix.byte_lm import ByteTransformer, WuBuByteLM
from bytropix.datasets.store import Store
from bytropix.datasets.stream import ByteBatch, ByteStream
from bytropix.jobs.evaluation import bits_per_byte
from bytropix.jobs.metrics import RunLog, module_gradient_norms
from bytropix.jobs.recipe import Recipe, build_model
from bytropix.jobs.run_folder import RunFolder, load_training, load_weights
from bytropix.jobs.writing import sample_text
from bytropix.optim import learning_rate, make_adamw

ByteModel = WuBuByteLM | ByteTransformer


def choose_device(asked: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here."""
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


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
        run: Where everything goes.
        resume: Go on from the latest checkpoint, if there is one.
    """

    def __init__(self, recipe: Recipe, store: Store, run: RunFolder, *, resume: bool) -> None:
        self.recipe, self.store, self.run = recipe, store, run
        self.device = choose_device(recipe.train.device)
        torch.manual_seed(recipe.train.seed)
        self.model: ByteModel = build_model(recipe).to(self.device)
        self.optimizer = make_adamw(self.model, recipe.optim)
        self.stream = ByteStream(store, context=recipe.train.context, batch=recipe.train.batch, seed=recipe.train.seed)
        self.step = 0
        if resume and run.checkpoints():
            load_weights(run.latest(), self.model)
            state = load_training(run.latest(), run, self.optimizer)
            self.step = state["step"]
            self.stream.load_state_dict(state["stream"])

    def __call__(self) -> int:
        """Train to the last step or until told to stop; return the step reached."""
        steps = self.recipe.train.steps
        with RunLog(self.run.path, first=self.step, steps=steps) as log, StopFlag() as stop:
            log.describe(self.model, self.store)
            batches = iter(self.stream)
            while self.step < steps and not stop.raised:
                self._one_step(batches, log)
                train = self.recipe.train
                last = self.step == steps or stop.raised
                if (train.evaluate_every and self.step % train.evaluate_every == 0) or self.step == steps:
                    self._evaluate(log)
                if last or self.step % train.checkpoint_every == 0:
                    self.save()
        return self.step

    def save(self) -> Path:
        """Write a checkpoint of this step."""
        state = {"stream": self.stream.state_dict()}
        return self.run.save(self.step, self.model, self.optimizer, state)

    def _one_step(self, batches: Any, log: RunLog) -> None:
        """Run one optimizer step and log it."""
        optim, train = self.recipe.optim, self.recipe.train
        rate = learning_rate(optim, self.step, train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        losses: list[Tensor] = []
        waited, began = 0.0, time.perf_counter()
        for _ in range(train.accumulate):
            asked = time.perf_counter()
            batch: ByteBatch = next(batches)
            waited += time.perf_counter() - asked
            losses.append(self._backward(batch))
        norms = module_gradient_norms(self.model) if (self.step + 1) % train.log_every == 0 else {}
        limit = optim.clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        read = train.accumulate * train.batch * train.context
        seconds = time.perf_counter() - began
        log.step(self.step, torch.stack(losses).mean(), read=read, seconds=seconds, waited=waited)
        if self.step % train.log_every == 0 or self.step == train.steps:
            log.scalars(self.step, {"optim/lr": rate, "grad_norm/all": float(norm), **norms})
            log.scalars(self.step, {tag: float(value) for tag, value in self.model.scalars().items()})
            log.patches(self.step, batch.starts)

    def _backward(self, batch: ByteBatch) -> Tensor:
        """Add the gradients of one micro-batch and return its mean loss in nats."""
        values = batch.bytes.to(self.device, non_blocking=True)
        starts = batch.starts.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.model.nats(values, starts, batch.patches).mean()
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
            log.text(self.step, sample_text(self.model, self.store, train.context, train.sample_bytes))
