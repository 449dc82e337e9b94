"""What a run tells while it trains: TensorBoard events, log.jsonl, one progress line on stderr.

of every run:  loss/train...  speed/<unit>_per_second  time/data_wait_pct  optim/lr  grad_norm/<module>
where asked:   optim/skipped_steps (bad_steps)  data/damaged_blocks (quarantine)        all else comes from the task
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from bytropix.datasets.mixture import Mixture
from bytropix.errors import RunError
from bytropix.jobs.progress import progress_bar
from bytropix.jobs.ranks import ALONE, Ranks
from bytropix.jobs.run_folder import LOG, RunFolder
from bytropix.jobs.sharding import gradient_norm
from bytropix.jobs.source import Source, facts_of, stores_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What a task counts its data in, and how its loss is called.

    Attributes:
        name: The unit in the plural, as in speed/<name>_per_second.
        loss: Of what the loss is measured in, as in loss/train_<loss>; empty where it has no unit.
        holds: What else a unit has, and how many, each with a speed of its own.
        words: Loss and units per second, in words for the progress line.
    """

    name: str
    loss: str
    words: Callable[[float, float], str]
    holds: Mapping[str, int] = field(default_factory=dict)

    def named(self, stem: str) -> str:
        """Return the name of a loss."""
        return f"{stem}_{self.loss}" if self.loss else stem

    def rates(self, per_second: float) -> dict[str, float]:
        """Return speeds by tag."""
        return {f"speed/{name}_per_second": count * per_second for name, count in {self.name: 1, **self.holds}.items()}


def gradient_norms(parts: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the gradient norm of each part of a model by metric tag; all ranks come here together."""
    return {
        f"grad_norm/{name}": float(gradient_norm(part.parameters()))
        for name, part in parts.items()
        if any(parameter.grad is not None for parameter in part.parameters())
    }


class Silence:
    """Stands where a rank that does not speak has no writer: takes every call and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, as far as the host knows it.

    Attributes:
        number: Of the step, from 1.
        position: Windows that all ranks were given before it.
        loss: This rank's share of the mean loss, on any device.
        taken: 1.0, or 0.0 if it was left out since its gradient is not finite; the same on every rank, on the device.
    """

    number: int
    position: int
    loss: Tensor
    taken: Tensor


class RunLog:
    """The writers of one run; use as a context manager.

    Steps are held back and written together, so that the loop does not wait for the device at each of them.

    Args:
        path: The run folder.
        unit: What is counted.
        first: Step the run goes on from.
        steps: Last step.
        bad_steps: Steps that may be left out, in all.
        skipped: Steps that were left out before.
        ranks: All ranks; those that do not speak take part in sums and write nothing.

    Attributes:
        events: TensorBoard's writer, or what stands in for it.
        skipped: Steps that were left out, as far as they have been written.
    """

    def __init__(
        self,
        path: Path,
        unit: Unit,
        *,
        first: int,
        steps: int,
        bad_steps: int = 0,
        skipped: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        self._path, self._unit, self._ranks = path, unit, ranks
        self._bad_steps, self.skipped = bad_steps, skipped
        self.events: Any = Silence()
        self._lines: Any = Silence()
        self._bar: Any = Silence()
        if ranks.speaks:
            # Steps logged after the checkpoint that a resumed run goes on from are hidden by TensorBoard; so are all
            # steps of a run that was killed before its first checkpoint.
            self.events = SummaryWriter(str(path), purge_step=first + 1)
            self._lines = (path / LOG).open("a", encoding="utf-8")
            self._bar = progress_bar("train", steps, unit="step", done=first)
        self._held: list[Step] = []
        self._tallies: Tensor | None = None
        self._read = 0
        self._waited = 0.0
        self._since = time.perf_counter()
        self._note = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self.events.close()
        self._lines.close()

    def describe(self, model: nn.Module, source: Source) -> None:
        """Note what is trained on what."""
        count = sum(parameter.numel() for parameter in model.parameters())
        store = stores_of(source)[0]
        row = {"event": "start", "parameters": count, "store": store.name, "fingerprint": store.fingerprint}
        mixed = {"mixture": facts_of(source)} if isinstance(source, Mixture) else {}
        self.line({**row, **mixed, "ranks": self._ranks.count})

    def step(self, step: Step, tallies: Tensor, *, read: int, waited: float) -> None:
        """Hold one optimizer step until `flush`.

        Args:
            step: The step.
            tallies: f32 [k, 2], sums and counts of this rank's losses by some kind, on the device.
            read: Units read, by all ranks.
            waited: Seconds spent waiting for data.
        """
        self._held.append(step)
        if tallies.numel():
            counted = torch.where(step.taken > 0, tallies.double(), 0)
            self._tallies = counted if self._tallies is None else self._tallies + counted
        self._read += read
        self._waited += waited
        self._bar.update()

    def flush(self) -> Tensor:
        """Write the steps held back, with the speed since the last call, and all events to disk.

        All ranks come here together.

        Returns:
            Tallies f64 [k, 2] on the CPU, of all ranks, since the last call; k is 0 where there are none.

        Raises:
            RunError: A loss is not finite, or more steps than may be were left out.
        """
        if self._held:
            self._write_held()
        self.events.flush()
        tallies, self._tallies = self._tallies, None
        return torch.zeros(0, 2) if tallies is None else self._ranks.add_up(tallies).cpu()

    def _write_held(self) -> None:
        losses = self._ranks.add_up(torch.stack([step.loss for step in self._held])).tolist()
        taken = torch.stack([step.taken for step in self._held]).tolist()
        seconds = time.perf_counter() - self._since
        for step, loss, good in zip(self._held, losses, taken, strict=True):
            self._write_step(step, loss, good=bool(good))
        per_second = self._read / seconds
        rates = self._unit.rates(per_second) | {"time/data_wait_pct": 100 * self._waited / seconds}
        counts = {"optim/skipped_steps": float(self.skipped)} if self._bad_steps else {}
        self.scalars(self._held[-1].number, rates | counts)
        self._bar.set_postfix_str(f"{self._unit.words(losses[-1], per_second)}{self._note}", refresh=False)
        self._held.clear()
        self.restart_clock()

    def _write_step(self, step: Step, loss: float, *, good: bool) -> None:
        """Write a step, or say why there can be no further one."""
        self.skipped += not good
        finite = math.isfinite(loss)
        if self.skipped > self._bad_steps or (good and not finite):
            raise RunError(self._broken(step.number, loss))
        if finite:
            self.scalars(step.number, {self._unit.named("loss/train"): loss})
        row = {"event": "step", "step": step.number, self._unit.named("loss"): loss if finite else None}
        self.line(row | {"position": step.position} | ({} if good else {"skipped": True}))

    def _broken(self, step: int, loss: float) -> str:
        """Return what ends a run, and what is left of it."""
        if self._bad_steps and self.skipped > self._bad_steps:
            what = (
                f"{self.skipped} steps had a gradient that is not finite, the last one step {step}, and "
                f"train.bad_steps lets {self._bad_steps} be left out"
            )
        elif math.isfinite(loss):
            what = f"the gradient of step {step} is not finite"
        else:
            what = f"the loss of step {step} is {loss}"
        kept = RunFolder(self._path).checkpoints()
        left = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        return f"{what}; start a new run with a lower --optim.lr ({left})"

    def restart_clock(self) -> None:
        """Leave what happened since the last flush, an evaluation say, out of the speed."""
        self._read, self._waited, self._since = 0, 0.0, time.perf_counter()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars by tag."""
        for tag, value in values.items():
            self.events.add_scalar(tag, value, step)

    def histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Log how some values are spread."""
        self.events.add_histogram(tag, values, step)

    def note(self, words: str) -> None:
        """Let the progress line end in these words from now on."""
        self._note = words

    def text(self, step: int, sample: str) -> None:
        """Log a generated sample."""
        self.events.add_text("sample", f"    {sample}".replace("\n", "\n    "), step)

    def line(self, row: Mapping[str, object]) -> None:
        """Write a row of log.jsonl."""
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
