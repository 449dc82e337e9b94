"""The training loop of byte models, on one rank or on many.

    ByteStream -> micro-batches -> nats -> gradients -> clip -> AdamW -> scalars, samples, checkpoints -> runs/NAME
        (each rank its rows)       (averaged over ranks)                 (rank 0 alone writes)

SIGTERM and Ctrl-C finish the step at hand, save a checkpoint and leave. A resumed run repeats no window and skips none;
on CPU its losses are those of the run that was never stopped. The loss of a step is the mean over all data bytes of all
ranks, so it is the same for any number of them, but for rounding.
"""

import math
import signal
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bytropix.datasets.batch import ByteBatch
from bytropix.datasets.gather import CACHE_BYTES
from bytropix.datasets.stream import ByteStream
from bytropix.errors import ConfigError
from bytropix.jobs.checkpoint import load_training, load_weights, save_checkpoint
from bytropix.jobs.evaluation import bits_per_byte
from bytropix.jobs.incoming import Incoming, incoming
from bytropix.jobs.metrics import RunLog, module_gradient_norms
from bytropix.jobs.ranks import ALONE, Ranks
from bytropix.jobs.recipe import ByteModel, Recipe, build_model, choose_device
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.sharding import SharedModel, plain_copy, split_groups
from bytropix.jobs.source import Source, names_of, progress_of, stores_of
from bytropix.jobs.writing import sample_text
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


class Training:
    """One training run from its recipe, store or mixture, and run folder.

    Args:
        recipe: What to train.
        source: Where the bytes come from; of a mixture, the run keeps the patcher of the first store.
        run: The run folder; written to once everything else has been checked.
        resume: Go on from the latest checkpoint, if there is one.
        ranks: All ranks, each of which makes one of these.

    Attributes:
        changes: What a resumed run does otherwise than before, in words.

    Raises:
        ConfigError: The split cannot be read so, is shorter than the context, or the ranks do not divide the batch.
        RunError: The folder is taken, or the checkpoint cannot be read or belongs to another config.
        StoreError: The checkpoint was trained on another store.
    """

    def __init__(self, recipe: Recipe, source: Source, run: Path, *, resume: bool, ranks: Ranks = ALONE) -> None:
        self.recipe, self.source, self.ranks = recipe, source, ranks
        self.step = 0
        self.changes: list[str] = []
        with ranks.together():
            self.device = choose_device(recipe.train.device)
            self.stream = self._stream()
            torch.manual_seed(recipe.train.seed)
            self.model: ByteModel = build_model(recipe).to(self.device)
            self.patcher = stores_of(source)[0].patcher()
        self.run = RunFolder(run)
        with ranks.together():
            if ranks.speaks:
                self.run.admit(recipe, resume=resume)
        with ranks.together():
            begun = resume and bool(self.run.checkpoints())
            if begun:
                load_weights(self.run.latest(), self.model)
        self.shared = SharedModel(self.model, ranks, recipe.train.shard)
        self.optimizer = make_adamw(self.model, recipe.optim)
        split_groups(self.optimizer)
        with ranks.together():
            if begun:
                self._go_on(self.run.latest())
        self._behind = self.stream.state_dict()
        self._kept = self.step if begun else None  # step of the newest checkpoint
        with ranks.together():
            if ranks.speaks:
                self.run.keep(recipe, source)
                if resume:
                    self.run.forget_after(self.step)

    def __call__(self) -> bool:
        """Train to the last step or until told to stop; return whether the last step was reached.

        Raises:
            RunError: A loss is not finite.
        """
        train = self.recipe.train
        with (
            StopFlag() as stop,
            RunLog(self.run.path, first=self.step, steps=train.steps, ranks=self.ranks) as log,
            closing(incoming(self.stream, self.device)) as batches,  # type: ignore[type-var]
        ):
            log.describe(self.model, self.source)
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

    def _stream(self) -> ByteStream:
        """Return this rank's stream."""
        train = self.recipe.train
        stream = ByteStream(
            self.source,
            context=train.context,
            batch=train.batch,
            seed=train.seed,
            rank=self.ranks.rank,
            ranks=self.ranks.count,
            pack=train.pack,
            checks=train.checks,
            budget=train.damage_budget,
            # Each store of a mixture has a round of blocks of its own under way.
            cache_bytes=CACHE_BYTES // 2 * max(2, len(stores_of(self.source))),
            pinned=self.device.type == "cuda",
        )
        if stream.n_bytes < train.context:
            raise ConfigError(
                f"train.context is {train.context} bytes, but there are only {stream.n_bytes} to train on; take a "
                "shorter context or ingest more"
            )
        return stream

    def _go_on(self, checkpoint: Path) -> None:
        """Take up optimizer, stream and step of a checkpoint."""
        state = load_training(checkpoint, self.recipe, self.model, self.optimizer)
        self.step = state["step"]
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
        with self.ranks.together():
            log.flush()
        state = {"step": self.step, "stream": self._behind, "spread": self._spread()}
        target = self.run.checkpoint(self.step)
        with self.ranks.together():
            save_checkpoint(target, self.recipe, self.model, self.optimizer, state, write=self.ranks.speaks)
        self._kept = self.step

    def _one_step(self, batches: Incoming, log: RunLog, stop: StopFlag) -> bool:
        """Run one optimizer step and log it; return whether it was run, and no rank was told to stop before it."""
        if self.ranks.sums(stop.raised) != [0]:
            return False  # before the next batch, which may be long in coming, or damaged
        asked = time.perf_counter()
        with self.ranks.together():
            taken = [next(batches) for _ in range(self.recipe.train.accumulate)]
        waited = time.perf_counter() - asked
        n_bytes, stopping = self.ranks.sums(sum(batch.n_bytes for batch, _ in taken), stop.raised)
        if stopping:
            return False
        optim, train = self.recipe.optim, self.recipe.train
        rate = learning_rate(optim, self.step, train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.ranks.seed_step(train.seed, self.step)
        self.model.train()
        loss = self._backward([batch for batch, _ in taken], max(1, n_bytes))
        self.step += 1
        told = self.step % train.log_every == 0 or self.step == train.steps
        scalars = module_gradient_norms(self.model) if told else {}
        norm = self.shared.clip(optim.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._behind = taken[-1][1]
        log.step(self.step, loss, position=taken[0][0].position, read=n_bytes, waited=waited)
        if told:
            with self.ranks.together():
                log.flush()
            scalars |= {"optim/lr": rate, "grad_norm/all": float(norm)} | self._mixture()
            if train.checks == "quarantine":
                scalars["data/damaged_blocks"] = self.damaged_blocks()
            log.scalars(self.step, scalars | {tag: float(value) for tag, value in self.model.scalars().items()})
            log.patches(self.step, taken[-1][0].starts)
        return True

    def damaged_blocks(self) -> int:
        """Return how many damaged blocks all ranks together have left out; they come here together."""
        return self.ranks.sums(sum(damage.blocks for damage in self.stream.quarantined))[0]

    def _mixture(self) -> dict[str, float]:
        """Return how the stores of a mixture were read since the last step that was told of, by tag."""
        position = self._behind["position"]  # a mixture has no epochs that it would count from
        since = max(0, position - self.recipe.train.log_every * self.recipe.train.step_windows)
        return progress_of(self.source, self.stream.order, position, since)

    def _backward(self, batches: list[ByteBatch], n_bytes: int) -> Tensor:
        """Add the gradients of a step's micro-batches; return this rank's share of the mean loss in nats.

        Args:
            batches: This rank's rows of each, on the device.
            n_bytes: Data bytes of all of them on all ranks.
        """
        loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, 1):
            with self.shared.micro_batch(last=number == len(batches)):
                rounded = torch.autocast(self.device.type, torch.bfloat16, enabled=_has_bfloat16(self.device))
                with rounded, sdpa_kernel(ATTENTION):
                    nats = self.shared.nats(batch)
                # Gradients are averaged over the ranks, which would divide by their number once more.
                (nats * (self.ranks.count / n_bytes)).backward()  # type: ignore[no-untyped-call]
            loss += nats.detach() / n_bytes
        return loss

    def _evaluate(self, log: RunLog) -> None:
        """Log bits per byte on the val split and a text sample; every rank scores the same windows."""
        train = self.recipe.train
        with self.ranks.together():
            log.flush()
        with self.ranks.together():
            named = zip(names_of(self.source), stores_of(self.source), strict=True)
            stores = {name: store for name, store in named if store.parts("val")}
            at_most = -(-train.evaluate_bytes // max(1, len(stores)))
            found = {
                name: bits_per_byte(self.model, store, split="val", context=train.context, at_most=at_most)
                for name, store in stores.items()
            }
            if found:
                log.evaluated(self.step, found)
        if train.sample_bytes:
            model = plain_copy(self.model, lambda: build_model(self.recipe))
            if self.ranks.speaks:
                log.text(self.step, sample_text(model, self.patcher, train.context, train.sample_bytes))
        log.restart_clock()


def _has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast on a device; on CPUs it is emulated too often to be worth it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
